//! Look-ups over UDP through the tunnel.
//!
//! Each look-up has a random port of its own. A packet is an answer only if port, server and message id all match.
//! Finished look-ups stay in the table until their place is needed, so that late and repeated answers are recognised
//! and do not reach the TUN device, where nobody expects them.

use crate::ports::free_port;
use crate::{QueryId, RecursiveError, RecursiveQuery, RecursiveResponse, SourceAddresses};
use ip_packet::{IpPacket, PacketRef, Protocol, make};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time from asking to giving up.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Look-ups remembered at a time, finished ones included: far more than a host asks within the time-out.
const MAX_QUERIES: usize = 1024;
/// Bytes of a DNS header: no message is shorter.
const MIN_MESSAGE: usize = 12;

/// DNS over UDP towards upstream servers, from the TUN address.
///
/// Driven like this, whenever there is a look-up, a packet came from the tunnel, or the time has come:
/// ```text
/// client.send_query(query, now)
/// if client.handle_packet(packet, now) { /* consumed */ }
/// client.handle_timeout(now)
/// while let Some(packet) = client.poll_packet() { … }
/// while let Some(response) = client.poll_response() { … }
/// sleep until client.poll_timeout()
/// ```
pub struct Client {
    rng: ChaCha20Rng,
    sources: SourceAddresses,
    /// By local port.
    lookups: BTreeMap<u16, Lookup>,
    /// Ports in the order of asking.
    order: VecDeque<u16>,
    deadlines: BTreeSet<(Instant, u16)>,
    /// At most one per look-up.
    packets: VecDeque<IpPacket>,
    /// At most one per look-up and those refused since the last poll.
    responses: VecDeque<RecursiveResponse>,
}

struct Lookup {
    local: SocketAddr,
    upstream: SocketAddr,
    message_id: u16,
    state: LookupState,
}

#[derive(Clone, Copy)]
enum LookupState {
    Waiting { id: QueryId, deadline: Instant },
    Finished,
}

