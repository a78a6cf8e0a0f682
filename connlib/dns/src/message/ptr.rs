//! Names of addresses: `4.3.2.1.in-addr.arpa` (RFC 1035 §3.5) and nibbles under `ip6.arpa` (RFC 3596 §2.5).

use connlib_model::DomainName;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that a name spells, if it spells exactly one.
pub(super) fn address(name: &DomainName) -> Option<IpAddr> {
    if let Some(octets) = name.as_str().strip_suffix(".in-addr.arpa") {
        return v4(octets).map(IpAddr::V4);
    }
    let nibbles = name.as_str().strip_suffix(".ip6.arpa")?;
    v6(nibbles).map(IpAddr::V6)
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut labels = text.split('.');
    for octet in octets.iter_mut().rev() {
        let label = labels.next()?;
        if label.len() > 3 || !label.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = label.parse().ok()?;
    }
    labels.next().is_none().then(|| octets.into())
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    let mut bits = 0u128;
    let mut labels = text.split('.');
    for position in 0..32 {
        let label = labels.next()?;
        if label.len() != 1 {
            return None;
        }
        let nibble = label.chars().next()?.to_digit(16)?;
        bits |= u128::from(nibble) << (4 * position);
    }
    labels.next().is_none().then(|| bits.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<String> {
        address(&text.parse().unwrap()).map(|ip| ip.to_string())
    }

    #[test]
    fn tunnel_19_names_of_addresses() {
        assert_eq!(
            parse("1.0.96.100.in-addr.arpa").as_deref(),
            Some("100.96.0.1")
        );
        assert_eq!(
            parse("1.0.96.100.IN-ADDR.ARPA").as_deref(),
            Some("100.96.0.1")
        );
        let v6 = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.1.1.1.1.1.2.0.2.0.0.D.F.ip6.arpa";
        assert_eq!(parse(v6).as_deref(), Some("fd00:2021:1111:8000::3"));
    }

    #[test]
    fn tunnel_19_malformed_names_are_no_addresses() {
        for name in [
            "in-addr.arpa",
            "0.96.100.in-addr.arpa",
            "9.1.0.96.100.in-addr.arpa",
            "256.0.96.100.in-addr.arpa",
            "+1.0.96.100.in-addr.arpa",
            "a.0.96.100.in-addr.arpa",
            "1.0.96.100.xin-addr.arpa",
            "ip6.arpa",
            "1.ip6.arpa",
            "g.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.1.1.1.1.1.2.0.2.0.0.d.f.ip6.arpa",
            "03.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.1.1.1.1.1.2.0.2.0.0.d.f.ip6.arpa",
            "0.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.1.1.1.1.1.2.0.2.0.0.d.f.ip6.arpa",
            "example.com",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
