//! Has the gateway set up the translation of a domain's proxy IPs? (tunnel spec 3.12)
//!
//! A packet to a proxy IP is meaningless to a gateway until it knows which domain the address stands for. The client says
//! so with `AssignedIps`; the gateway resolves the domain and answers with `DomainStatus`. Neither message is
//! acknowledged, so this table repeats the first one *when traffic asks for it* and keeps packets meanwhile.
//!
//! ```text
//!            refresh                   DomainStatus(active)
//!   (none) ─────────► Pending{hold} ────────────────────────► Confirmed
//!                        │ inactive                            │      ▲
//!                        ▼                 inactive            │      │ active
//!                      Failed ◄────────────────────────────────┤      │
//!                        │ refresh                             │ refr.│
//!                        ▼                                     ▼      │
//!                   Pending{hold}                       Pending{pass} ┘
//! ```
//!
//! A query for a domain that works must not stall its live flows: such an entry becomes `Pending{pass}`, where traffic
//! keeps going to the old mapping. Traffic alone never retries a failed domain.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::mem;
use std::time::{Duration, Instant};

use connlib_cover::cover;
use connlib_model::{DomainName, GatewayId, ResourceId};
use ip_packet::IpPacket;

use crate::NatStatus;

/// Shortest time between two `AssignedIps` for one domain, resource and gateway.
const RESEND_INTERVAL: Duration = Duration::from_secs(2);

/// Packets kept per entry; the first packets of the connections that an application opens after one DNS answer.
const MAX_PACKETS: usize = 32;

/// Set-up states per (gateway, resource), then per domain.
#[derive(Debug, Default)]
pub(crate) struct DnsResourceNat {
    states: BTreeMap<(GatewayId, ResourceId), BTreeMap<DomainName, State>>,
}

#[derive(Debug)]
enum State {
    Pending { sent_at: Instant, traffic: Traffic },
    Confirmed,
    Failed,
}

/// What happens to packets while the answer is awaited.
#[derive(Debug)]
enum Traffic {
    /// No mapping exists: packets wait, the oldest gives way.
    Hold(VecDeque<IpPacket>),
    /// An older mapping exists: packets use it.
    Pass,
}

/// What to do with a packet to a proxy IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it; the answer stays the same until the table changes.
    Pass,
    /// Send it, but ask again for the next packet. `resend`: `AssignedIps` is overdue.
    PassForNow { resend: bool },
    /// Give it to [`DnsResourceNat::hold`]. `resend`: `AssignedIps` is overdue.
    Hold { resend: bool },
}

