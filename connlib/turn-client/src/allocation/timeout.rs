//! Deadlines (snownet spec §2.4, §2.9).

use std::time::Instant;

use connlib_cover::cover;
use tracing::{debug, info};

use super::{Allocation, Lease, State};
use crate::{
    FreeReason,
    backoff::{Backoff, Verdict},
    requests::{Kind, Pending},
};

impl Allocation {
    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.expire(now);
        while let Some((request, pending, verdict)) = self.requests.take_due(now) {
            match verdict {
                Verdict::Resend => self.resend(request, now),
                Verdict::Dead => self.give_up(request, pending, now),
                Verdict::Wait => {}
            }
        }
        self.retry_suspended(now);
        self.maintain(now);
        if let State::Failed { is_noticed, .. } = &mut self.state {
            *is_noticed = true;
        }
    }

    /// The earliest instant at which [`Self::handle_timeout`] has something to do, and what.
    ///
    /// An instant already reached means that something waits to be polled.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.transmits.is_empty() || !self.events.is_empty() {
            return Some((self.last_now, "queued output of allocation"));
        }
        let of_state = match &self.state {
            State::Discovering | State::Allocating { .. } => [None; 4],
            State::Allocated(lease) => self.lease_deadlines(lease),
            State::Suspended { retry_at } => [
                Some((*retry_at, "retry of suspended allocation")),
                None,
                None,
                None,
            ],
            State::Failed { is_noticed, .. } => {
                let due = (!is_noticed).then_some((self.last_now, "failed allocation"));
                [due, None, None, None]
            }
        };
        let retry = self
            .requests
            .next_deadline()
            .map(|at| (at, "request retry"));
        let refresh = match self.state {
            State::Allocated(_) => self.channels.next_refresh(),
            _ => None,
        };
        of_state
            .into_iter()
            .flatten()
            .chain(retry)
            .chain(refresh.map(|at| (at, "channel refresh")))
            .min_by_key(|(at, _)| *at)
    }

    fn lease_deadlines(&self, lease: &Lease) -> [Option<(Instant, &'static str)>; 4] {
        let is_refreshing = self.is_refreshing();
        let unless_refreshing = |_: &Instant| !is_refreshing;
        let renewal = lease.renew_at.filter(unless_refreshing);
        let question = lease.silence.deadline().filter(unless_refreshing);
        [
            Some((lease.expires_at, "allocation expiry")),
            renewal.map(|at| (at, "allocation refresh")),
            Some((lease.keep_alive_at, "relay keep-alive")),
            question.map(|at| (at, "silent relay")),
        ]
    }

    /// An allocation that was not renewed in time, for instance because the host slept: start again at once.
    fn expire(&mut self, now: Instant) {
        if let State::Allocated(lease) = &self.state
            && now >= lease.expires_at
        {
            info!(server = ?self.server, "Allocation has expired");
            self.invalidate();
            self.discover(now);
        }
    }

    /// No answer came to a request (snownet spec §2.4, table of verdicts).
    fn give_up(&mut self, request: u64, pending: Pending, now: Instant) {
        debug!(server = ?self.server, kind = ?pending.kind, dst = %pending.dst, "Request timed out");
        self.requests.settle(request);
        cover!("turn/request-gave-up");
        if let (Kind::Inquiry, State::Allocated(lease)) = (pending.kind, &self.state)
            && lease.silence.is_over()
        {
            return;
        }
        match self.active_socket() {
            Some(active) if active == pending.dst => {
                info!(server = ?self.server, "Relay does not answer any more");
                self.invalidate();
                self.suspend(now);
            }
            Some(_) => {}
            None => self.give_up_discovery(now),
        }
    }

    fn give_up_discovery(&mut self, now: Instant) {
        if !matches!(self.state, State::Discovering)
            || self.requests.any(|kind| kind == Kind::Discovery)
        {
            return;
        }
        if self.has_answered {
            self.suspend(now);
        } else {
            self.fail(FreeReason::NoResponse);
        }
    }

    fn retry_suspended(&mut self, now: Instant) {
        if let State::Suspended { retry_at } = &self.state
            && now >= *retry_at
        {
            self.discover(now);
        }
    }

    /// Renewal, keep-alive and channel refreshes of a live allocation, and the question whether it is alive.
    fn maintain(&mut self, now: Instant) {
        let refreshing = self.is_refreshing();
        let State::Allocated(lease) = &mut self.state else {
            return;
        };
        let active = lease.active;
        let renew = !refreshing && lease.renew_at.is_some_and(|at| now >= at);
        let ask = !refreshing && lease.silence.deadline().is_some_and(|at| now >= at);
        let keep_alive = now >= lease.keep_alive_at;
        if keep_alive {
            lease.keep_alive_at = now + super::KEEP_ALIVE;
        }
        if ask {
            cover!("turn/silent-relay-asked");
            debug!(server = ?self.server, "Nothing comes back from the relay");
            lease.silence.asked(now);
            self.request(Kind::Inquiry, active, Backoff::patient_ladder(now), now);
        } else if renew {
            cover!("turn/refresh-at-half-life");
            self.request(Kind::Renewal, active, Backoff::ladder(now), now);
        }
        if keep_alive {
            self.request(Kind::KeepAlive, active, Backoff::ladder(now), now);
        }
        while let Some((number, peer)) = self.channels.take_refresh(now) {
            cover!("turn/channel-refresh");
            let kind = Kind::ChannelBind { number, peer };
            self.request(kind, active, Backoff::ladder(now), now);
        }
    }

    fn is_refreshing(&self) -> bool {
        self.requests
            .any(|kind| matches!(kind, Kind::Renewal | Kind::Probe | Kind::Inquiry))
    }
}
