//! The ICE agent of one connection: timings, roles, and the limits that the agent itself lacks.
//!
//! The agent (crate `is`) is driven until nothing is due, so that its deadline is always later than
//! the last instant it has seen. Everything that a remote party can make it remember is bounded
//! here: candidates, source addresses of checks, and reflexive addresses.

mod arrivals;
mod candidates;
mod rivals;
mod timing;

pub(crate) use candidates::{MAX_OPTIMISTIC, optimistic, parse_remote};
pub(crate) use rivals::Pair;
pub(crate) use timing::Timing;

use arrivals::Arrivals;
use rivals::Rivals;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_stun::{Class, Envelope, Integrity, Key};
use is::stun::{StunMessage, StunPacket};
use is::{
    Candidate, CandidateKind, IceAgent, IceAgentEvent, IceConnectionState, IceCreds, Protocol,
};

use crate::{IceCredentials, Role};

/// Most candidates of the peer that are in use at once.
///
/// An honest peer has up to two host, two reflexive and two relayed ones; several relays and
/// interfaces fit. The agent itself checks at most 100 pairs.
const MAX_REMOTE_CANDIDATES: usize = 32;

/// Most candidates accepted from the peer over the life of the connection.
///
/// The agent remembers withdrawn candidates for ever, so a peer could otherwise grow our memory by
/// adding and withdrawing. A change of relay costs two.
const MAX_REMOTE_CANDIDATES_EVER: usize = 1024;

/// Most distinct source addresses of checks, and most distinct mapped addresses in answers.
///
/// Each makes the agent remember a peer-reflexive candidate for ever.
const MAX_REFLEXIVE: usize = 256;

/// Most time steps of the agent at one instant: one per pair, with room for answers.
const MAX_STEPS: usize = 200;

/// Where the deadline goes should the agent not settle within [`MAX_STEPS`]; keeps the caller from spinning.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(10);

/// A STUN message that the agent wants to send.
#[derive(Debug)]
pub(crate) struct Check {
    /// Base of the local candidate: a socket address of ours, or our address on a relay.
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

/// A received STUN message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stun<'a> {
    pub(crate) envelope: Envelope<'a>,
    pub(crate) datagram: &'a [u8],
}

/// What the agent has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AgentEvent {
    /// Send on this pair from now on.
    Nominated {
        source: SocketAddr,
        destination: SocketAddr,
    },
    /// Some pair works or may still work.
    Viable,
    /// No pair is left that could work.
    Disconnected,
}

/// One ICE agent.
pub(crate) struct Agent {
    inner: IceAgent,
    role: Role,
    deadline: Option<Instant>,
    /// The pair nominated last: our end and the peer's.
    nominated: Option<Pair>,
    /// A pair to be reported as nominated: the peer has moved there, or confirms that it is where we both are.
    chosen: Option<Pair>,
    rivals: Rivals,
    arrivals: Arrivals,
    accepted_candidates: usize,
    check_sources: BTreeSet<SocketAddr>,
    mapped_addresses: BTreeSet<SocketAddr>,
    /// Signs checks that we receive and our answers.
    local_key: Key,
    /// Signs our checks and the answers that we receive.
    remote_key: Key,
}

impl Agent {
    /// An agent without candidates, in active timing. `entropy` makes the tie-breaker.
    pub(crate) fn new(
        role: Role,
        local: &IceCredentials,
        remote: &IceCredentials,
        entropy: u64,
    ) -> Self {
        let mut inner = IceAgent::new(creds(local));
        inner.set_remote_credentials(creds(remote));
        inner.set_controlling(role == Role::Client);
        inner.set_control_tie_breaker(tie_breaker(role, entropy));
        inner.set_timing_advance(Duration::ZERO);
        let mut agent = Self {
            inner,
            role,
            deadline: None,
            nominated: None,
            chosen: None,
            rivals: Rivals::default(),
            arrivals: Arrivals::default(),
            accepted_candidates: 0,
            check_sources: BTreeSet::new(),
            mapped_addresses: BTreeSet::new(),
            local_key: Key::from_bytes(local.password().as_bytes()),
            remote_key: Key::from_bytes(remote.password().as_bytes()),
        };
        agent.set_timing(Timing::connecting(role));
        agent
    }