impl DnsResourceNat {
    /// Makes sure that `gateway` has a fresh translation of `domain` for `resource`: somebody asked for this very domain,
    /// or access was authorized anew. A working mapping stays in use until the answer comes.
    ///
    /// Returns whether `AssignedIps` has to be sent now.
    #[must_use]
    pub(crate) fn refresh(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: &DomainName,
        now: Instant,
    ) -> bool {
        match self.entry(gateway, resource, domain) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(State::hold(now));
                true
            }
            btree_map::Entry::Occupied(mut entry) => match entry.get_mut() {
                state @ State::Confirmed => {
                    *state = State::Pending {
                        sent_at: now,
                        traffic: Traffic::Pass,
                    };
                    true
                }
                state @ State::Failed => {
                    *state = State::hold(now);
                    true
                }
                state @ State::Pending { .. } => state.is_resend_due(now),
            },
        }
    }

    /// Decides about a packet for `domain`. Domains that were never announced pass: the gateway answers for itself.
    pub(crate) fn on_packet(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: &DomainName,
        now: Instant,
    ) -> Verdict {
        let Some(state) = self
            .states
            .get_mut(&(gateway, resource))
            .and_then(|domains| domains.get_mut(domain))
        else {
            return Verdict::Pass;
        };

        let resend = state.is_resend_due(now);
        match state {
            State::Confirmed | State::Failed => Verdict::Pass,
            State::Pending {
                traffic: Traffic::Pass,
                ..
            } => Verdict::PassForNow { resend },
            State::Pending {
                traffic: Traffic::Hold(_),
                ..
            } => Verdict::Hold { resend },
        }
    }

    /// Keeps `packet` until the gateway has answered; the oldest packet gives way when the ring is full.
    ///
    /// Hands the packet back if nothing is awaited for it.
    #[must_use]
    pub(crate) fn hold(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: &DomainName,
        packet: IpPacket,
    ) -> Option<IpPacket> {
        let state = self
            .states
            .get_mut(&(gateway, resource))
            .and_then(|domains| domains.get_mut(domain));
        let Some(State::Pending {
            traffic: Traffic::Hold(packets),
            ..
        }) = state
        else {
            return Some(packet);
        };

        if packets.len() == MAX_PACKETS {
            packets.pop_front();
        }
        packets.push_back(packet);

        None
    }

    /// Takes in the gateway's answer. Returns the packets that may go now, in order.
    ///
    /// A status for something that was never announced is ignored.
    #[must_use]
    pub(crate) fn on_status(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: &DomainName,
        status: NatStatus,
    ) -> VecDeque<IpPacket> {
        let Some(state) = self
            .states
            .get_mut(&(gateway, resource))
            .and_then(|domains| domains.get_mut(domain))
        else {
            return VecDeque::new();
        };

        let new = match status {
            NatStatus::Active => State::Confirmed,
            NatStatus::Inactive => State::Failed,
        };
        let old = mem::replace(state, new);
        cover!("dns/nat-inactive" if status == NatStatus::Inactive);

        match (old, status) {
            (
                State::Pending {
                    traffic: Traffic::Hold(packets),
                    ..
                },
                NatStatus::Active,
            ) => packets,
            (State::Pending { .. } | State::Confirmed | State::Failed, _) => VecDeque::new(),
        }
    }

    /// Forgets everything about `gateway`: its translations died with the connection, or will be announced anew. Returns the
    /// packets that waited for them.
    pub(crate) fn remove_gateway(&mut self, gateway: GatewayId) -> Vec<IpPacket> {
        let removed = self.states.extract_if(.., |(of, _), _| *of == gateway);

        removed
            .flat_map(|(_, domains)| domains.into_values())
            .flat_map(State::into_packets)
            .collect()
    }

    /// Forgets everything about `resource`.
    pub(crate) fn remove_resource(&mut self, resource: ResourceId) {
        self.states.retain(|(_, r), _| *r != resource);
    }

    fn entry(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: &DomainName,
    ) -> btree_map::Entry<'_, DomainName, State> {
        self.states
            .entry((gateway, resource))
            .or_default()
            .entry(domain.clone())
    }
}

impl State {
    fn hold(now: Instant) -> Self {
        Self::Pending {
            sent_at: now,
            traffic: Traffic::Hold(VecDeque::new()),
        }
    }

    fn into_packets(self) -> VecDeque<IpPacket> {
        match self {
            Self::Pending {
                traffic: Traffic::Hold(packets),
                ..
            } => packets,
            Self::Pending {
                traffic: Traffic::Pass,
                ..
            }
            | Self::Confirmed
            | Self::Failed => VecDeque::new(),
        }
    }

