//! The TURN client of this workspace against the relay, in virtual time: twenty minutes (C-56), and half an hour without a
//! portal (C-51).
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]

mod net;
mod outage;

use relay_core::AllocationPort;

use net::{Net, PEERS, addr, secs};

#[test]
fn relay_56_dual_stack_for_twenty_minutes() {
    let mut net = Net::new();
    let relayed: Vec<_> = net
        .client
        .relayed_candidates()
        .map(|it| it.addr())
        .collect();
    assert_eq!(relayed.len(), 2);
    assert_eq!(relayed[0].port(), relayed[1].port());
    net.recovers_within(secs(1));
    // Nonces become stale twice in this time, and channels and the allocation have to be refreshed.
    for _ in 0..60 {
        net.advance(secs(20));
        assert_eq!(PEERS.map(|peer| net.ping(addr(peer))), [true; 2]);
    }
    let counters = net.relay.counters();
    assert!(
        counters
            .responses
            .iter()
            .any(|((_, code), _)| *code == Some(438))
    );
    assert_eq!(net.relay.allocation_count(), 1);
}

#[test]
fn relay_56_idle_allocations_live_on_keep_alives() {
    let mut net = Net::new();
    net.advance(secs(1200));
    assert!(net.client.has_allocation());
    net.recovers_within(secs(1));
}

#[test]
fn relay_56_the_relay_forgets_the_allocation() {
    let mut net = Net::new();
    net.recovers_within(secs(1));
    let port = net
        .client
        .relayed_candidates()
        .next()
        .unwrap()
        .addr()
        .port();
    let (port, family) = (AllocationPort::new(port), relay_core::Family::V4);
    net.relay.handle_port_failed(port, family, net.now);
    net.exchange();
    assert_eq!(net.relay.allocation_count(), 0);
    // The next refresh or bind, at half of the life time, finds out (437).
    net.recovers_within(secs(310));
    assert_eq!(net.relay.allocation_count(), 1);
}

#[test]
fn relay_56_the_nat_changes_the_port_and_changes_it_back() {
    let mut net = Net::new();
    net.recovers_within(secs(1));
    for port in [40_001, 40_000, 40_001] {
        net.source.set_port(port);
        net.recovers_within(secs(310));
        // One per user: what was made for the other address is gone.
        assert_eq!(net.relay.allocation_count(), 1);
        net.advance(secs(30));
    }
}
