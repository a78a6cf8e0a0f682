//! What a relay is told at start (relay spec §3.1, §3.4).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU64,
    ops::RangeInclusive,
};

use connlib_stun::{ChannelRange, DEFAULT_REALM, Family};
use thiserror::Error;

use crate::{policy::PeerPolicy, secret::StampSecret, shard::Shard};

/// Port of the STUN and TURN service (RFC 8656 §18).
pub const DEFAULT_LISTEN_PORT: u16 = 3478;

/// Settings of a relay. [`Config::portal`] and [`Config::open`] hold the defaults of the two profiles.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses that clients and peers reach this relay at.
    pub public: PublicAddresses,
    /// Local addresses of this host beside the public ones, e.g. behind a 1:1 NAT.
    pub bound_addresses: Vec<IpAddr>,
    /// Port that clients talk to.
    pub listen_port: u16,
    /// Ports of allocations.
    pub ports: PortRange,
    /// Which of them this server hands out, where several servers share the listen port.
    pub shard: Shard,
    /// Which parts of TURN are served.
    pub profile: Profile,
    /// Which channel numbers clients may choose.
    pub channel_numbers: ChannelRange,
    /// Realm of the long-term credentials; published clients refuse any but the default.
    pub realm: String,
    /// What passwords derive from; drawn from the seed when absent.
    pub stamp_secret: Option<StampSecret>,
    /// The secret before, whose credentials are still valid.
    pub previous_stamp_secret: Option<StampSecret>,
    /// Long-term users beside the derived ones: name → password.
    pub static_users: BTreeMap<String, String>,
    /// Allocations at the same time, e.g. what the limit of file descriptors allows.
    pub max_allocations: usize,
    /// Allocations of one user name. 0 means any number.
    pub allocations_per_username: usize,
    /// What becomes of a user who asks for more.
    pub quota: Quota,
    /// Refuse a valid user on somebody else's allocation (441) instead of handing it over.
    pub strict_username: bool,
    /// Ignore requests without USERNAME, which makes every challenge smaller than its request.
    pub challenge_only_with_username: bool,
    /// Unsigned refusals per second and source.
    pub refusals_per_second: u32,
    /// Payload that one allocation may relay per second, both directions together; no limit if absent.
    pub max_bytes_per_second: Option<NonZeroU64>,
    /// Whom clients may talk to.
    pub peer_policy: PeerPolicy,
}

impl Config {
    /// A relay of a portal: channels only, one allocation per user.
    #[must_use]
    pub fn portal(public: PublicAddresses) -> Self {
        Self {
            public,
            bound_addresses: Vec::new(),
            listen_port: DEFAULT_LISTEN_PORT,
            ports: PortRange::default(),
            shard: Shard::WHOLE,
            profile: Profile::Portal,
            channel_numbers: ChannelRange::Strict,
            realm: DEFAULT_REALM.to_owned(),
            stamp_secret: None,
            previous_stamp_secret: None,
            static_users: BTreeMap::new(),
            max_allocations: usize::from(u16::MAX),
            allocations_per_username: 1,
            quota: Quota::ReplaceOldest,
            strict_username: false,
            challenge_only_with_username: false,
            refusals_per_second: 20,
            max_bytes_per_second: None,
            peer_policy: PeerPolicy::default(),
        }
    }

    /// An ordinary TURN server: permissions and indications, older channel numbers, no limit per user.
    #[must_use]
    pub fn open(public: PublicAddresses) -> Self {
        Self {
            profile: Profile::Open,
            channel_numbers: ChannelRange::Wide,
            allocations_per_username: 0,
            ..Self::portal(public)
        }
    }
}

/// What becomes of a user who asks for more allocations than are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// The oldest one makes room: right for clients whose address has changed.
    ReplaceOldest,
    /// The request is refused (486). Every shard counts for itself.
    Refuse,
}

/// Which parts of TURN are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Only bound channels admit peers; CreatePermission is answered without effect.
    Portal,
    /// Permissions, Send and Data indications too.
    Open,
}

/// Addresses that a relay advertises; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicAddresses {
    /// IPv4 only.
    V4(Ipv4Addr),
    /// IPv6 only.
    V6(Ipv6Addr),
    /// Both.
    Dual(Ipv4Addr, Ipv6Addr),
}

impl PublicAddresses {
    /// From what was configured.
    ///
    /// # Errors
    /// There is none.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Result<Self, ConfigError> {
        match (v4, v6) {
            (Some(v4), Some(v6)) => Ok(Self::Dual(v4, v6)),
            (Some(v4), None) => Ok(Self::V4(v4)),
            (None, Some(v6)) => Ok(Self::V6(v6)),
            (None, None) => Err(ConfigError::NoPublicAddress),
        }
    }

    /// The address of a family.
    #[must_use]
    pub fn get(&self, family: Family) -> Option<IpAddr> {
        match (family, self) {
            (Family::V4, Self::V4(v4) | Self::Dual(v4, _)) => Some(IpAddr::V4(*v4)),
            (Family::V6, Self::V6(v6) | Self::Dual(_, v6)) => Some(IpAddr::V6(*v6)),
            (Family::V4, Self::V6(_)) | (Family::V6, Self::V4(_)) => None,
        }
    }

    /// All addresses, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let both = [self.get(Family::V4), self.get(Family::V6)];
        both.into_iter().flatten()
    }
}

/// The ports that allocations may get, both ends included; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl PortRange {
    /// From the lowest to the highest port.
    ///
    /// # Errors
    /// The range is inverted, or contains port 0.
    pub fn new(lowest: u16, highest: u16) -> Result<Self, ConfigError> {
        if lowest == 0 || lowest > highest {
            return Err(ConfigError::PortRange { lowest, highest });
        }
        Ok(Self(lowest..=highest))
    }

    /// Whether the port belongs to the range.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// The ports in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        self.0.clone()
    }
}

impl Default for PortRange {
    /// 49152–65535, the dynamic ports (RFC 8656 §7.2).
    fn default() -> Self {
        Self(49152..=65535)
    }
}

/// Why a relay cannot be run with these settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Neither family has an address.
    #[error("a relay needs a public IPv4 or IPv6 address")]
    NoPublicAddress,
    /// Nothing could ever be allocated.
    #[error("the port range {lowest}-{highest} is empty or contains port 0")]
    PortRange {
        /// Lower end.
        lowest: u16,
        /// Upper end.
        highest: u16,
    },
    /// Clients could not tell refusals apart from garbage.
    #[error("the realm must have 1 to 127 characters")]
    Realm,
}

#[cfg(test)]
mod tests {
    use super::*;

    // relay C-27
    #[test]
    fn relay_27_empty_and_inverted_ranges_are_refused() {
        assert!(PortRange::new(2, 1).is_err());
        assert!(PortRange::new(0, 65535).is_err());
        assert_eq!(PortRange::new(1, 65535).unwrap().iter().count(), 65535);
        assert_eq!(PortRange::new(7, 7).unwrap().iter().count(), 1);
    }

    #[test]
    fn an_address_is_needed() {
        assert_eq!(
            PublicAddresses::new(None, None),
            Err(ConfigError::NoPublicAddress)
        );
    }
}
