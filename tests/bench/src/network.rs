//! The network under all contenders: client, gateway and "the internet" (portal and relay), joined by cables.
//!
//! ```text
//!   client 203.0.113.2 ────(direct)──── gateway 203.0.113.3 (lo: 10.20.0.10 and fd20:20::a, the resources)
//!         └──── internet 203.0.113.1 ────┘
//! ```
//!
//! Every host has one public address, the same on all of its cables, with a host route per neighbour. So the path
//! between client and gateway is one veth pair, for us as for peers, and nothing forwards. Without that cable they
//! cannot reach each other at all, and only the relay can help.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use testbed::{Host, HostSpec, InterfaceSpec, RouteSpec};

/// Portal and relay.
pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The client's public address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The gateway's public address.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);
/// The resource that policies allow, as the portal's configuration names it.
pub(crate) const RESOURCE: &str = "10.20.0.0/24";
/// The same for IPv6.
pub(crate) const RESOURCE_V6: &str = "fd20:20::/64";
/// The iperf3 server inside the resource. It is an address of the gateway's own, so that no further hop costs time
/// that peers do not spend.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
/// The same for IPv6.
pub(crate) const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0x20, 0, 0, 0, 0, 0, 10);

/// Further addresses of the client's host, for a swarm: relays limit how often one address is refused per second, and
/// every allocation begins with a refusal.
pub(crate) const SWARM: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 26);
/// Devices that are the ends of cables begin with this.
pub(crate) const CABLE_PREFIX: &str = "to-";

/// How client and gateway can reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Route {
    /// There is a cable between them.
    Direct,
    /// There is none.
    Relayed,
}

/// The hosts. They vanish with this value and the processes inside.
#[derive(Debug)]
pub(crate) struct Network {
    /// Where the client runs, and iperf3's client.
    pub(crate) client: Host,
    /// Where the gateway runs, and iperf3's server.
    pub(crate) gateway: Host,
    /// Where portal and relay run.
    pub(crate) internet: Host,
}

impl Network {
    /// Makes namespaces and cables.
    pub(crate) fn build(route: Route) -> Result<Self> {
        let between = |neighbour| match route {
            Route::Direct => vec![neighbour, ("internet", INTERNET)],
            Route::Relayed => vec![("internet", INTERNET)],
        };
        let hosts = testbed::connect_by_cables(&[
            host("client", CLIENT, &between(("gateway", GATEWAY))),
            host("gateway", GATEWAY, &between(("client", CLIENT))),
            host(
                "internet",
                INTERNET,
                &[("client", CLIENT), ("gateway", GATEWAY)],
            ),
        ])?;
        let [client, gateway, internet] =
            <[Host; 3]>::try_from(hosts).expect("one host per specification");
        gateway.add_addresses(&[SERVER.into(), SERVER_V6.into()])?;
        client.add_addresses(&swarm_addresses().map(IpAddr::from).collect::<Vec<_>>())?;
        Ok(Self {
            client,
            gateway,
            internet,
        })
    }
}

/// All of [`SWARM`].
pub(crate) fn swarm_addresses() -> impl Iterator<Item = Ipv4Addr> {
    let (first, length) = SWARM;
    (0..1_u32 << (32 - length)).map(move |index| (u32::from(first) + index).into())
}

fn host(name: &str, address: Ipv4Addr, neighbours: &[(&str, Ipv4Addr)]) -> HostSpec {
    let interfaces = neighbours
        .iter()
        .map(|(neighbour, neighbour_address)| InterfaceSpec {
            device: format!("{CABLE_PREFIX}{neighbour}"),
            network: cable(name, neighbour),
            v4: Some(address),
            routes: match *neighbour_address {
                CLIENT => vec![RouteSpec::to(CLIENT, 32), RouteSpec::to(SWARM.0, SWARM.1)],
                other => vec![RouteSpec::to(other, 32)],
            },
            ..InterfaceSpec::default()
        });
    // A resolver that does not exist: nothing here may look up names outside.
    let resolver = (
        "resolv.conf".to_owned(),
        "nameserver 203.0.113.53\n".to_owned(),
    );
    HostSpec {
        name: name.to_owned(),
        interfaces: interfaces.collect(),
        etc: BTreeMap::from([resolver]),
        forwarding: false,
    }
}

/// The name of the cable between two hosts, the same from both ends.
fn cable(a: &str, b: &str) -> String {
    format!("{}-{}", a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_name_the_same_cable() {
        assert_eq!(cable("client", "gateway"), "client-gateway");
        assert_eq!(cable("gateway", "client"), "client-gateway");
    }
}