    /// Switches between active and idle timing; takes effect at the next [`advance`](Self::advance).
    pub(crate) fn set_timing(&mut self, timing: Timing) {
        self.inner.set_initial_stun_rto(timing.initial_rto);
        self.inner.set_max_stun_rto(timing.max_rto);
        self.inner.set_max_stun_retransmits(timing.retransmits);
    }

    /// Whether the agent has a nominated pair that answers.
    pub(crate) fn is_connected(&self) -> bool {
        self.inner.state().is_connected()
    }

    /// Adds one of our candidates. Returns the form to signal, or `None` if it is nothing new.
    pub(crate) fn add_local(&mut self, candidate: Candidate) -> Option<String> {
        self.inner
            .add_local_candidate(candidate)
            .map(Candidate::to_sdp_string)
    }

    /// Withdraws one of our candidates. Returns the form in which it was signalled, or `None` if it was not in use.
    pub(crate) fn remove_local(&mut self, candidate: &Candidate) -> Option<String> {
        let signalled = self
            .inner
            .local_candidates()
            .find(|c| c.addr() == candidate.addr() && c.kind() == candidate.kind())?;
        self.inner.invalidate_candidate(&signalled);
        Some(signalled.to_sdp_string())
    }

    /// Every candidate of ours that is in use, in the form to signal.
    ///
    /// Peer-reflexive ones are the agent's own discovery and mean nothing to the peer.
    pub(crate) fn local_sdps(&self) -> Vec<String> {
        self.inner
            .local_candidates()
            .filter(|c| c.kind() != CandidateKind::PeerReflexive)
            .map(|c| c.to_sdp_string())
            .collect()
    }

    /// Adds a candidate of the peer. Returns whether it was taken.
    pub(crate) fn add_remote(&mut self, candidate: Candidate) -> bool {
        let foreign_ufrag = candidate.ufrag().is_some_and(|ufrag| {
            self.inner
                .remote_credentials()
                .is_some_and(|creds| creds.ufrag != ufrag)
        });
        if foreign_ufrag {
            tracing::debug!("Remote candidate belongs to another ICE session");
            return false;
        }
        self.forget_discovery_of_relay(&candidate);
        let known = self.known_remote(&candidate);
        let has_pair = |known| {
            let pair = self.inner.find_pair_for_equivalent_remote_candidate(known);
            pair.is_some()
        };
        if known.as_ref().is_some_and(has_pair) {
            return true;
        }
        let has_room = match &known {
            // All its pairs have failed: it gets new ones.
            Some(known) => self.has_memory_for_remote() && self.inner.invalidate_candidate(known),
            None => self.make_room_for_remote(),
        };
        if !has_room {
            tracing::debug!("Too many remote candidates");
            return false;
        }
        self.add_distinct(&candidate);
        true
    }

    /// Withdraws what checks have told about an address that the peer signals as one of its relay only now.
    ///
    /// A discovered candidate has the priority of its kind, above every mapped address (RFC 8445 section 5.1.2.1), and its
    /// pairs keep it when the signal comes: a connection would stay with the relay although a direct path answers.
    fn forget_discovery_of_relay(&mut self, signalled: &Candidate) {
        if signalled.kind() == CandidateKind::Relayed
            && let Some(discovered) = self.remote_at(signalled.addr(), CandidateKind::PeerReflexive)
        {
            self.inner.invalidate_candidate(&discovered);
        }
    }

