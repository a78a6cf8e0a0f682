//! The networks that the demo can build.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use testbed::{
    Address, EdgeKindSpec, EdgeSpec, HostSpec, InterfaceSpec, LinkSpec, RouteSpec, Topology,
};

/// Host names of the test network.
pub mod host {
    /// The portal.
    pub const PORTAL: &str = "portal";
    /// The relay.
    pub const RELAY: &str = "relay";
    /// The gateway.
    pub const GATEWAY: &str = "gateway";
    /// The client.
    pub const CLIENT: &str = "client";
    /// The private web server.
    pub const WEB: &str = "web";
    /// A private database server that nobody may reach.
    pub const DATABASE: &str = "database";
}

/// Name of the DNS resource.
pub const APP_NAME: &str = "app.demo.internal";
/// The private network, as a CIDR resource.
pub const OFFICE_V4: &str = "10.20.0.0/24";
/// The private network, as a CIDR resource.
pub const OFFICE_V6: &str = "fd20::/64";
/// The web server.
pub const WEB_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
/// The web server.
pub const WEB_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x10);
/// The web server under the address that belongs to the DNS resource alone.
pub const APP_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 10);
/// The web server under the address that belongs to the DNS resource alone.
pub const APP_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 1, 0, 0, 0, 0, 0, 0x10);
/// The host that no policy lets anybody reach on its port.
pub const DATABASE_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 66);
/// The host that no policy lets anybody reach on its port.
pub const DATABASE_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x66);
/// The port of the database.
pub const DATABASE_PORT: u16 = 5432;
/// Port of the portal.
pub const PORTAL_PORT: u16 = 8080;

const PORTAL_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const PORTAL_V6: Ipv6Addr = public_v6(0, 0x10);
const RELAY_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const RELAY_V6: Ipv6Addr = public_v6(0, 0x20);
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const CLIENT_V6: Ipv6Addr = public_v6(0xc, 2);
const CLIENT_PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 2);
const GATEWAY_V6: Ipv6Addr = public_v6(0x9, 2);
const GATEWAY_PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

const INTERNET: &str = "internet";
const OFFICE: &str = "office";
/// Mappings live longer than any step without traffic.
const NAT_EXPIRY: Duration = Duration::from_secs(120);

const fn public_v6(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host)
}

