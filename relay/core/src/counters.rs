//! What happened so far. Counted per train of datagrams on the data path, read by whoever shows them.

use std::collections::BTreeMap;

use connlib_stun::Method;

/// Counters of a relay; all only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams passed on, both directions.
    pub relayed_packets: u64,
    /// Their payload, without channel headers.
    pub relayed_bytes: u64,
    /// Part of `relayed_bytes` that went from one allocation of this relay to another.
    pub hairpinned_bytes: u64,
    /// Replies by method and error code; `None` is success. The key has few values: unknown methods count as one.
    pub responses: BTreeMap<(MessageType, Option<u16>), u64>,
    /// Replies that were not sent because their source asked too often.
    pub rate_limited: u64,
    /// Peers refused by the peer policy.
    pub policy_refusals: u64,
    /// Allocation ports that could not be bound.
    pub bind_failures: u64,
    /// Datagrams dropped, by reason.
    pub drops: Drops,
}

/// Datagrams that were not passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Neither STUN nor channel data, or broken.
    pub malformed: u64,
    /// Channel data without a bound channel.
    pub no_channel: u64,
    /// From somebody whom no channel is bound to.
    pub unknown_peer: u64,
    /// Too large to be framed.
    pub oversized: u64,
    /// From source port 0, or from one of our own allocations.
    pub bad_source: u64,
    /// Beyond what an allocation may relay per second.
    pub over_limit: u64,
}

/// Method of a reply, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageType {
    /// Binding.
    Binding,
    /// Allocate.
    Allocate,
    /// Refresh.
    Refresh,
    /// ChannelBind.
    ChannelBind,
    /// CreatePermission.
    CreatePermission,
    /// Anything else.
    Other,
}

impl MessageType {
    /// The label's text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Allocate => "allocate",
            Self::Refresh => "refresh",
            Self::ChannelBind => "channelbind",
            Self::CreatePermission => "createpermission",
            Self::Other => "other",
        }
    }
}

impl From<Method> for MessageType {
    fn from(method: Method) -> Self {
        match method {
            Method::Binding => Self::Binding,
            Method::Allocate => Self::Allocate,
            Method::Refresh => Self::Refresh,
            Method::ChannelBind => Self::ChannelBind,
            Method::CreatePermission => Self::CreatePermission,
            Method::Send | Method::Data | Method::Other(_) => Self::Other,
        }
    }
}

impl Counters {
    /// Adds those of another server.
    pub fn add(&mut self, other: &Self) {
        self.relayed_packets += other.relayed_packets;
        self.relayed_bytes += other.relayed_bytes;
        self.hairpinned_bytes += other.hairpinned_bytes;
        for (key, count) in &other.responses {
            *self.responses.entry(*key).or_default() += count;
        }
        self.rate_limited += other.rate_limited;
        self.policy_refusals += other.policy_refusals;
        self.bind_failures += other.bind_failures;
        self.drops.malformed += other.drops.malformed;
        self.drops.no_channel += other.drops.no_channel;
        self.drops.unknown_peer += other.drops.unknown_peer;
        self.drops.oversized += other.drops.oversized;
        self.drops.bad_source += other.drops.bad_source;
        self.drops.over_limit += other.drops.over_limit;
    }

    pub(crate) fn count_response(&mut self, method: Method, code: Option<u16>) {
        *self.responses.entry((method.into(), code)).or_default() += 1;
    }
}
