//! Pending access requests ("intents") and what waits for their answer (tunnel spec 3.10; design row 26).
//!
//! One entry per *resource*. The first packet creates the entry and asks the portal at once; further packets wait in a
//! ring and ask again only when the last request is at least [`RESEND_INTERVAL`] old. There is deliberately no timer:
//! without traffic nobody is waiting for an answer. A request that the portal's lost connection took along is made again
//! on the next one, or its packets would be lost.
//!
//! A request can also be caused without a packet to keep: by a DNS query that has to be answered in the resource's site
//! ([`Intents::hold_query`]) or by a gateway that refuses traffic ([`Intents::touch`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use connlib_cover::cover;
use connlib_model::ResourceId;
use ip_packet::IpPacket;

/// Shortest time between two intents for one resource.
const RESEND_INTERVAL: Duration = Duration::from_secs(2);

/// Packets kept per intent; a TCP initial window of a few connections fits, a flood does not pile up.
const MAX_PACKETS: usize = 128;

/// DNS queries kept per intent; the same bound as for packets.
const MAX_QUERIES: usize = 128;

/// Requests that the portal has not answered yet. `Q` is a DNS query that waits for the same access.
#[derive(Debug)]
pub(crate) struct Intents<Q> {
    pending: BTreeMap<ResourceId, Pending<Q>>,
    /// When access was asked for last that has been answered since; what is older than [`RESEND_INTERVAL`] does not
    /// matter and goes with the next request.
    answered: BTreeMap<ResourceId, Instant>,
}

#[derive(Debug)]
struct Pending<Q> {
    last_sent: Instant,
    /// The portal has refused; a further packet may ask once more.
    is_denied: bool,
    held: Held<Q>,
}

/// What waited for an answer, oldest first.
#[derive(Debug)]
pub(crate) struct Held<Q> {
    pub(crate) packets: VecDeque<IpPacket>,
    pub(crate) queries: VecDeque<Q>,
}

/// Whether the portal has to be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Ask {
    Now,
    AlreadyAsked,
}

