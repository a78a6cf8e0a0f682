//! What cases are made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Networks of CIDR resources: nested, adjacent, single hosts, both families.
pub fn networks() -> Vec<IpNet> {
    [
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.128/25",
        "10.2.0.0/24",
        "172.20.0.0/30",
        "10.3.0.7/32",
        "9.9.9.0/24",
        "fd10:1::/48",
        "fd10:1:2::/64",
        "fd10:2::/120",
        "2620:fe::/48",
    ]
    .map(|text| text.parse().expect("a network"))
    .to_vec()
}

/// Hosts in those networks, two of each.
pub fn hosts() -> Vec<IpAddr> {
    let mut hosts = Vec::new();
    for network in networks() {
        hosts.push(nth_host(network, 1));
        hosts.push(nth_host(network, 200));
    }
    hosts
}

/// Hosts outside all networks: of the internet, private, and none at all.
pub fn strangers() -> Vec<IpAddr> {
    [
        "8.8.4.4",
        "203.0.113.77",
        "10.77.0.1",
        "2606:4700::1111",
        "fd99::1",
    ]
    .map(|text| text.parse().expect("an address"))
    .to_vec()
}

/// Patterns of DNS resources, all kinds of wildcard.
pub const PATTERNS: [&str; 10] = [
    "web.corp.example",
    "*.corp.example",
    "**.corp.example",
    "w?b.corp.example",
    "*b.corp.example",
    "app.*.lab.example",
    "app.**.lab.example",
    "db.lab.example",
    "*.lab.example",
    "*.*.lab.example",
];

/// Names that exist; some are covered by patterns, some by several, some by none.
pub const NAMES: [&str; 9] = [
    "web.corp.example",
    "wiki.corp.example",
    "a.b.corp.example",
    "corp.example",
    "app.x.lab.example",
    "db.lab.example",
    "app.lab.example",
    "out.example",
    "big.example",
];

/// Names that are asked for besides.
pub const OTHER_NAMES: [&str; 2] = ["use-application-dns.net", "nowhere.example"];

/// Real IPv4 addresses of names; few, so that names share them.
pub fn real_v4() -> Vec<Ipv4Addr> {
    (1..=6).map(|i| Ipv4Addr::new(198, 51, 100, i)).collect()
}

/// Real IPv6 addresses of names.
pub fn real_v6() -> Vec<Ipv6Addr> {
    let address = |i| Ipv6Addr::new(0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, i);
    (1..=6).map(address).collect()
}

/// Resolvers that the portal configures: public ones, and hosts of the networks above.
pub fn upstreams() -> Vec<SocketAddr> {
    [
        "9.9.9.9:53",
        "1.1.1.1:53",
        "10.1.2.3:53",
        "[2620:fe::9]:53",
        "[fd10:1::53]:53",
        "[2606:4700::53]:53",
    ]
    .map(|text| text.parse().expect("a socket address"))
    .to_vec()
}

/// Resolvers of operating systems; one of them is a host of a network above, one a sentinel.
pub fn system_resolvers() -> Vec<IpAddr> {
    [
        "192.168.1.1",
        "10.2.0.53",
        "192.0.2.53",
        "2001:db8::53",
        "fd10:1::53",
        "100.100.111.1",
    ]
    .map(|text| text.parse().expect("an address"))
    .to_vec()
}

/// Proxy addresses that the misbehaving client announces.
pub fn proxies() -> Vec<IpAddr> {
    ["100.96.7.1", "fd00:2021:1111:8000::7:1"]
        .map(|text| text.parse().expect("an address"))
        .to_vec()
}

/// Sources that are not the client's.
pub fn foreign_source(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::new(192, 168, 7, 7).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 7).into(),
    }
}

fn nth_host(network: IpNet, nth: u32) -> IpAddr {
    let size =
        128 - u32::from(network.prefix_len()) - if network.network().is_ipv4() { 96 } else { 0 };
    let nth = if size >= 8 { nth } else { nth % (1 << size) };
    match network.network() {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + nth).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + u128::from(nth)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_in_their_networks() {
        for (index, host) in hosts().into_iter().enumerate() {
            assert!(networks()[index / 2].contains(&host), "{host}");
        }
    }
}
