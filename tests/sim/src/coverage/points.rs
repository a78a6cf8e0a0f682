//! The coverage points of the production crates, and in how many of 256 cases each has to be reached.
//!
//! The names are those of `cover!` in the sources; a test of `tests/conformance` compares both lists. A point may go only
//! together with its code. Minimum 0: worth counting, not demanded.
//!
//! The known-host answers of the reference's test build have no counterpart here, so no point either.

/// A point and its minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// What `cover!` counts it under.
    pub name: &'static str,
    /// In at least this many of 256 cases it must be reached.
    pub min_cases: u32,
}

const fn point(name: &'static str, min_cases: u32) -> Point {
    Point { name, min_cases }
}

/// All points, by group.
pub const POINTS: &[Point] = &[
    // Routing
    point("routing/to-cidr", 20),
    point("routing/to-dns", 20),
    point("routing/to-internet", 5),
    point("routing/to-none", 5),
    point("routing/overlap-sticky", 1), // a connected resource keeps its network although a larger id appeared
    point("routing/overlap-by-id", 1),  // nobody was connected: the larger id has the network
    point("routing/longest-prefix-over-wider", 1),
    point("routing/disabled-skipped", 1),
    // Paths
    point("paths/direct-v4", 20),
    point("paths/direct-v6", 5),
    point("paths/relay-one-side", 10),
    point("paths/relay-relay", 3),
    point("relay/family-translated", 1), // a client speaks one family to its relay, the peer the other
    point("paths/host-nominated", 1),
    point("paths/srflx-nominated", 1),
    point("paths/prflx-nominated", 1),
    point("paths/relay-nominated", 1),
    point("paths/fallback-to-relay", 1), // a direct path was given up for one by relay
    point("paths/upgrade-to-direct", 0),
    // Connection
    point("connection/intent-sent", 20),
    point("connection/intent-suppressed", 1), // asked less than 2 s ago
    point("connection/setup-buffer-flushed", 20), // packets waited for the access and left
    point("connection/setup-buffer-overflow", 1), // the oldest of 128 packets gave way
    point("connection/no-candidates", 1),     // no candidate of the peer in 10 s
    point("connection/ice-recovered", 1),     // disconnected, then checking or connected again
    point("connection/ice-failed", 1),
    point("connection/intent-after-loss", 1), // a resource asks for access again after its connection went
    point("connection/handshakes-failed", 0),
    point("connection/rekeyed-by-age", 1), // data sent on a session older than 120 s
    point("connection/renewed-by-age", 1), // age of 150 to 165 s, idle or not
    point("connection/rekeyed-after-expiry", 1),
    point("connection/session-expired", 1), // reached 180 s without a successor
    point("connection/idle-entered", 20),
    point("connection/idle-left-by-incoming", 1),
    point("connection/idle-left-by-outgoing", 20),
    point("connection/migrated", 1), // to another relay
    // TURN
    point("turn/unauthorized-answered", 20), // 401 with a nonce
    point("turn/stale-nonce-answered", 1),   // 438
    point("turn/mismatch-deletes-and-allocates", 1), // 437 to ALLOCATE
    point("turn/mismatch-allocates-again", 1), // 437 to REFRESH or CHANNEL-BIND
    point("turn/silent-relay-asked", 10),    // 3 s without an answer through it
    point("turn/refresh-at-half-life", 20),
    point("turn/channel-bound", 20),
    point("turn/bind-buffered", 1), // before there was an allocation
    point("turn/channel-refresh", 1),
    point("turn/channel-cool-down-reused", 1), // the same number 10 to 15 min after the bind
    point("turn/channel-rebound-after-cool-down", 1),
    point("turn/allocation-freed", 1),
    point("turn/relay-credentials-changed", 1),
    point("turn/all-relays-lost", 1),
    point("turn/request-gave-up", 1),
    // NAT
    point("nat/v4-to-v4", 20),
    point("nat/v6-to-v6", 20),
    point("nat/family-missing-v4", 1),
    point("nat/family-missing-v6", 1),
    point("nat/port-remapped", 1),
    point("nat/session-expired", 1),
    point("nat/expired-session-dropped", 0), // a packet to a session that has ended
    point("nat/error-translated-unreachable", 1),
    point("nat/error-translated-too-big", 1),
    point("nat/error-translated-time-exceeded", 1),
    point("nat/several-names-one-address", 1),
    // DNS
    point("dns/a-answered", 20),
    point("dns/aaaa-answered", 20),
    point("dns/ptr-answered", 1),
    point("dns/https-answered", 1),
    point("dns/canary", 1),
    point("dns/forwarded-by-host-udp", 5),
    point("dns/forwarded-by-host-tcp", 5),
    point("dns/forwarded-by-tunnel-udp", 1),
    point("dns/forwarded-by-tunnel-tcp", 1),
    point("dns/truncated", 1),
    point("dns/servfail", 1),
    point("dns/late-reply-dropped", 1),
    point("dns/mapping-changed", 5),
    point("dns/nat-setup-repeated", 1), // unanswered for 2 s
    point("dns/nat-inactive", 1),
    // Access
    point("acl/filter-allowed", 5), // a filter list that is not empty
    point("acl/filter-denied", 1),  // at the gateway
    point("acl/refused-by-client", 0), // the client's own filters
    point("acl/foreign-source-denied", 1),
    point("acl/expired", 1),
    point("acl/revoked-others-left", 1),
    point("acl/last-revoked", 1), // and the client forgotten
    // Relay
    point("relay/channel-data-from-client", 10),
    point("relay/channel-data-from-peer", 10),
    point("relay/unknown-channel-dropped", 1),
    point("relay/allocation-expired", 1),
    point("relay/stale-nonce", 1),
];
