//! Sentinels: the addresses that the stub resolver listens on, one per upstream server.

use connlib_model::ranges;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::DNS_PORT;

/// Who configured the upstream servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerOrigin {
    /// The portal: such servers may be reached through the tunnel.
    Portal,
    /// The operating system: such servers are usually on the local network and never go through the tunnel.
    System,
}

/// The upstream servers that are in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveServers {
    /// Who configured them.
    pub origin: ServerOrigin,
    /// The servers in configured order, each once.
    pub servers: Vec<SocketAddr>,
}

impl EffectiveServers {
    /// The portal's servers if there is any, else the system's resolvers on port 53.
    ///
    /// Sentinels are taken out of both, since the system's resolvers may be our own. Duplicates are dropped.
    pub fn select(portal: &[SocketAddr], system: &[IpAddr]) -> Self {
        let portal = usable(portal.iter().copied());
        if !portal.is_empty() {
            return Self {
                origin: ServerOrigin::Portal,
                servers: portal,
            };
        }
        let system = system.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT));
        Self {
            origin: ServerOrigin::System,
            servers: usable(system),
        }
    }
}

fn usable(servers: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    servers
        .filter(|server| !ranges::is_sentinel(server.ip()) && seen.insert(*server))
        .collect()
}

/// Which upstream server is behind which sentinel.
///
/// Consecutive mappings have no sentinel in common, so that nobody who remembers an old sentinel talks to another
/// server unknowingly.
#[derive(Debug, Clone, Default)]
pub struct SentinelMap {
    /// In configured order.
    entries: Vec<(IpAddr, SocketAddr)>,
    upstreams: BTreeMap<IpAddr, SocketAddr>,
    /// Sentinels of the latest mapping that was not empty.
    used: BTreeSet<IpAddr>,
}

impl SentinelMap {
    /// The empty mapping.
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps these servers; returns whether anything changed. Nothing does when the *set* of servers is the same.
    ///
    /// Servers beyond what the range has room for (254 IPv4 and 256 IPv6, less those in use before) are left out.
    pub fn update(&mut self, servers: &[SocketAddr]) -> bool {
        let wanted: BTreeSet<_> = servers.iter().copied().collect();
        let current: BTreeSet<_> = self.entries.iter().map(|(_, upstream)| *upstream).collect();
        if wanted == current {
            return false;
        }
        let (mut v4, mut v6) = (
            ranges::addresses_v4(ranges::SENTINEL_V4)
                .map(IpAddr::V4)
                .filter(|ip| !self.used.contains(ip)),
            ranges::addresses_v6(ranges::SENTINEL_V6)
                .map(IpAddr::V6)
                .filter(|ip| !self.used.contains(ip)),
        );
        let mut entries = Vec::new();
        for server in servers {
            let sentinel = match server {
                SocketAddr::V4(_) => v4.next(),
                SocketAddr::V6(_) => v6.next(),
            };
            match sentinel {
                Some(sentinel) => entries.push((sentinel, *server)),
                None => tracing::warn!(servers = servers.len(), "More DNS servers than sentinels"),
            }
        }
        drop((v4, v6));
        self.replace(entries);
        true
    }

    /// The server behind a sentinel.
    pub fn upstream(&self, sentinel: IpAddr) -> Option<SocketAddr> {
        self.upstreams.get(&sentinel).copied()
    }

