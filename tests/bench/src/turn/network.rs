//! The network under every TURN server: one host for the generator, one for the server, joined by a cable.
//!
//! ```text
//!   generator 203.0.113.2, 2001:db8::2 ──────── server 203.0.113.1, 2001:db8::1
//!   (clients and peers)                         (one TURN server at a time)
//! ```
//!
//! Nothing leads out of it, so a load can never meet anybody else's machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use testbed::{Host, HostSpec, InterfaceSpec, RouteSpec};

use crate::{load::Version, network::CABLE_PREFIX};

/// The server's addresses.
pub(crate) const SERVER: Addresses = Addresses {
    v4: Ipv4Addr::new(203, 0, 113, 1),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
};
/// The addresses of clients and peers.
pub(crate) const GENERATOR: Addresses = Addresses {
    v4: Ipv4Addr::new(203, 0, 113, 2),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
};

/// IP versions on both sides of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    /// IPv4 to clients and peers.
    V4,
    /// IPv6 to clients and peers.
    V6,
    /// IPv4 to clients, IPv6 to peers.
    V4ToV6,
    /// IPv6 to clients, IPv4 to peers.
    V6ToV4,
}

impl Family {
    /// Between client and server.
    pub(crate) fn client(self) -> Version {
        match self {
            Self::V4 | Self::V4ToV6 => Version::V4,
            Self::V6 | Self::V6ToV4 => Version::V6,
        }
    }

    /// Between server and peer.
    pub(crate) fn peer(self) -> Version {
        match self {
            Self::V4 | Self::V6ToV4 => Version::V4,
            Self::V6 | Self::V4ToV6 => Version::V6,
        }
    }

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::V4ToV6 => "v4-to-v6",
            Self::V6ToV4 => "v6-to-v4",
        }
    }
}

/// One host's address of each version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// IPv4.
    pub(crate) v4: Ipv4Addr,
    /// IPv6.
    pub(crate) v6: Ipv6Addr,
}

impl Addresses {
    /// Of loopback.
    pub(crate) const LOOPBACK: Self = Self {
        v4: Ipv4Addr::LOCALHOST,
        v6: Ipv6Addr::LOCALHOST,
    };

    /// The address of a version.
    pub(crate) fn of(self, version: Version) -> IpAddr {
        match version {
            Version::V4 => self.v4.into(),
            Version::V6 => self.v6.into(),
        }
    }
}

/// The two hosts. They vanish with this value and the processes inside.
#[derive(Debug)]
pub(crate) struct Network {
    /// Where clients and peers are.
    pub(crate) generator: Host,
    /// Where the TURN server runs.
    pub(crate) server: Host,
}

impl Network {
    /// Makes namespaces and cable.
    pub(crate) fn build() -> Result<Self> {
        let hosts = testbed::connect_by_cables(&[
            host("generator", GENERATOR, ("server", SERVER)),
            host("server", SERVER, ("generator", GENERATOR)),
        ])?;
        let [generator, server] = <[Host; 2]>::try_from(hosts).expect("one host per specification");
        Ok(Self { generator, server })
    }
}

fn host(name: &str, own: Addresses, (far, neighbour): (&str, Addresses)) -> HostSpec {
    HostSpec {
        name: name.to_owned(),
        interfaces: vec![InterfaceSpec {
            device: format!("{CABLE_PREFIX}{far}"),
            network: "cable".to_owned(),
            v4: Some(own.v4),
            v6: Some(own.v6),
            routes: vec![
                RouteSpec::to(neighbour.v4, 32),
                RouteSpec::to(neighbour.v6, 128),
            ],
            ..InterfaceSpec::default()
        }],
        ..HostSpec::default()
    }
}
