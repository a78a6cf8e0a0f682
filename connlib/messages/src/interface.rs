//! Interface configuration (portal protocol §2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connlib_model::ranges;
use serde::{Deserialize, Serialize};

use crate::lenient;

/// Port of a resolver that is given by address alone.
const DNS_PORT: u16 = 53;

/// What a client's tunnel is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInterface {
    /// Tunnel address, used as a /32.
    pub ipv4: Ipv4Addr,
    /// Tunnel address, used as a /128.
    pub ipv6: Ipv6Addr,
    /// Resolvers for names that are no resource, in the older form.
    #[serde(default, deserialize_with = "lenient::list")]
    upstream_dns: Vec<WireUpstream>,
    /// The same in the newer form, which wins when it is not empty.
    #[serde(default, deserialize_with = "lenient::list")]
    upstream_do53: Vec<WireDo53>,
    /// Appended to queries for a single label.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub search_domain: Option<String>,
}

/// What a gateway's tunnel is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInterface {
    /// Tunnel address, used as a /32.
    pub ipv4: Ipv4Addr,
    /// Tunnel address, used as a /128.
    pub ipv6: Ipv6Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
enum WireUpstream {
    IpPort { address: SocketAddr },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireDo53 {
    ip: IpAddr,
}

impl ClientInterface {
    /// An interface with these resolvers. The newer form cannot name a port, so it is left out when a port differs
    /// from 53.
    pub fn new(
        ipv4: Ipv4Addr,
        ipv6: Ipv6Addr,
        upstream_dns: &[SocketAddr],
        search_domain: Option<String>,
    ) -> Self {
        let all_default = upstream_dns.iter().all(|addr| addr.port() == DNS_PORT);
        let do53 = upstream_dns.iter().filter(|_| all_default);
        Self {
            ipv4,
            ipv6,
            upstream_dns: upstream_dns
                .iter()
                .map(|address| WireUpstream::IpPort { address: *address })
                .collect(),
            upstream_do53: do53.map(|addr| WireDo53 { ip: addr.ip() }).collect(),
            search_domain,
        }
    }

    /// The resolvers to use, without those inside the client's own sentinel ranges. Empty: use the system's.
    pub fn upstream_dns(&self) -> Vec<SocketAddr> {
        let old = self.upstream_dns.iter().map(|upstream| match upstream {
            WireUpstream::IpPort { address } => *address,
        });
        let new = self.upstream_do53.iter();
        let new = new.map(|server| SocketAddr::new(server.ip, DNS_PORT));
        let outside = |addr: &SocketAddr| !ranges::is_sentinel(addr.ip());
        if self.upstream_do53.is_empty() {
            old.filter(outside).collect()
        } else {
            new.filter(outside).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(members: &str) -> ClientInterface {
        let json = format!(r#"{{"ipv4":"100.71.9.14","ipv6":"fd00:2021:1111::7:1b2c"{members}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    // portal 56
    #[test]
    fn portal_56_do53_wins_and_both_may_be_absent() {
        assert_eq!(read("").upstream_dns(), []);
        let both = read(
            r#","upstream_dns":[{"protocol":"ip_port","address":"9.9.9.9:53"}],"upstream_do53":[{"ip":"2620:fe::fe"}]"#,
        );
        assert_eq!(both.upstream_dns(), ["[2620:fe::fe]:53".parse().unwrap()]);
        let old = read(
            r#","upstream_dns":[{"protocol":"ip_port","address":"9.9.9.9:5353"}],"upstream_do53":[]"#,
        );
        assert_eq!(old.upstream_dns(), ["9.9.9.9:5353".parse().unwrap()]);
    }

    #[test]
    fn unknown_protocols_bad_addresses_and_sentinels_are_skipped() {
        let interface = read(
            r#","upstream_dns":[{"protocol":"doq","address":"x"},{"protocol":"ip_port","address":"9.9.9.9"},
                {"protocol":"ip_port","address":"100.100.111.1:53"},{"protocol":"ip_port","address":"9.9.9.9:53"}]"#,
        );
        assert_eq!(interface.upstream_dns(), ["9.9.9.9:53".parse().unwrap()]);
    }

    #[test]
    fn written_interface_has_both_forms_unless_a_port_forbids() {
        let (v4, v6) = (Ipv4Addr::new(100, 64, 0, 1), Ipv6Addr::LOCALHOST);
        let plain = ClientInterface::new(v4, v6, &["9.9.9.9:53".parse().unwrap()], None);
        let json = serde_json::to_value(&plain).unwrap();
        assert_eq!(json["upstream_dns"][0]["address"], "9.9.9.9:53");
        assert_eq!(json["upstream_do53"][0]["ip"], "9.9.9.9");
        let port = ClientInterface::new(v4, v6, &["9.9.9.9:5353".parse().unwrap()], None);
        assert!(port.upstream_do53.is_empty());
        assert_eq!(port.upstream_dns(), ["9.9.9.9:5353".parse().unwrap()]);
    }
}