    /// Hands a candidate of the peer to the agent as one that it has never had.
    ///
    /// The agent remembers candidates that are gone and looks candidates up by their values: it would find the gone one in
    /// place of an equal one in use, which could then never be withdrawn. The related address serves diagnosis only (RFC 8839
    /// section 5.1), so that is what makes them differ.
    fn add_distinct(&mut self, candidate: &Candidate) {
        self.accepted_candidates += 1;
        let unspecified: IpAddr = match candidate.addr() {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let sdp = candidate.to_sdp_string();
        let extensions = [" raddr ", " ufrag "].iter();
        let end = extensions.filter_map(|name| sdp.find(name)).min();
        let sdp = format!(
            "{} raddr {unspecified} rport {}",
            &sdp[..end.unwrap_or(sdp.len())],
            self.accepted_candidates,
        );
        match Candidate::from_sdp_string(&sdp) {
            Ok(candidate) => self.inner.add_remote_candidate(candidate),
            Err(error) => tracing::debug!(%error, sdp, "Remote candidate cannot be written"),
        }
    }

    /// Whether one more candidate of the peer fits; forgets its oldest server-reflexive one if need be.
    ///
    /// Those are never withdrawn, so a NAT that keeps changing its mapping makes ever more of them.
    fn make_room_for_remote(&mut self) -> bool {
        if !self.has_memory_for_remote() {
            return false;
        }
        if self.signalled_remotes().count() < MAX_REMOTE_CANDIDATES {
            return true;
        }
        let nominated = self.nominated.map(|(_, remote)| remote);
        let outdated = self
            .signalled_remotes()
            .find(|c| c.kind() == CandidateKind::ServerReflexive && Some(c.addr()) != nominated);
        outdated.is_some_and(|candidate| self.inner.invalidate_candidate(&candidate))
    }

    /// Withdraws a candidate of the peer. A candidate of our own is never touched.
    pub(crate) fn remove_remote(&mut self, candidate: &Candidate) {
        let ours = self
            .inner
            .local_candidates()
            .any(|local| local.addr() == candidate.addr());
        if ours {
            tracing::debug!("Peer tried to invalidate a candidate of ours");
            return;
        }
        if let Some(known) = self.known_remote(candidate) {
            self.inner.invalidate_candidate(&known);
        }
    }

    /// Candidates that the peer has signalled and not withdrawn.
    pub(crate) fn signalled_remotes(&self) -> impl Iterator<Item = Candidate> + '_ {
        self.inner
            .remote_candidates()
            .filter(|c| c.kind() != CandidateKind::PeerReflexive)
    }

    /// Kind of the peer's end at `addr`, as signalled by the peer.
    pub(crate) fn is_remote_relayed(&self, addr: SocketAddr) -> bool {
        self.remote_at(addr, CandidateKind::Relayed).is_some()
    }

    /// What the remote candidate with this address is; the relayed one, should there be several.
    pub(crate) fn remote_kind(&self, addr: SocketAddr) -> Option<CandidateKind> {
        if self.is_remote_relayed(addr) {
            return Some(CandidateKind::Relayed);
        }
        let candidates = self.inner.remote_candidates();
        let mut at_address = candidates.filter(|c| c.addr() == addr);
        at_address.next().map(|c| c.kind())
    }

    /// Takes a STUN message that arrived on `local` (a socket or our address on a relay).
    ///
    /// Returns whether the message was authentic and taken. The agent, which logs and remembers, sees authentic ones only.
    pub(crate) fn handle_stun(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        message: &Stun<'_>,
        now: Instant,
    ) -> bool {
        let key = match message.envelope.class() {
            Class::Request => &self.local_key,
            Class::Success | Class::Error | Class::Indication => &self.remote_key,
        };
        if message.envelope.verify_integrity(key) != Integrity::Valid {
            return false;
        }
        let Ok(message) = StunMessage::parse(message.datagram) else {
            return false;
        };
        if !self.inner.accepts_message(&message) || !self.is_affordable(from, &message) {
            return false;
        }
        let is_check = message.is_binding_request();
        let nominates = is_check && message.use_candidate();
        let packet = StunPacket {
            proto: Protocol::Udp,
            source: from,
            destination: local,
            message,
        };
        let taken = self.inner.handle_packet(now, packet);
        if self.inner.controlling() != (self.role == Role::Client) {
            tracing::warn!("ICE role was yielded although roles are fixed");
        }
        if is_check && self.role == Role::Gateway {
            self.arrivals.note_check((local, from), now);
            self.watch_nominated_pair((local, from), nominates);
            self.follow(now);
        }
        taken
    }

    /// The peer has started a handshake on `pair`, while `path` is ours. If it has left ours, the next event says so.
    pub(crate) fn note_handshake(&mut self, path: Pair, pair: Pair, now: Instant) {
        if self.role == Role::Gateway {
            self.arrivals.note_handshake(path, pair);
            self.follow(now);
        }
    }

    /// The peer has sent data on `pair`, while `path` is ours. If it has left ours, the next event says so.
    pub(crate) fn note_data(&mut self, path: Pair, pair: Pair, now: Instant) {
        if self.role == Role::Gateway && self.arrivals.has_moved(path, pair, now) {
            self.choose(pair);
        }
    }

    /// Nominates the pair on which the peer has started a handshake, if it has left our path for it.
    fn follow(&mut self, now: Instant) {
        if let Some(pair) = self.arrivals.take_moved(now) {
            self.choose(pair);
        }
    }