    /// The sentinels in the order in which their servers were configured.
    pub fn sentinels(&self) -> impl ExactSizeIterator<Item = IpAddr> + '_ {
        self.entries.iter().map(|(sentinel, _)| *sentinel)
    }

    /// Sentinels and their servers, in configured order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (IpAddr, SocketAddr)> + '_ {
        self.entries.iter().copied()
    }

    /// Whether there is no server: names of resources cannot be resolved then.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn replace(&mut self, entries: Vec<(IpAddr, SocketAddr)>) {
        if !entries.is_empty() {
            self.used = entries.iter().map(|(sentinel, _)| *sentinel).collect();
        }
        self.upstreams = entries.iter().copied().collect();
        self.entries = entries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(text: &[&str]) -> Vec<SocketAddr> {
        text.iter().map(|socket| socket.parse().unwrap()).collect()
    }

    fn ips(text: &[&str]) -> Vec<IpAddr> {
        text.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn tunnel_13_servers_of_the_portal_win() {
        let system = ips(&["192.168.0.1", "fe80::1"]);
        let fallback = EffectiveServers::select(&[], &system);
        let expected = sockets(&["192.168.0.1:53", "[fe80::1]:53"]);
        assert_eq!(
            fallback,
            EffectiveServers {
                origin: ServerOrigin::System,
                servers: expected
            }
        );
        let portal = sockets(&["1.1.1.1:53", "9.9.9.9:5353"]);
        let effective = EffectiveServers::select(&portal, &system);
        assert_eq!(
            effective,
            EffectiveServers {
                origin: ServerOrigin::Portal,
                servers: portal
            }
        );
    }

    #[test]
    fn tunnel_14_sentinels_are_filtered() {
        let own = sockets(&["100.100.111.1:53", "[fd00:2021:1111:8000:100:100:111:5]:53"]);
        let system = ips(&["100.100.111.7", "192.168.0.1"]);
        let effective = EffectiveServers::select(&own, &system);
        assert_eq!(effective.servers, sockets(&["192.168.0.1:53"]));
        let none = EffectiveServers::select(&own, &system[..1]);
        assert_eq!(none.servers, []);
        let mut map = SentinelMap::new();
        assert!(!map.update(&none.servers));
        assert!(map.is_empty());
    }

    #[test]
    fn duplicates_are_dropped_keeping_the_order() {
        let portal = sockets(&["9.9.9.9:53", "1.1.1.1:53", "9.9.9.9:53", "9.9.9.9:54"]);
        let effective = EffectiveServers::select(&portal, &[]);
        assert_eq!(
            effective.servers,
            sockets(&["9.9.9.9:53", "1.1.1.1:53", "9.9.9.9:54"])
        );
    }

    #[test]
    fn sentinels_are_taken_in_order_and_of_the_servers_family() {
        let mut map = SentinelMap::new();
        let servers = sockets(&["9.9.9.9:53", "[2620:fe::fe]:53", "1.1.1.1:53"]);
        assert!(map.update(&servers));
        let expected = ips(&[
            "100.100.111.1",
            "fd00:2021:1111:8000:100:100:111:0",
            "100.100.111.2",
        ]);
        assert_eq!(map.sentinels().collect::<Vec<_>>(), expected);
        for (sentinel, server) in expected.into_iter().zip(servers) {
            assert_eq!(map.upstream(sentinel), Some(server));
        }
        assert_eq!(map.upstream([100, 100, 111, 3].into()), None);
    }

    #[test]
    fn tunnel_15_consecutive_mappings_are_disjoint() {
        let mut map = SentinelMap::new();
        let mut previous = BTreeSet::new();
        for round in 0..20u8 {
            assert!(map.update(&sockets(&[
                &format!("10.0.0.{round}:53"),
                &format!("[fd77::{round}]:53")
            ])));
            let current: BTreeSet<_> = map.sentinels().collect();
            assert_eq!(current.len(), 2);
            assert!(current.is_disjoint(&previous));
            previous = current;
            if round % 3 == 0 {
                // Also when there was no server in between.
                map.update(&[]);
                assert!(map.is_empty());
            }
        }
    }

    #[test]
    fn tunnel_15_same_set_in_other_order_changes_nothing() {
        let mut map = SentinelMap::new();
        map.update(&sockets(&["9.9.9.9:53", "1.1.1.1:53"]));
        let before: Vec<_> = map.iter().collect();
        assert!(!map.update(&sockets(&["1.1.1.1:53", "9.9.9.9:53"])));
        assert_eq!(map.iter().collect::<Vec<_>>(), before);
    }

    #[test]
    fn servers_beyond_the_range_are_left_out() {
        let servers: Vec<_> = (0..300)
            .map(|n| SocketAddr::new([10, 0, 0, 1].into(), 1000 + n))
            .collect();
        let mut map = SentinelMap::new();
        assert!(map.update(&servers));
        assert_eq!(map.sentinels().len(), 254);
        assert!(
            !map.sentinels()
                .any(|ip| ip == IpAddr::from([100, 100, 111, 255]))
        );
    }
}
