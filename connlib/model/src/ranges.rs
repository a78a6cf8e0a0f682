//! The address ranges of the data plane (tunnel specification §1.1).
//!
//! The sentinel ranges lie *inside* the proxy ranges and are therefore left out when proxy addresses are given out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// TUN addresses of clients and gateways; each gets one /32 from the portal.
pub const TUNNEL_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 11);
/// TUN addresses of clients and gateways; each gets one /128 from the portal.
pub const TUNNEL_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0), 107);
/// Addresses that the client invents for names of DNS resources.
pub const PROXY_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 11);
/// Addresses that the client invents for names of DNS resources.
pub const PROXY_V6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 0),
    107,
);
/// Addresses that the client's stub resolver listens on, one per upstream server.
pub const SENTINEL_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 111, 0), 24);
/// Addresses that the client's stub resolver listens on, one per upstream server.
pub const SENTINEL_V6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0x0100, 0x0100, 0x0111, 0),
    120,
);
/// UDP and TCP port of the gateway's DNS server on its TUN addresses.
pub const GATEWAY_DNS_PORT: u16 = 53_535;

/// Whether the address may belong to a client or gateway.
pub fn is_tunnel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => TUNNEL_V4.contains(&ip),
        IpAddr::V6(ip) => TUNNEL_V6.contains(&ip),
    }
}

/// Whether the address lies in a proxy range, sentinels included.
pub fn is_proxy(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => PROXY_V4.contains(&ip),
        IpAddr::V6(ip) => PROXY_V6.contains(&ip),
    }
}

/// Whether the address may be one of the stub resolver's.
pub fn is_sentinel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SENTINEL_V4.contains(&ip),
        IpAddr::V6(ip) => SENTINEL_V6.contains(&ip),
    }
}

/// The usable addresses of an IPv4 range in the order in which they are given out: ascending, without the network and
/// broadcast addresses.
pub fn addresses_v4(net: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> + Clone {
    net.hosts()
}

/// The addresses of an IPv6 range in the order in which they are given out: ascending from the network address itself.
pub fn addresses_v6(net: Ipv6Net) -> impl Iterator<Item = Ipv6Addr> + Clone {
    net.hosts()
}

/// Proxy IPv4 addresses in the order in which they are given out: sentinels are skipped.
pub fn proxy_addresses_v4() -> impl Iterator<Item = Ipv4Addr> + Clone {
    addresses_v4(PROXY_V4).filter(|ip| !SENTINEL_V4.contains(ip))
}

/// Proxy IPv6 addresses in the order in which they are given out: sentinels are skipped.
pub fn proxy_addresses_v6() -> impl Iterator<Item = Ipv6Addr> + Clone {
    addresses_v6(PROXY_V6).filter(|ip| !SENTINEL_V6.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_specification() {
        assert_eq!(TUNNEL_V4.to_string(), "100.64.0.0/11");
        assert_eq!(TUNNEL_V6.to_string(), "fd00:2021:1111::/107");
        assert_eq!(PROXY_V4.to_string(), "100.96.0.0/11");
        assert_eq!(PROXY_V6.to_string(), "fd00:2021:1111:8000::/107");
        assert_eq!(SENTINEL_V4.to_string(), "100.100.111.0/24");
        assert_eq!(
            SENTINEL_V6.to_string(),
            "fd00:2021:1111:8000:100:100:111:0/120"
        );
    }

    #[test]
    fn tunnel_and_proxy_ranges_do_not_overlap() {
        assert!(!PROXY_V4.contains(&TUNNEL_V4) && !TUNNEL_V4.contains(&PROXY_V4));
        assert!(!PROXY_V6.contains(&TUNNEL_V6) && !TUNNEL_V6.contains(&PROXY_V6));
        assert!(PROXY_V4.contains(&SENTINEL_V4));
    }

    // tunnel 1
    #[test]
    fn enumeration_starts_where_the_specification_says() {
        let v4: Vec<_> = proxy_addresses_v4().take(2).collect();
        assert_eq!(
            v4,
            [Ipv4Addr::new(100, 96, 0, 1), Ipv4Addr::new(100, 96, 0, 2)]
        );
        assert_eq!(
            proxy_addresses_v6().next().unwrap().to_string(),
            "fd00:2021:1111:8000::"
        );
        assert_eq!(
            addresses_v4(SENTINEL_V4).next().unwrap().to_string(),
            "100.100.111.1"
        );
        assert_eq!(
            addresses_v6(SENTINEL_V6).next().unwrap().to_string(),
            "fd00:2021:1111:8000:100:100:111:0"
        );
    }

    #[test]
    fn proxies_skip_the_sentinels() {
        let around: Vec<_> = proxy_addresses_v4()
            .skip_while(|ip| *ip < Ipv4Addr::new(100, 100, 110, 255))
            .take(2)
            .collect();
        assert_eq!(
            around,
            [
                Ipv4Addr::new(100, 100, 110, 255),
                Ipv4Addr::new(100, 100, 112, 0)
            ]
        );
    }
}