    /// Nominates a pair if our end of it still exists: an allocation may be gone since something came from there.
    fn choose(&mut self, pair: Pair) {
        if self.inner.local_candidates().any(|c| c.addr() == pair.0) {
            tracing::debug!(?pair, "Peer has left our path");
            self.chosen = Some(pair);
        }
    }

    /// Looks for another pair if the peer has left the nominated one.
    fn watch_nominated_pair(&mut self, pair: Pair, nominates: bool) {
        if self.nominated == Some(pair) {
            self.chosen = nominates.then_some(pair);
            self.rivals.confirm(pair);
        } else if nominates
            && let Some((_, nominated)) = self.nominated
            && let Some(left) = self.rivals.persists(pair)
        {
            tracing::debug!(?pair, "Peer has left the nominated pair");
            let mut remotes: BTreeSet<_> = left.into_iter().map(|(_, remote)| remote).collect();
            remotes.insert(nominated);
            for remote in remotes {
                self.forget_nomination(remote);
            }
        }
    }

    /// Takes the pairs with `remote` back to where they were before any check, so that another one can be nominated.
    ///
    /// The agent has no call for that; withdrawing the peer's candidate and adding it again has the effect.
    fn forget_nomination(&mut self, remote: SocketAddr) {
        let at_address = self.inner.remote_candidates();
        let at_address: Vec<_> = at_address.filter(|c| c.addr() == remote).collect();
        for candidate in &at_address {
            if self.has_memory_for_remote() && self.inner.invalidate_candidate(candidate) {
                self.add_distinct(candidate);
            }
        }
    }

    /// Runs the agent until nothing is due at `now` and appends what it wants to send to `checks`.
    pub(crate) fn advance(&mut self, now: Instant, checks: &mut Vec<Check>) {
        for _ in 0..MAX_STEPS {
            self.inner.handle_timeout(now);
            while let Some(transmit) = self.inner.poll_transmit() {
                checks.push(Check {
                    source: transmit.source,
                    destination: transmit.destination,
                    payload: transmit.contents.into(),
                });
            }
            self.deadline = self.inner.poll_timeout();
            if self.deadline.is_none_or(|deadline| deadline > now) {
                return;
            }
        }
        tracing::debug!("ICE agent does not settle");
        self.deadline = Some(now + UNSETTLED_PAUSE);
    }

    /// The next finding of the agent. A nomination comes again when the peer confirms it: we may have followed the peer to
    /// another pair meanwhile.
    pub(crate) fn poll_event(&mut self) -> Option<AgentEvent> {
        if let Some((source, destination)) = self.chosen.take() {
            return Some(AgentEvent::Nominated {
                source,
                destination,
            });
        }
        loop {
            match self.inner.poll_event()? {
                IceAgentEvent::NominatedSend {
                    source,
                    destination,
                    ..
                } => {
                    self.nominated = Some((source, destination));
                    self.rivals.clear();
                    return Some(AgentEvent::Nominated {
                        source,
                        destination,
                    });
                }
                IceAgentEvent::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                    return Some(AgentEvent::Disconnected);
                }
                IceAgentEvent::IceConnectionStateChange(
                    IceConnectionState::Checking
                    | IceConnectionState::Connected
                    | IceConnectionState::Completed,
                ) => return Some(AgentEvent::Viable),
                IceAgentEvent::IceConnectionStateChange(IceConnectionState::New)
                | IceAgentEvent::IceRestart(_)
                | IceAgentEvent::DiscoveredRecv { .. } => {}
            }
        }
    }

    /// When [`advance`](Self::advance) has something to do, as of its last call.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The agent's copy of a candidate of the peer that is in use.
    fn known_remote(&self, candidate: &Candidate) -> Option<Candidate> {
        self.remote_at(candidate.addr(), candidate.kind())
    }

    /// The candidate of the peer that is in use with this address and kind.
    fn remote_at(&self, addr: SocketAddr, kind: CandidateKind) -> Option<Candidate> {
        self.inner
            .remote_candidates()
            .find(|c| c.addr() == addr && c.kind() == kind)
    }

    fn has_memory_for_remote(&self) -> bool {
        self.accepted_candidates < MAX_REMOTE_CANDIDATES_EVER
    }

    /// Whether remembering what `message` would make the agent remember stays within bounds.
    fn is_affordable(&mut self, from: SocketAddr, message: &StunMessage<'_>) -> bool {
        let (addresses, addr) = if message.is_binding_request() {
            (&mut self.check_sources, Some(from))
        } else {
            (&mut self.mapped_addresses, message.mapped_address())
        };
        let Some(addr) = addr else { return true };
        if addresses.contains(&addr) {
            return true;
        }
        addresses.len() < MAX_REFLEXIVE && addresses.insert(addr)
    }
}