impl Client {
    /// A client without addresses.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha20Rng::from_seed(seed),
            sources: SourceAddresses::default(),
            lookups: BTreeMap::new(),
            order: VecDeque::new(),
            deadlines: BTreeSet::new(),
            packets: VecDeque::new(),
            responses: VecDeque::new(),
        }
    }

    /// Sets the TUN addresses; a change fails all look-ups as [`reset`](Self::reset) does.
    pub fn set_sources(&mut self, sources: SourceAddresses) {
        if self.sources != sources {
            self.reset();
            self.sources = sources;
        }
    }

    /// Starts a look-up. Its result, also an immediate failure, comes from [`poll_response`](Self::poll_response).
    pub fn send_query(&mut self, query: RecursiveQuery, now: Instant) {
        let id = query.id;
        if let Err(error) = self.start(&query, now) {
            self.responses.push_back(RecursiveResponse {
                id,
                result: Err(error),
            });
        }
    }

    /// Offers a packet from the tunnel. Returns whether it was the answer to a look-up, or an ICMP error about one, also
    /// a late one: such a packet must not reach the TUN device.
    pub fn handle_packet(&mut self, packet: PacketRef<'_>) -> bool {
        let Some((port, result)) = self
            .match_answer(packet)
            .or_else(|| self.match_error(packet))
        else {
            return false;
        };
        self.finish(port, result);
        true
    }

    /// The next packet for the tunnel, to be routed like any other.
    pub fn poll_packet(&mut self) -> Option<IpPacket> {
        self.packets.pop_front()
    }

    /// The next result.
    pub fn poll_response(&mut self) -> Option<RecursiveResponse> {
        self.responses.pop_front()
    }

    /// Fails all look-ups with [`RecursiveError::Reset`]; their answers are still recognised.
    pub fn reset(&mut self) {
        self.packets.clear();
        for (_, port) in std::mem::take(&mut self.deadlines) {
            self.finish(port, Err(RecursiveError::Reset));
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, port)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            self.finish(port, Err(RecursiveError::TimedOut));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn start(&mut self, query: &RecursiveQuery, now: Instant) -> Result<(), RecursiveError> {
        let source = self
            .sources
            .towards(query.upstream)
            .ok_or(RecursiveError::NoSource)?;
        let Some(message_id) = message_id(&query.message) else {
            return Err(RecursiveError::MalformedQuery);
        };
        self.make_room()?;
        let port = free_port(&mut self.rng, |port| self.lookups.contains_key(&port));
        let local = SocketAddr::new(source, port);
        let packet = make::udp_packet(local, query.upstream, &query.message)
            .map_err(|_| RecursiveError::MalformedQuery)?;
        self.packets.push_back(packet);
        let deadline = now + QUERY_TIMEOUT;
        self.deadlines.insert((deadline, port));
        self.order.push_back(port);
        // Flow label and scope of an IPv6 address are no part of the comparison with a packet's source.
        let upstream = SocketAddr::new(query.upstream.ip(), query.upstream.port());
        let state = LookupState::Waiting {
            id: query.id,
            deadline,
        };
        self.lookups.insert(
            port,
            Lookup {
                local,
                upstream,
                message_id,
                state,
            },
        );
        Ok(())
    }

    /// Forgets the oldest finished look-up when the table is full.
    fn make_room(&mut self) -> Result<(), RecursiveError> {
        if self.lookups.len() < MAX_QUERIES {
            return Ok(());
        }
        // Nothing is finished: refusing must cost less than serving.
        if self.deadlines.len() >= MAX_QUERIES {
            return Err(RecursiveError::Overloaded);
        }
        let is_finished = |port: &u16| {
            matches!(
                self.lookups.get(port),
                Some(Lookup {
                    state: LookupState::Finished,
                    ..
                })
            )
        };
        let oldest = self
            .order
            .iter()
            .position(is_finished)
            .ok_or(RecursiveError::Overloaded)?;
        if let Some(port) = self.order.remove(oldest) {
            self.lookups.remove(&port);
        }
        Ok(())
    }

    /// The look-up that a UDP packet answers.
    fn match_answer(
        &self,
        packet: PacketRef<'_>,
    ) -> Option<(u16, Result<Vec<u8>, RecursiveError>)> {
        let udp = packet.as_udp()?;
        let lookup = self.lookups.get(&udp.destination_port())?;
        let is_answer = lookup.local.ip() == packet.destination()
            && lookup.upstream == SocketAddr::new(packet.source(), udp.source_port())
            && message_id(udp.payload()) == Some(lookup.message_id);
        is_answer.then(|| (lookup.local.port(), Ok(udp.payload().to_vec())))
    }

    /// The look-up that an ICMP error is about.
    fn match_error(&self, packet: PacketRef<'_>) -> Option<(u16, Result<Vec<u8>, RecursiveError>)> {
        let failed = packet.icmp_error()?.failed_packet().ok()?;
        let (Protocol::Udp(local), Protocol::Udp(remote)) =
            (failed.source_protocol(), failed.destination_protocol())
        else {
            return None;
        };
        let lookup = self.lookups.get(&local)?;
        let is_ours = lookup.local.ip() == failed.source()
            && lookup.upstream == SocketAddr::new(failed.destination(), remote);
        is_ours.then_some((local, Err(RecursiveError::Unreachable)))
    }

    fn finish(&mut self, port: u16, result: Result<Vec<u8>, RecursiveError>) {
        let Some(lookup) = self.lookups.get_mut(&port) else {
            return;
        };
        if let LookupState::Waiting { id, deadline } = lookup.state {
            lookup.state = LookupState::Finished;
            self.deadlines.remove(&(deadline, port));
            self.responses.push_back(RecursiveResponse { id, result });
        }
    }
}

/// The id of what is long enough to be a DNS message.
fn message_id(message: &[u8]) -> Option<u16> {
    (message.len() >= MIN_MESSAGE).then(|| u16::from_be_bytes([message[0], message[1]]))
}

#[cfg(test)]
mod tests;