impl<Q> Intents<Q> {
    pub(crate) fn new() -> Self {
        Self {
            pending: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// Keeps `packet` until access to `resource` is granted; the oldest packet gives way when the ring is full.
    pub(crate) fn hold_packet(
        &mut self,
        resource: ResourceId,
        packet: IpPacket,
        now: Instant,
    ) -> Ask {
        let ask = self.touch(resource, now);
        if let Some(pending) = self.pending.get_mut(&resource) {
            pending.held.push_packet(packet);
        }

        ask
    }

    /// Keeps `query` until access to `resource` is granted. Returns the oldest query when the ring is full.
    pub(crate) fn hold_query(
        &mut self,
        resource: ResourceId,
        query: Q,
        now: Instant,
    ) -> (Ask, Option<Q>) {
        let ask = self.touch(resource, now);
        let evicted = self
            .pending
            .get_mut(&resource)
            .and_then(|pending| pending.held.push_query(query));

        (ask, evicted)
    }

    /// Requests access to `resource` without keeping anything.
    pub(crate) fn touch(&mut self, resource: ResourceId, now: Instant) -> Ask {
        let Some(pending) = self.pending.get_mut(&resource) else {
            self.answered.retain(|_, sent| is_recent(*sent, now));
            self.pending.insert(
                resource,
                Pending {
                    last_sent: now,
                    is_denied: false,
                    held: Held::new(),
                },
            );

            return Ask::Now;
        };

        if is_recent(pending.last_sent, now) {
            return Ask::AlreadyAsked;
        }
        pending.last_sent = now;
        pending.is_denied = false;

        Ask::Now
    }

    /// Requests access to `resource` once more because its gateway refuses a packet. The refusal need not be about
    /// authorization: a firewall behind the gateway says the same, and would be answered by a request per packet.
    pub(crate) fn renew(&mut self, resource: ResourceId, now: Instant) -> Ask {
        let answered = self.answered.get(&resource);
        match answered.is_some_and(|sent| is_recent(*sent, now)) {
            true => Ask::AlreadyAsked,
            false => self.touch(resource, now),
        }
    }

    /// Whether an answer for `resource` is awaited.
    pub(crate) fn contains(&self, resource: ResourceId) -> bool {
        self.pending.contains_key(&resource)
    }

    /// Ends the wait for `resource`: granted, denied for good, or the resource is gone.
    pub(crate) fn take(&mut self, resource: ResourceId) -> Option<Held<Q>> {
        let pending = self.pending.remove(&resource)?;
        self.answered.insert(resource, pending.last_sent);
        Some(pending.held)
    }

    /// Ends the wait of the queries for `resource`, but not of its packets.
    pub(crate) fn take_queries(&mut self, resource: ResourceId) -> VecDeque<Q> {
        let pending = self.pending.get_mut(&resource);
        pending.map_or_else(VecDeque::new, |pending| {
            std::mem::take(&mut pending.held.queries)
        })
    }

    /// The portal refuses access to `resource` for now. What waits goes on waiting for somebody to ask again.
    pub(crate) fn deny(&mut self, resource: ResourceId) {
        if let Some(pending) = self.pending.get_mut(&resource) {
            pending.is_denied = true;
        }
    }

    /// The requests that are on their way will not be answered (the portal connection starts over). Returns what has to
    /// be asked for again.
    #[must_use]
    pub(crate) fn ask_again(&mut self, now: Instant) -> Vec<ResourceId> {
        self.answered.clear();
        let unanswered = self.pending.iter_mut().filter(|(_, it)| !it.is_denied);
        unanswered
            .map(|(resource, pending)| {
                pending.last_sent = now;
                *resource
            })
            .collect()
    }
}

fn is_recent(sent: Instant, now: Instant) -> bool {
    now.saturating_duration_since(sent) < RESEND_INTERVAL
}

impl<Q> Held<Q> {
    fn new() -> Self {
        Self {
            packets: VecDeque::new(),
            queries: VecDeque::new(),
        }
    }

    fn push_packet(&mut self, packet: IpPacket) {
        if self
            .packets
            .iter()
            .any(|held| held.as_slice() == packet.as_slice())
        {
            return;
        }

        if let Some(held) = self
            .packets
            .iter_mut()
            .find(|held| is_same_syn(held, &packet))
        {
            *held = packet;
            return;
        }

        if self.packets.len() == MAX_PACKETS {
            cover!("connection/setup-buffer-overflow");
            self.packets.pop_front();
        }
        self.packets.push_back(packet);
    }

    fn push_query(&mut self, query: Q) -> Option<Q> {
        let evicted = if self.queries.len() == MAX_QUERIES {
            self.queries.pop_front()
        } else {
            None
        };
        self.queries.push_back(query);

        evicted
    }
}

/// Whether both packets are the opening SYN of one connection, sent twice.
fn is_same_syn(a: &IpPacket, b: &IpPacket) -> bool {
    let (Some(tcp_a), Some(tcp_b)) = (a.as_tcp(), b.as_tcp()) else {
        return false;
    };

    tcp_a.is_initial_syn()
        && tcp_b.is_initial_syn()
        && tcp_a.sequence() == tcp_b.sequence()
        && tcp_a.source_port() == tcp_b.source_port()
        && tcp_a.destination_port() == tcp_b.destination_port()
        && a.source() == b.source()
        && a.destination() == b.destination()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ip_packet::{TcpFlags, make};

    const RESOURCE: ResourceId = ResourceId::from_u128(1);

    // tunnel 32
    #[test]
    fn tunnel_32_keeps_the_last_128_packets_and_asks_once() {
        let (mut intents, now) = (Intents::<()>::new(), Instant::now());
        assert_eq!(intents.hold_packet(RESOURCE, udp(0), now), Ask::Now);
        for port in 1..200 {
            assert_eq!(
                intents.hold_packet(RESOURCE, udp(port), now),
                Ask::AlreadyAsked
            );
        }

        let held = intents.take(RESOURCE).expect("pending");
        assert!(
            held.packets
                .iter()
                .eq((72..200).map(udp).collect::<Vec<_>>().iter())
        );
        assert!(intents.take(RESOURCE).is_none());
    }

    /// A firewall behind the gateway refuses each packet of a flow that has access: no request per refusal.
    #[test]
    fn refusals_renew_access_at_most_once_per_interval() {
        let (mut intents, now) = (Intents::<()>::new(), Instant::now());
        let _ = intents.hold_packet(RESOURCE, udp(0), now);
        let _ = intents.take(RESOURCE);
        let early = now + RESEND_INTERVAL - Duration::from_nanos(1);
        assert_eq!(intents.renew(RESOURCE, early), Ask::AlreadyAsked);
        let late = now + RESEND_INTERVAL;
        assert_eq!(intents.renew(RESOURCE, late), Ask::Now);
        let _ = intents.take(RESOURCE);
        assert_eq!(intents.renew(RESOURCE, late), Ask::AlreadyAsked);
        // A packet that finds no connection asks whenever it needs one.
        assert_eq!(intents.hold_packet(RESOURCE, udp(1), late), Ask::Now);
    }

    // tunnel 32
    #[test]
    fn tunnel_32_asks_again_only_with_a_packet_after_two_seconds() {
        let (mut intents, now) = (Intents::<()>::new(), Instant::now());
        let _ = intents.hold_packet(RESOURCE, udp(0), now);
        let early = now + RESEND_INTERVAL - Duration::from_nanos(1);
        assert_eq!(
            intents.hold_packet(RESOURCE, udp(1), early),
            Ask::AlreadyAsked
        );
        assert_eq!(
            intents.hold_packet(RESOURCE, udp(2), now + RESEND_INTERVAL),
            Ask::Now
        );
        assert_eq!(
            intents.touch(RESOURCE, now + RESEND_INTERVAL),
            Ask::AlreadyAsked
        );
    }

    // tunnel 33
    #[test]
    fn tunnel_33_identical_packets_are_stored_once() {
        let (mut intents, now) = (Intents::<()>::new(), Instant::now());
        for _ in 0..3 {
            let _ = intents.hold_packet(RESOURCE, udp(1), now);
        }
        assert_eq!(intents.take(RESOURCE).expect("pending").packets, [udp(1)]);
    }

    // tunnel 33
    #[test]
    fn tunnel_33_newest_syn_replaces_its_predecessor() {
        let (mut intents, now) = (Intents::<()>::new(), Instant::now());
        let old = tcp(TcpFlags::SYN, 7, 1);
        let new = tcp(TcpFlags::SYN, 7, 2);
        let _ = intents.hold_packet(RESOURCE, old, now);
        let _ = intents.hold_packet(RESOURCE, udp(1), now);
        let _ = intents.hold_packet(RESOURCE, new.clone(), now);
        assert_eq!(
            intents.take(RESOURCE).expect("pending").packets,
            [new, udp(1)]
        );
    }

    // tunnel 33
    #[test]
    fn tunnel_33_syn_ack_and_other_sequence_numbers_are_not_retransmissions() {
        let (mut intents, now) = (Intents::<()>::new(), Instant::now());
        let packets = [
            tcp(TcpFlags::SYN | TcpFlags::ACK, 7, 1),
            tcp(TcpFlags::SYN | TcpFlags::ACK, 7, 2),
            tcp(TcpFlags::SYN, 7, 1),
            tcp(TcpFlags::SYN, 8, 1),
        ];
        for packet in &packets {
            let _ = intents.hold_packet(RESOURCE, packet.clone(), now);
        }
        assert_eq!(intents.take(RESOURCE).expect("pending").packets, packets);
    }

    #[test]
    fn oldest_query_gives_way() {
        let (mut intents, now) = (Intents::new(), Instant::now());
        for id in 0..MAX_QUERIES {
            assert!(intents.hold_query(RESOURCE, id, now).1.is_none());
        }
        assert_eq!(
            intents.hold_query(RESOURCE, 1000, now),
            (Ask::AlreadyAsked, Some(0))
        );
    }

    #[test]
    fn what_a_lost_connection_was_asked_is_asked_again_unless_it_was_denied() {
        let (mut intents, now) = (Intents::<()>::new(), Instant::now());
        let denied = ResourceId::from_u128(2);
        let _ = intents.hold_packet(RESOURCE, udp(0), now);
        let _ = intents.hold_packet(denied, udp(0), now);
        intents.deny(denied);
        assert_eq!(intents.ask_again(now), [RESOURCE]);
        assert_eq!(
            intents.hold_packet(RESOURCE, udp(1), now),
            Ask::AlreadyAsked
        );
        assert_eq!(intents.take(RESOURCE).expect("pending").packets.len(), 2);
        // A denied one that was asked for since awaits an answer like any other.
        let later = now + RESEND_INTERVAL;
        assert_eq!(intents.hold_packet(denied, udp(1), later), Ask::Now);
        assert_eq!(intents.ask_again(later), [denied]);
    }

    fn udp(port: u16) -> IpPacket {
        make::udp_packet(
            ([10, 0, 0, 1], port).into(),
            ([10, 0, 0, 2], 53).into(),
            &[],
        )
        .expect("valid")
    }

    fn tcp(flags: TcpFlags, sequence: u32, timestamp: u8) -> IpPacket {
        let header = make::TcpHeader {
            flags,
            sequence,
            options: &[8, 10, 0, 0, 0, timestamp, 0, 0, 0, 0, 1, 1],
            ..make::TcpHeader::default()
        };

        make::tcp_packet(
            ([10, 0, 0, 1], 40_000).into(),
            ([10, 0, 0, 2], 80).into(),
            header,
            &[],
        )
        .expect("valid")
    }
}