fn creds(credentials: &IceCredentials) -> IceCreds {
    IceCreds {
        ufrag: credentials.ufrag().to_owned(),
        pass: credentials.password().to_owned(),
    }
}

/// The client's tie-breaker is always the larger one, so that a role conflict cannot make it yield.
fn tie_breaker(role: Role, entropy: u64) -> u64 {
    const CLIENT_WINS: u64 = 1 << 63;
    match role {
        Role::Client => entropy | CLIENT_WINS,
        Role::Gateway => entropy & !CLIENT_WINS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Agent {
        let credentials = IceCredentials::new("abcd", "password").expect("valid");
        Agent::new(Role::Gateway, &credentials, &credentials, 0)
    }

    fn remote(kind: &str, i: usize) -> Candidate {
        let sdp = format!(
            "candidate:1 1 udp 1 203.0.{}.{} 9 typ {kind}",
            i / 256,
            i % 256
        );
        parse_remote(&sdp).expect("valid")
    }

    #[test]
    fn reflexive_candidates_of_the_peer_make_room_for_newer_ones() {
        let mut agent = agent();
        for i in 0..100 {
            assert!(agent.add_remote(remote("srflx", i)));
        }
        let remotes: Vec<_> = agent.signalled_remotes().collect();
        assert_eq!(remotes.len(), MAX_REMOTE_CANDIDATES);
        assert!(
            remotes
                .iter()
                .any(|c| c.addr() == remote("srflx", 99).addr())
        );
        assert!(agent.add_remote(remote("host", 200)));
    }

    #[test]
    fn the_nominated_candidate_of_the_peer_stays() {
        let mut agent = agent();
        let nominated = remote("srflx", 0).addr();
        agent.nominated = Some(("192.0.2.1:1".parse().expect("address"), nominated));
        for i in 0..100 {
            agent.add_remote(remote("srflx", i));
        }
        assert!(agent.signalled_remotes().any(|c| c.addr() == nominated));
    }

    #[test]
    fn other_candidates_of_the_peer_are_limited() {
        let mut agent = agent();
        let taken = (0..100)
            .filter(|i| agent.add_remote(remote("host", *i)))
            .count();
        assert_eq!(taken, MAX_REMOTE_CANDIDATES);
        // Known ones are no news, hence no problem.
        assert!(agent.add_remote(remote("host", 0)));
    }

    #[test]
    fn candidates_over_the_life_of_a_connection_are_limited() {
        let mut agent = agent();
        let mut taken = 0;
        for i in 0..2 * MAX_REMOTE_CANDIDATES_EVER {
            taken += usize::from(agent.add_remote(remote("host", i)));
            agent.remove_remote(&remote("host", i));
        }
        assert_eq!(taken, MAX_REMOTE_CANDIDATES_EVER);
    }

    /// The agent used to find the one that was gone in place of the one in use.
    #[test]
    fn a_candidate_is_withdrawn_and_given_again_any_number_of_times() {
        for kind in ["host", "srflx", "relay"] {
            let mut agent = agent();
            for _ in 0..3 {
                assert!(agent.add_remote(remote(kind, 0)));
                assert!(agent.add_remote(remote(kind, 0)), "known");
                assert_eq!(agent.signalled_remotes().count(), 1);
                agent.remove_remote(&remote(kind, 0));
                assert_eq!(agent.signalled_remotes().count(), 0);
            }
        }
    }

    #[test]
    fn a_nomination_is_forgotten_any_number_of_times() {
        let mut agent = agent();
        agent.add_remote(remote("srflx", 0));
        for _ in 0..3 {
            agent.forget_nomination(remote("srflx", 0).addr());
            assert_eq!(agent.signalled_remotes().count(), 1);
        }
        agent.remove_remote(&remote("srflx", 0));
        assert_eq!(agent.signalled_remotes().count(), 0);
    }

    #[test]
    fn candidates_of_another_session_are_refused() {
        let mut agent = agent();
        let foreign = parse_remote("candidate:1 1 udp 1 203.0.113.1 9 typ host ufrag wxyz");
        assert!(!agent.add_remote(foreign.expect("valid")));
    }

    fn check() -> Vec<u8> {
        let provider = is::DefaultSha1HmacProvider;
        let hmac =
            |key: &[u8], parts: &[&[u8]]| is::Sha1HmacProvider::sha1_hmac(&provider, key, parts);
        let id = is::stun::TransId::new();
        let request = StunMessage::binding_request("abcd:abcd", id, true, 1, 1, false);
        let mut bytes = vec![0; 200];
        let len = request
            .to_bytes(Some(b"password"), &mut bytes, hmac)
            .expect("fits");
        bytes.truncate(len);
        bytes
    }

    fn feed(agent: &mut Agent, from: SocketAddr, datagram: &[u8]) -> bool {
        let envelope = Envelope::parse(datagram).expect("STUN");
        let local = "192.0.2.1:1".parse().expect("address");
        let message = Stun { envelope, datagram };
        agent.handle_stun(local, from, &message, Instant::now())
    }

    #[test]
    fn snownet_05_sources_of_checks_are_limited() {
        let mut agent = agent();
        let local = "192.0.2.1:1".parse().expect("address");
        agent.add_local(Candidate::host(local, "udp").expect("valid"));
        let datagram = check();
        let from = |port: u16| SocketAddr::from(([198, 51, 100, 1], port));
        let taken = (1..1000)
            .filter(|port| feed(&mut agent, from(*port), &datagram))
            .count();
        assert_eq!(taken, MAX_REFLEXIVE);
        assert!(feed(&mut agent, from(1), &datagram), "known sources go on");
    }

    #[test]
    fn snownet_05_unauthentic_checks_are_refused() {
        let mut agent = agent();
        let from = "198.51.100.1:1".parse().expect("address");
        let genuine = check();
        assert!(feed(&mut agent, from, &genuine));
        // Any byte but those of the FINGERPRINT, which nothing depends on.
        for i in (0..genuine.len() - 8).filter(|i| ![2, 3, 4, 5, 6, 7].contains(i)) {
            let mut damaged = genuine.clone();
            damaged[i] ^= 1;
            let Ok(envelope) = Envelope::parse(&damaged) else {
                continue;
            };
            let message = Stun {
                envelope,
                datagram: &damaged,
            };
            let taken = agent.handle_stun(from, from, &message, Instant::now());
            assert!(!taken, "byte {i}");
        }
    }

    #[test]
    fn snownet_31_peer_is_not_followed_to_an_address_that_is_gone() {
        let address = |last, port| SocketAddr::from(([192, 0, 2, last], port));
        let path = (address(1, 1), address(9, 9));
        let pair = (address(2, 2), address(9, 9));
        let followed = |has_address: bool| {
            let (mut agent, now) = (agent(), Instant::now());
            if has_address {
                agent.add_local(Candidate::host(pair.0, "udp").expect("valid"));
            }
            agent.arrivals.note_check(pair, now);
            agent.note_handshake(path, pair, now);
            let by_handshake = agent.chosen.take();
            agent.note_data(path, pair, now);
            assert_eq!(agent.chosen, by_handshake);
            by_handshake
        };
        assert_eq!(followed(true), Some(pair));
        assert_eq!(followed(false), None);
    }

    #[test]
    fn snownet_31_controlling_side_follows_nobody() {
        let credentials = IceCredentials::new("abcd", "password").expect("valid");
        let mut agent = Agent::new(Role::Client, &credentials, &credentials, 0);
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let (path, pair) = ((address(1), address(9)), (address(1), address(8)));
        agent.add_local(Candidate::host(pair.0, "udp").expect("valid"));
        let now = Instant::now();
        agent.arrivals.note_check(pair, now);
        agent.note_data(path, pair, now);
        assert_eq!(agent.chosen, None);
    }

    #[test]
    fn snownet_26_client_always_wins_a_role_conflict() {
        for entropy in [0, u64::MAX] {
            let client = tie_breaker(Role::Client, entropy);
            assert!(client > tie_breaker(Role::Gateway, u64::MAX));
            assert!(client > tie_breaker(Role::Gateway, 0));
        }
    }
}
