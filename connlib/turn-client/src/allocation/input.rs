//! Responses of the relay, in the order of snownet spec §2.5.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_cover::cover;
use connlib_stun::{
    Class, Envelope, ErrorCode, ErrorResponse, Integrity, Outcome, Response, Success,
};
use tracing::{debug, info, warn};

use super::{Allocation, Input, KEEP_ALIVE, Lease, State};
use crate::{
    Event, FreeReason,
    backoff::{Backoff, SuspensionBackoff},
    requests::{Answered, Kind},
    silence::Silence,
};

/// How often a relay may ask for another nonce before one request is taken for unanswered.
const MAX_CHALLENGES: u8 = 5;
/// 437s in a row after which we stop deleting and allocating for a while.
const MAX_MISMATCHES: u8 = 3;
/// Longest lifetime believed; relays grant an hour at most.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Time left below which a refused renewal is not tried again.
const MIN_RENEWAL_MARGIN: Duration = Duration::from_secs(20);

impl Allocation {
    /// Handles a datagram that [`connlib_stun::classify`] names STUN. `local` is the address it arrived on.
    pub fn handle_input(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Input {
        if !self.server.contains(from) {
            return Input::OtherSender;
        }
        let Ok(envelope) = Envelope::parse(datagram) else {
            return Input::NotStun;
        };
        let now = self.advance(now);
        let Some(answered) = self.find_answered(&envelope, from, now) else {
            debug!(%from, id = ?envelope.transaction_id(), "STUN that answers nothing of ours");
            return Input::Unknown;
        };
        if answered.kind.is_authenticated()
            && envelope.verify_integrity(self.auth.key()) != Integrity::Valid
        {
            debug!(%from, kind = ?answered.kind, "Ignoring a response that is not the relay's");
            return Input::Consumed;
        }
        match Response::decode(&envelope) {
            Ok(response) => self.handle_response(local, answered, response, now),
            Err(error) => {
                debug!(%from, kind = ?answered.kind, %error, "Ignoring a broken response")
            }
        }
        Input::Consumed
    }

    /// The request that this response answers; cheap, before any HMAC.
    fn find_answered(
        &self,
        envelope: &Envelope<'_>,
        from: SocketAddr,
        now: Instant,
    ) -> Option<Answered> {
        if !matches!(envelope.class(), Class::Success | Class::Error) {
            return None;
        }
        let answered = self.requests.find(envelope.transaction_id(), now)?;
        let fits = answered.dst == from && answered.kind.method() == envelope.method();
        fits.then_some(answered)
    }

    fn handle_response(
        &mut self,
        local: SocketAddr,
        answered: Answered,
        response: Response,
        now: Instant,
    ) {
        self.has_answered = true;
        self.rtt = Some(match self.rtt {
            Some(old) => (old * 7 + answered.rtt) / 8,
            None => answered.rtt,
        });
        match response.outcome {
            Outcome::Error(error) if is_challenge(&error) && answered.kind.is_authenticated() => {
                self.requests.forget_attempt(response.transaction_id);
                self.handle_challenge(answered, error, now);
            }
            Outcome::Error(error) => {
                self.requests.settle(answered.request);
                self.handle_error(answered, &error, now);
            }
            Outcome::Success(success) => {
                self.requests.settle(answered.request);
                self.handle_success(local, answered, success, now);
            }
        }
    }

    /// 401 and 438: the relay wants a (newer) nonce, or does not know us.
    fn handle_challenge(&mut self, answered: Answered, error: ErrorResponse, now: Instant) {
        if error.code == ErrorCode::UNAUTHORIZED && answered.generation.has_nonce() {
            warn!(server = ?self.server, "Relay does not accept our credentials");
            return self.fail(FreeReason::Authentication);
        }
        if let Some(realm) = &error.realm
            && *realm != self.auth.credentials().realm
        {
            warn!(server = ?self.server, %realm, "Relay asks for a foreign realm");
            return self.fail(FreeReason::Authentication);
        }
        if answered.generation == self.auth.generation() {
            let Some(nonce) = error.nonce else {
                warn!(server = ?self.server, "Relay asks for a nonce without offering one");
                return;
            };
            self.auth.set_nonce(nonce);
        } else if !answered.is_latest {
            // A later attempt is on its way with a newer nonce already.
            return;
        }
        match self.requests.restart(answered.request, now) {
            Some(challenges) if challenges > MAX_CHALLENGES => {
                warn!(server = ?self.server, "Relay accepts none of its own nonces");
                self.invalidate();
                self.suspend(now);
            }
            _ => {
                cover!("turn/unauthorized-answered" if error.code == ErrorCode::UNAUTHORIZED);
                cover!("turn/stale-nonce-answered" if error.code == ErrorCode::STALE_NONCE);
                self.resend(answered.request, now);
            }
        }
    }

    fn handle_error(&mut self, answered: Answered, error: &ErrorResponse, now: Instant) {
        let server = self.server;
        let code = error.code;
        if code == ErrorCode::UNKNOWN_ATTRIBUTE && answered.kind.is_authenticated() {
            warn!(?server, unknown = ?error.unknown_attributes, "Relay does not speak our TURN");
            return self.fail(FreeReason::Protocol);
        }
        match answered.kind {
            Kind::Discovery | Kind::KeepAlive => {
                debug!(?server, %code, "Relay refused a BINDING");
                self.conclude_discovery(now);
            }
            Kind::Allocate if code == ErrorCode::ALLOCATION_MISMATCH => {
                cover!("turn/mismatch-deletes-and-allocates");
                self.delete_foreign_allocation(answered.dst, now);
            }
            Kind::Allocate => {
                warn!(?server, %code, "Relay refused an allocation");
                self.buffered_binds.clear();
                self.suspend(now);
            }
            // 437 to a deletion: there is nothing to delete, which is what we want.
            Kind::Deletion => self.allocate(answered.dst, now),
            Kind::Renewal | Kind::Probe | Kind::Inquiry
                if code == ErrorCode::ALLOCATION_MISMATCH =>
            {
                cover!("turn/mismatch-allocates-again");
                info!(?server, "Relay has forgotten our allocation");
                self.invalidate();
                self.allocate(answered.dst, now);
            }
            Kind::Renewal | Kind::Probe | Kind::Inquiry => {
                warn!(?server, %code, "Relay refused to renew the allocation");
                self.postpone_renewal(now);
            }
            Kind::ChannelBind { peer, .. } if code == ErrorCode::ALLOCATION_MISMATCH => {
                cover!("turn/mismatch-allocates-again");
                info!(?server, "Relay has forgotten our allocation");
                self.invalidate();
                self.buffer_bind(peer);
                self.allocate(answered.dst, now);
            }
            Kind::ChannelBind { number, peer } if code == ErrorCode::FORBIDDEN => {
                debug!(?server, %peer, "Relay refuses this peer");
                self.channels.remove(number);
                self.refuse(peer);
            }
            Kind::ChannelBind { number, .. } => {
                warn!(?server, %code, %number, "Relay refused a channel");
                self.channels.remove(number);
            }
        }
    }

    fn handle_success(
        &mut self,
        local: SocketAddr,
        answered: Answered,
        success: Success,
        now: Instant,
    ) {
        match (answered.kind, success) {
            (Kind::Discovery | Kind::KeepAlive, Success::Binding { mapped }) => {
                let news = self.candidates.discover(answered.dst, local, mapped);
                let has_moved = !news.is_empty();
                self.events.extend(news.into_iter().map(Event::New));
                match &self.state {
                    State::Discovering => {
                        debug!(server = %answered.dst, rtt = ?answered.rtt, "Relay answers");
                        self.allocate(answered.dst, now);
                    }
                    // An allocation belongs to the address that the relay sees (RFC 8656 section 3.1). A NAT that has
                    // given us another one has cut us off from ours; a REFRESH tells, and starts the next one.
                    State::Allocated(lease) if has_moved && lease.active == answered.dst => {
                        info!(server = %answered.dst, "Relay sees us at another address");
                        self.refresh(now);
                    }
                    State::Allocated(_)
                    | State::Allocating { .. }
                    | State::Suspended { .. }
                    | State::Failed { .. } => {}
                }
            }
            (
                Kind::Allocate,
                Success::Allocate {
                    relayed, lifetime, ..
                },
            ) => self.handle_allocated(local, answered.dst, &relayed, lifetime, now),
            (Kind::Renewal | Kind::Probe | Kind::Inquiry, Success::Refresh { lifetime }) => {
                self.handle_renewed(answered.dst, lifetime, now);
            }
            (Kind::Deletion, Success::Refresh { .. }) => self.allocate(answered.dst, now),
            (Kind::ChannelBind { number, .. }, Success::ChannelBind) => {
                cover!("turn/channel-bound");
                self.channels.confirm(number, now);
                if let State::Allocated(lease) = &mut self.state {
                    lease.silence.heard();
                }
            }
            // The method has been compared with the request's.
            _ => warn!(kind = ?answered.kind, "Response to another request"),
        }
    }

    fn handle_allocated(
        &mut self,
        local: SocketAddr,
        active: SocketAddr,
        relayed: &[SocketAddr],
        lifetime: Option<u32>,
        now: Instant,
    ) {
        let news = self.candidates.allocate(relayed, local);
        let lifetime = lifetime.filter(|seconds| *seconds > 0);
        let (Some(seconds), false) = (lifetime, news.is_empty()) else {
            warn!(server = ?self.server, ?relayed, ?lifetime, "Relay granted nothing of use");
            self.candidates.take_relayed();
            return self.suspend(now);
        };
        info!(%active, ?relayed, seconds, "Allocated on relay");
        self.events.extend(news.into_iter().map(Event::New));
        self.state = State::Allocated(Lease::granted(active, seconds, now));
        self.mismatches = 0;
        self.suspensions = SuspensionBackoff::default();
        for peer in std::mem::take(&mut self.buffered_binds) {
            self.bind_now(peer, active, now);
        }
    }

    fn handle_renewed(&mut self, active: SocketAddr, lifetime: Option<u32>, now: Instant) {
        match (lifetime, &mut self.state) {
            (Some(0), _) => {
                self.invalidate();
                self.allocate(active, now);
            }
            (Some(seconds), State::Allocated(lease)) => {
                let mut silence = lease.silence;
                silence.heard();
                *lease = Lease {
                    keep_alive_at: lease.keep_alive_at,
                    silence,
                    ..Lease::granted(active, seconds, now)
                };
            }
            (Some(_), _) => {}
            (None, _) => {
                warn!(server = ?self.server, "Relay renewed without a lifetime");
                self.postpone_renewal(now);
            }
        }
    }

    /// Asks for an allocation on the socket that answered.
    fn allocate(&mut self, active: SocketAddr, now: Instant) {
        self.state = State::Allocating { active };
        self.request(Kind::Allocate, active, Backoff::ladder(now), now);
    }

    /// The relay holds an allocation for our socket that we know nothing about: delete it first.
    fn delete_foreign_allocation(&mut self, active: SocketAddr, now: Instant) {
        self.invalidate();
        self.mismatches += 1;
        if self.mismatches > MAX_MISMATCHES {
            warn!(server = ?self.server, "Relay and we keep disagreeing about the allocation");
            self.mismatches = 0;
            return self.suspend(now);
        }
        self.request(Kind::Deletion, active, Backoff::ladder(now), now);
    }

    /// Half of what is left, so that a relay in trouble is asked a few times, not continuously.
    fn postpone_renewal(&mut self, now: Instant) {
        if let State::Allocated(lease) = &mut self.state {
            let left = lease.expires_at.saturating_duration_since(now);
            lease.renew_at = (left >= MIN_RENEWAL_MARGIN).then(|| now + left / 2);
        }
    }

    /// A BINDING was refused: if it was the last one, no socket can be chosen.
    fn conclude_discovery(&mut self, now: Instant) {
        if matches!(self.state, State::Discovering)
            && !self.requests.any(|kind| kind == Kind::Discovery)
        {
            self.suspend(now);
        }
    }
}

impl Lease {
    fn granted(active: SocketAddr, seconds: u32, now: Instant) -> Self {
        let lifetime = Duration::from_secs(seconds.into()).min(MAX_LIFETIME);
        Self {
            active,
            renew_at: Some(now + lifetime / 2),
            expires_at: now + lifetime,
            keep_alive_at: now + KEEP_ALIVE,
            silence: Silence::default(),
        }
    }
}

fn is_challenge(error: &ErrorResponse) -> bool {
    matches!(error.code, ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE)
}