    /// Whether `AssignedIps` has to be repeated; counts as repeated then.
    fn is_resend_due(&mut self, now: Instant) -> bool {
        let Self::Pending { sent_at, .. } = self else {
            return false;
        };
        if now.saturating_duration_since(*sent_at) < RESEND_INTERVAL {
            return false;
        }
        *sent_at = now;

        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: GatewayId = GatewayId::from_u128(1);
    const RESOURCE: ResourceId = ResourceId::from_u128(2);

    // tunnel 41
    #[test]
    fn tunnel_41_holds_32_packets_and_flushes_in_order() {
        let (mut nat, now) = (DnsResourceNat::default(), Instant::now());
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), now));
        for port in 0..40 {
            assert_eq!(
                nat.on_packet(GATEWAY, RESOURCE, &domain(), now),
                Verdict::Hold { resend: false }
            );
            assert!(
                nat.hold(GATEWAY, RESOURCE, &domain(), packet(port))
                    .is_none()
            );
        }

        let flushed = nat.on_status(GATEWAY, RESOURCE, &domain(), NatStatus::Active);
        let expected = (8..40).map(packet).collect::<Vec<_>>();
        assert!(
            flushed
                .iter()
                .map(IpPacket::as_slice)
                .eq(expected.iter().map(IpPacket::as_slice))
        );
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), now),
            Verdict::Pass
        );
    }

    // tunnel 41
    #[test]
    fn tunnel_41_resends_on_traffic_after_two_seconds_but_not_before() {
        let (mut nat, now) = (DnsResourceNat::default(), Instant::now());
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), now));
        let early = now + RESEND_INTERVAL - Duration::from_millis(1);
        let late = now + RESEND_INTERVAL;

        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), early),
            Verdict::Hold { resend: false }
        );
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), late),
            Verdict::Hold { resend: true }
        );
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), late),
            Verdict::Hold { resend: false }
        );
    }

    // tunnel 42
    #[test]
    fn tunnel_42_query_while_confirmed_keeps_traffic_flowing() {
        let (mut nat, now) = (confirmed(), Instant::now());
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), now));
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), now),
            Verdict::PassForNow { resend: false }
        );
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), now + RESEND_INTERVAL),
            Verdict::PassForNow { resend: true }
        );
        assert!(
            nat.on_status(GATEWAY, RESOURCE, &domain(), NatStatus::Active)
                .is_empty()
        );
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), now),
            Verdict::Pass
        );
    }

    // tunnel 43
    #[test]
    fn tunnel_43_failed_domain_is_retried_only_by_its_own_query() {
        let (mut nat, now) = (DnsResourceNat::default(), Instant::now());
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), now));
        assert!(nat.hold(GATEWAY, RESOURCE, &domain(), packet(1)).is_none());
        assert!(
            nat.on_status(GATEWAY, RESOURCE, &domain(), NatStatus::Inactive)
                .is_empty()
        );

        let later = now + 10 * RESEND_INTERVAL;
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), later),
            Verdict::Pass
        );

        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), later));
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), later),
            Verdict::Hold { resend: false }
        );
    }

    // tunnel 44
    #[test]
    fn tunnel_44_resources_that_share_a_domain_are_set_up_separately() {
        let (mut nat, now) = (confirmed(), Instant::now());
        let other = ResourceId::from_u128(3);
        assert!(nat.refresh(GATEWAY, other, &domain(), now));
        assert_eq!(
            nat.on_packet(GATEWAY, other, &domain(), now),
            Verdict::Hold { resend: false }
        );
        assert_eq!(
            nat.on_packet(GATEWAY, RESOURCE, &domain(), now),
            Verdict::Pass
        );
    }

    #[test]
    fn query_does_not_clear_what_waits() {
        let (mut nat, now) = (DnsResourceNat::default(), Instant::now());
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), now));
        assert!(nat.hold(GATEWAY, RESOURCE, &domain(), packet(1)).is_none());
        assert!(!nat.refresh(GATEWAY, RESOURCE, &domain(), now));
        assert_eq!(
            nat.on_status(GATEWAY, RESOURCE, &domain(), NatStatus::Active)
                .len(),
            1
        );
    }

    #[test]
    fn removal_of_gateway_or_resource_forgets_the_state() {
        let now = Instant::now();
        let mut nat = confirmed();
        nat.remove_gateway(GATEWAY);
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), now));

        let mut nat = confirmed();
        nat.remove_resource(RESOURCE);
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), now));
    }

    #[test]
    fn unannounced_status_is_ignored() {
        let mut nat = DnsResourceNat::default();
        assert!(
            nat.on_status(GATEWAY, RESOURCE, &domain(), NatStatus::Inactive)
                .is_empty()
        );
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), Instant::now()));
    }

    fn confirmed() -> DnsResourceNat {
        let mut nat = DnsResourceNat::default();
        assert!(nat.refresh(GATEWAY, RESOURCE, &domain(), Instant::now()));
        assert!(
            nat.on_status(GATEWAY, RESOURCE, &domain(), NatStatus::Active)
                .is_empty()
        );

        nat
    }

    fn domain() -> DomainName {
        "wiki.corp.example".parse().expect("valid")
    }

    fn packet(port: u16) -> IpPacket {
        ip_packet::make::udp_packet(
            ([100, 64, 0, 1], port).into(),
            ([100, 96, 0, 1], 53).into(),
            &[],
        )
        .expect("valid")
    }
}
