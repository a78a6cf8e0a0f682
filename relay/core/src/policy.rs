//! Whom clients may talk to (relay spec §6.2).
//!
//! A relay must not become a way into its own host or network. Addresses that embed an IPv4 address are judged by that
//! too; the advisories of other servers show that `0.0.0.0` and `::ffff:127.0.0.1` reach loopback otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::{
    address::{PeerSocket, family_of},
    config::{Config, PortRange, PublicAddresses},
};

/// What an operator may change about the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    /// Peers in these networks are fine, whatever else would speak against it.
    pub allow: Vec<IpNet>,
    /// Peers in these networks are refused.
    pub deny: Vec<IpNet>,
    /// Peers in private networks.
    pub private: PrivatePeers,
}

/// Treatment of private networks (RFC 1918, 100.64.0.0/10, fc00::/7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivatePeers {
    /// Allowed if one of the relay's own public addresses is private: it serves such a network.
    #[default]
    Auto,
    /// Allowed.
    Allow,
    /// Refused.
    Deny,
}

/// The policy of one relay.
#[derive(Debug)]
pub(crate) struct Policy {
    settings: PeerPolicy,
    private_allowed: bool,
    own: OwnAddresses,
}

#[derive(Debug)]
pub(crate) struct OwnAddresses {
    public: PublicAddresses,
    bound: Vec<IpAddr>,
    ports: PortRange,
}

impl Policy {
    pub(crate) fn new(config: &Config) -> Self {
        let private_allowed = match config.peer_policy.private {
            PrivatePeers::Allow => true,
            PrivatePeers::Deny => false,
            PrivatePeers::Auto => config.public.iter().any(is_private),
        };
        Self {
            settings: config.peer_policy.clone(),
            private_allowed,
            own: OwnAddresses {
                public: config.public,
                bound: config.bound_addresses.clone(),
                ports: config.ports.clone(),
            },
        }
    }

    pub(crate) fn own(&self) -> &OwnAddresses {
        &self.own
    }

    /// Whether clients may talk to `peer`.
    pub(crate) fn allows(&self, peer: PeerSocket) -> bool {
        if peer.port() == 0 {
            return false;
        }
        if self.own.contains(peer.ip()) {
            return self.own.ports.contains(peer.port());
        }
        if contains(&self.settings.allow, peer.ip()) {
            return true;
        }
        !contains(&self.settings.deny, peer.ip()) && self.allows_address(peer.ip())
    }

    /// Whether a permission for this address can be of any use.
    pub(crate) fn allows_permission(&self, ip: IpAddr) -> bool {
        let ports = self.own.ports.iter();
        self.own.contains(ip)
            || ports
                .take(1)
                .all(|port| self.allows(PeerSocket::new(SocketAddr::new(ip, port))))
    }

    fn allows_address(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.allows_v4(ip),
            IpAddr::V6(ip) => self.allows_v6(ip),
        }
    }

    fn allows_v4(&self, ip: Ipv4Addr) -> bool {
        let special = ip.octets()[0] == 0
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.octets()[0] >= 240
            || ip.is_link_local();
        !special && (self.private_allowed || !is_private(ip.into()))
    }

    fn allows_v6(&self, ip: Ipv6Addr) -> bool {
        let special = ip.is_unspecified()
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.is_unicast_link_local()
            || is_mapped_or_compatible(ip);
        if special || (!self.private_allowed && is_private(ip.into())) {
            return false;
        }
        embedded(ip).is_none_or(|embedded| self.allows_embedded(embedded))
    }

    /// An IPv4 address that a translator would put in place of an IPv6 one: judged as if it were the peer.
    fn allows_embedded(&self, ip: Ipv4Addr) -> bool {
        let ip = IpAddr::V4(ip);
        !self.own.contains(ip) && !contains(&self.settings.deny, ip) && self.allows_address(ip)
    }
}

impl OwnAddresses {
    /// Whether this host has the address.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.public.get(family_of(ip)) == Some(ip) || self.bound.contains(&ip)
    }

    /// Whether a datagram from here was sent by one of our own allocations.
    pub(crate) fn is_allocation(&self, address: SocketAddr) -> bool {
        self.ports.contains(address.port()) && self.contains(address.ip())
    }

    /// The one name of a peer: an allocation of ours is known by its public address, whichever of our addresses was
    /// used.
    pub(crate) fn canonical(&self, peer: PeerSocket) -> PeerSocket {
        match self.public.get(peer.family()) {
            Some(public) if self.contains(peer.ip()) => {
                PeerSocket::new(SocketAddr::new(public, peer.port()))
            }
            Some(_) | None => peer,
        }
    }

    /// The public address of a port.
    pub(crate) fn relayed(&self, family: connlib_stun::Family, port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.public.get(family)?, port))
    }
}

fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// ::ffff:0:0/96 and ::/96.
fn is_mapped_or_compatible(ip: Ipv6Addr) -> bool {
    ip.segments()[..5] == [0; 5] && matches!(ip.segments()[5], 0 | 0xFFFF)
}

/// The IPv4 address inside NAT64, 6to4 and Teredo addresses.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = u128::from(ip);
    match ip.segments() {
        // NAT64, RFC 6052
        [0x64, 0xFF9B, 0, 0, 0, 0, _, _] => Some(Ipv4Addr::from(bits as u32)),
        // 6to4, RFC 3056
        [0x2002, ..] => Some(Ipv4Addr::from((bits >> 80) as u32)),
        // Teredo, RFC 4380: the client's address, inverted
        [0x2001, 0, ..] => Some(Ipv4Addr::from(!(bits as u32))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(public: &str, change: impl FnOnce(&mut Config)) -> Policy {
        let v6 = "2001:db8:1::1".parse().unwrap();
        let mut config = Config::portal(PublicAddresses::Dual(public.parse().unwrap(), v6));
        change(&mut config);
        Policy::new(&config)
    }

    fn allowed(policy: &Policy, peer: &str) -> bool {
        policy.allows(PeerSocket::new(peer.parse().unwrap()))
    }

    // relay C-41
    #[test]
    fn relay_41_special_addresses_are_refused() {
        let policy = policy("198.51.100.7", |_| {});
        for peer in [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "127.0.0.1:1",
            "127.255.0.1:1",
            "224.0.0.1:1",
            "239.1.1.1:1",
            "240.0.0.1:1",
            "255.255.255.255:1",
            "169.254.169.254:53",
            "[::]:1",
            "[::1]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:192.0.2.1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::192.0.2.1]:1",
            "[64:ff9b::127.0.0.1]:1",
            "[64:ff9b::a9fe:a9fe]:1",
            "[64:ff9b::198.51.100.7]:50000",
            "[2002:7f00:1::1]:1",
            "[2002:a00:1::1]:1",
            "[2001:0:4136:e378:8000:63bf:80ff:fffe]:1",
            "203.0.113.1:0",
            "10.0.0.1:1",
            "172.16.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "100.127.255.255:1",
            "[fc00::1]:1",
            "[fd12::1]:1",
        ] {
            assert!(!allowed(&policy, peer), "{peer}");
        }
        for peer in [
            "203.0.113.1:1",
            "100.63.255.255:1",
            "100.128.0.0:1",
            "[2001:db8::1]:1",
            "[64:ff9b::203.0.113.1]:1",
            "[2002:cb00:7101::1]:1",
        ] {
            assert!(allowed(&policy, peer), "{peer}");
        }
    }

    #[test]
    fn relay_41_own_addresses_only_with_allocation_ports() {
        let bound = "10.9.0.1".parse().unwrap();
        let policy = policy("198.51.100.7", |config| {
            config.bound_addresses = vec![bound]
        });
        for ip in ["198.51.100.7", "[2001:db8:1::1]", "10.9.0.1"] {
            assert!(allowed(&policy, &format!("{ip}:49152")), "{ip}");
            assert!(!allowed(&policy, &format!("{ip}:3478")), "{ip}");
            assert!(!allowed(&policy, &format!("{ip}:22")), "{ip}");
        }
        let behind_nat = PeerSocket::new("10.9.0.1:50000".parse().unwrap());
        let public = PeerSocket::new("198.51.100.7:50000".parse().unwrap());
        assert_eq!(policy.own().canonical(behind_nat), public);
    }

    #[test]
    fn relay_41_private_networks() {
        let lan = policy("192.168.0.2", |_| {});
        assert!(allowed(&lan, "10.0.0.1:1") && allowed(&lan, "[fd00::1]:1"));
        assert!(!allowed(&lan, "127.0.0.1:1"));
        let strict = policy("192.168.0.2", |config| {
            config.peer_policy.private = PrivatePeers::Deny;
        });
        assert!(!allowed(&strict, "10.0.0.1:1"));
    }

    #[test]
    fn relay_41_allow_wins_over_deny() {
        let policy = policy("198.51.100.7", |config| {
            config.peer_policy.deny = vec!["203.0.113.0/24".parse().unwrap()];
            config.peer_policy.allow = vec![
                "203.0.113.128/25".parse().unwrap(),
                "127.0.0.0/8".parse().unwrap(),
            ];
        });
        assert!(!allowed(&policy, "203.0.113.1:1"));
        assert!(allowed(&policy, "203.0.113.129:1") && allowed(&policy, "127.0.0.1:1"));
        assert!(!allowed(&policy, "[64:ff9b::203.0.113.1]:1"));
    }
}