/// Which network lies between client and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Both behind ordinary NATs: the two end up talking directly.
    Direct,
    /// Direct traffic is blocked, and there is one relay.
    Relayed,
    /// Both behind symmetric NATs: only the relay can help.
    SymmetricNat,
    /// No IPv4 outside; IPv4 and IPv6 inside the tunnel.
    Ipv6Only,
    /// 5 % loss and 30 ms at the client's edge.
    Lossy,
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Self; 5] = [
        Self::Direct,
        Self::Relayed,
        Self::SymmetricNat,
        Self::Ipv6Only,
        Self::Lossy,
    ];

    /// Size of the transferred file in bytes.
    pub fn file_size(self) -> u64 {
        match self {
            Self::Lossy => 2 << 20,
            Self::Direct | Self::Relayed | Self::SymmetricNat | Self::Ipv6Only => 64 << 20,
        }
    }

    /// Whether client and gateway must end up without a relay between them; `None`: both are fine.
    pub fn expects_direct(self) -> Option<bool> {
        match self {
            Self::Direct | Self::Ipv6Only => Some(true),
            Self::Relayed | Self::SymmetricNat => Some(false),
            Self::Lossy => None,
        }
    }

    /// Whether the network loses packets, so that times say nothing.
    pub fn is_lossy(self) -> bool {
        self == Self::Lossy
    }

    /// The portal's address as components reach it.
    pub fn portal_address(self) -> IpAddr {
        match self {
            Self::Ipv6Only => PORTAL_V6.into(),
            Self::Direct | Self::Relayed | Self::SymmetricNat | Self::Lossy => PORTAL_V4.into(),
        }
    }

    /// The relay's public addresses.
    pub fn relay_addresses(self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        match self {
            Self::Ipv6Only => (None, Some(RELAY_V6)),
            Self::Direct | Self::Relayed | Self::SymmetricNat | Self::Lossy => {
                (Some(RELAY_V4), Some(RELAY_V6))
            }
        }
    }

    /// The whole test network.
    pub fn topology(self) -> Topology {
        Topology {
            seed: 20_260_110,
            edges: vec![
                self.edge("client-edge", CLIENT_PUBLIC),
                self.edge("gateway-edge", GATEWAY_PUBLIC),
            ],
            hosts: vec![
                self.public_host(host::PORTAL, PORTAL_V4, PORTAL_V6),
                self.public_host(host::RELAY, RELAY_V4, RELAY_V6),
                self.client(),
                self.gateway(),
                office_host(
                    host::WEB,
                    WEB_V4,
                    WEB_V6,
                    vec![Address::new(APP_V4, 32), Address::new(APP_V6, 128)],
                ),
                office_host(host::DATABASE, DATABASE_V4, DATABASE_V6, Vec::new()),
            ],
            blocked: match self {
                Self::Relayed => vec![(host::CLIENT.into(), host::GATEWAY.into())],
                Self::Direct | Self::SymmetricNat | Self::Ipv6Only | Self::Lossy => Vec::new(),
            },
        }
    }

    fn edge(self, name: &str, public_v4: Ipv4Addr) -> EdgeSpec {
        let kind = match self {
            Self::Direct | Self::Relayed | Self::Lossy => EdgeKindSpec::Cone,
            Self::SymmetricNat => EdgeKindSpec::Symmetric,
            Self::Ipv6Only => EdgeKindSpec::Firewall,
        };
        EdgeSpec {
            name: name.to_owned(),
            network: INTERNET.to_owned(),
            kind,
            public_v4: (self != Self::Ipv6Only).then_some(public_v4),
            idle_expiry: NAT_EXPIRY,
        }
    }

    /// The families that access networks offer: one, so that the scenario decides about the path.
    fn access(self, v4: Ipv4Addr, v6: Ipv6Addr) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        match self {
            Self::Ipv6Only => (None, Some(v6)),
            Self::Direct | Self::Relayed | Self::SymmetricNat | Self::Lossy => (Some(v4), None),
        }
    }

    fn public_host(self, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> HostSpec {
        HostSpec {
            name: name.to_owned(),
            interfaces: vec![InterfaceSpec {
                device: "eth0".to_owned(),
                network: INTERNET.to_owned(),
                v4: (self != Self::Ipv6Only).then_some(v4),
                v6: Some(v6),
                routes: default_routes(),
                link: latency(1),
                ..InterfaceSpec::default()
            }],
            ..HostSpec::default()
        }
    }

    fn client(self) -> HostSpec {
        let (v4, v6) = self.access(CLIENT_V4, CLIENT_V6);
        let link = match self {
            Self::Lossy => LinkSpec {
                loss: 0.05,
                ..latency(30)
            },
            Self::Direct | Self::Relayed | Self::SymmetricNat | Self::Ipv6Only => latency(10),
        };
        let file = |name: &str, content: &str| (name.to_owned(), content.to_owned());
        HostSpec {
            name: host::CLIENT.to_owned(),
            interfaces: vec![InterfaceSpec {
                device: "eth0".to_owned(),
                network: INTERNET.to_owned(),
                edge: Some("client-edge".to_owned()),
                v4,
                v6,
                routes: default_routes(),
                link,
                ..InterfaceSpec::default()
            }],
            // A resolver that does not exist: names of resources must resolve without it.
            etc: BTreeMap::from([
                file("resolv.conf", "nameserver 203.0.113.53\n"),
                file(
                    "nsswitch.conf",
                    "passwd: files\ngroup: files\nhosts: files dns\n",
                ),
                file("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ]),
            forwarding: false,
        }
    }

    fn gateway(self) -> HostSpec {
        let (v4, v6) = self.access(GATEWAY_V4, GATEWAY_V6);
        let hosts = format!(
            "127.0.0.1 localhost\n::1 localhost\n{APP_V4} {APP_NAME}\n{APP_V6} {APP_NAME}\n"
        );
        HostSpec {
            name: host::GATEWAY.to_owned(),
            interfaces: vec![
                InterfaceSpec {
                    device: "eth0".to_owned(),
                    network: INTERNET.to_owned(),
                    edge: Some("gateway-edge".to_owned()),
                    v4,
                    v6,
                    routes: default_routes(),
                    link: latency(10),
                    ..InterfaceSpec::default()
                },
                InterfaceSpec {
                    device: "lan0".to_owned(),
                    network: OFFICE.to_owned(),
                    v4: Some(Ipv4Addr::new(10, 20, 0, 1)),
                    v6: Some(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1)),
                    routes: vec![
                        RouteSpec::to(Ipv4Addr::new(10, 20, 0, 0), 16),
                        RouteSpec::to(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0), 16),
                    ],
                    serves: tunnel_ranges(),
                    ..InterfaceSpec::default()
                },
            ],
            etc: BTreeMap::from([
                ("hosts".to_owned(), hosts),
                (
                    "resolv.conf".to_owned(),
                    "nameserver 203.0.113.53\n".to_owned(),
                ),
            ]),
            forwarding: true,
        }
    }
}

fn office_host(name: &str, v4: Ipv4Addr, v6: Ipv6Addr, serves: Vec<Address>) -> HostSpec {
    HostSpec {
        name: name.to_owned(),
        interfaces: vec![InterfaceSpec {
            device: "eth0".to_owned(),
            network: OFFICE.to_owned(),
            v4: Some(v4),
            v6: Some(v6),
            // The private network routes the tunnel ranges back; nothing here depends on masquerading.
            routes: default_routes(),
            serves,
            link: latency(1),
            ..InterfaceSpec::default()
        }],
        ..HostSpec::default()
    }
}

fn default_routes() -> Vec<RouteSpec> {
    vec![RouteSpec::default_v4(), RouteSpec::default_v6()]
}

fn tunnel_ranges() -> Vec<Address> {
    vec![
        Address::new(Ipv4Addr::new(100, 64, 0, 0), 11),
        Address::new(Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0), 107),
    ]
}

fn latency(milliseconds: u64) -> LinkSpec {
    LinkSpec {
        latency: Duration::from_millis(milliseconds),
        ..LinkSpec::default()
    }
}
