//! Candidates of a connection: ours from relays and sockets, the peer's from signalling.

use std::time::Instant;

use is::{Candidate, CandidateKind};

use super::{Connection, Io};
use crate::Event;
use crate::Id;
use crate::ice::{MAX_OPTIMISTIC, optimistic, parse_remote};

impl<P, R> Connection<P, R>
where
    P: Id,
    R: Id,
{
    /// Gives the agent every address we know now, best first.
    pub(super) fn seed_candidates(&mut self, io: &mut Io<'_, P, R>) {
        for candidate in io.relays.candidates_for(self.relay) {
            self.add_local(candidate, io);
        }
    }

    /// A candidate of ours has become known.
    pub(crate) fn add_local_candidate(
        &mut self,
        candidate: &Candidate,
        now: Instant,
        io: &mut Io<'_, P, R>,
    ) {
        if self.add_local(candidate.clone(), io) {
            self.wake(now);
            self.settle(now, io);
        }
    }

    /// A relay candidate of ours is gone.
    pub(crate) fn remove_local_candidate(
        &mut self,
        candidate: &Candidate,
        now: Instant,
        io: &mut Io<'_, P, R>,
    ) {
        debug_assert_eq!(candidate.kind(), CandidateKind::Relayed);
        let Some(sdp) = self.agent.remove_local(candidate) else {
            return;
        };
        let peer = self.peer;
        io.events.push(Event::InvalidateIceCandidate { peer, sdp });
        self.wake(now);
        self.settle(now, io);
    }

    /// The peer has signalled a candidate.
    pub(crate) fn add_remote_candidate(&mut self, sdp: &str, now: Instant, io: &mut Io<'_, P, R>) {
        let Some(candidate) = parse_remote(sdp) else {
            tracing::debug!(peer = %self.peer, "Ignoring unusable candidate");
            return;
        };
        if !self.agent.add_remote(candidate.clone()) {
            return;
        }
        self.state.candidate_arrived();
        self.bind_channel(&candidate, now, io);
        self.add_optimistic();
        self.wake(now);
        self.settle(now, io);
    }

    /// The peer has withdrawn a candidate. That may have been the last pair, so the agent runs at once.
    pub(crate) fn remove_remote_candidate(
        &mut self,
        sdp: &str,
        now: Instant,
        io: &mut Io<'_, P, R>,
    ) {
        let Some(candidate) = parse_remote(sdp) else {
            tracing::debug!(peer = %self.peer, "Ignoring unusable candidate");
            return;
        };
        self.agent.remove_remote(&candidate);
        self.wake(now);
        self.settle(now, io);
    }

    /// Uses `relay` from now on, because the one before is gone. Direct paths are not disturbed.
    pub(crate) fn migrate(&mut self, relay: R, now: Instant, io: &mut Io<'_, P, R>) {
        tracing::info!(peer = %self.peer, from = %self.relay, to = %relay, "Changing relay");
        self.relay = relay;
        self.seed_candidates(io);
        let remotes: Vec<_> = self.agent.signalled_remotes().collect();
        for remote in &remotes {
            self.bind_channel(remote, now, io);
        }
        self.wake(now);
        self.settle(now, io);
    }

    fn add_local(&mut self, candidate: Candidate, io: &mut Io<'_, P, R>) -> bool {
        let Some(sdp) = self.agent.add_local(candidate) else {
            return false;
        };
        let peer = self.peer;
        io.events.push(Event::NewIceCandidate { peer, sdp });
        true
    }

    /// Lets the peer's address send to us through our relay. A host address behind a NAT never sends to a relay itself.
    fn bind_channel(&mut self, remote: &Candidate, now: Instant, io: &mut Io<'_, P, R>) {
        if remote.kind() != CandidateKind::Host {
            io.relays.bind_channel(self.relay, remote.addr(), now);
            io.relays.drain_transmits(io.transmits);
        }
    }

    fn add_optimistic(&mut self) {
        let remotes: Vec<_> = self.agent.signalled_remotes().collect();
        for guess in optimistic(&remotes) {
            if self.optimistic >= MAX_OPTIMISTIC {
                return;
            }
            if self.agent.add_remote(guess) {
                self.optimistic += 1;
            }
        }
    }
}
