//! The pure state machine of the channel: join first, heartbeat, outgoing queue, reconnect.
//!
//! ```text
//!            connect            delay over           handle_connected
//!   Closed ──────────► Waiting ───────────► Connecting ───────────► Connected ──close──► Closing ──► Closed
//!                         ▲                     │                       │
//!                         └──── hiccup ─────────┴───────────────────────┘        budget used up, login refused: Failed
//! ```
//!
//! Everything that belongs to one connection (queue, numbers, join, heartbeats) lives in the *Connected* state and dies
//! with it: nothing stale is sent after a reconnect.

mod connection;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backoff::Backoff;
pub use crate::backoff::FirstConnect;
use crate::error::{ConnectionError, FatalError};
use crate::frame::{Frame, Message, Outgoing};
use connection::{Connection, Verdict};

/// Longest time for look-up, TCP, TLS and upgrade together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for the answer to a join.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between heartbeats. Portals drop a silent component after 37 s.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Largest interval that keeps clear of the portal's limit.
pub const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for the portal to confirm a graceful end.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a channel needs to know at construction.
#[derive(Debug, Clone)]
pub struct Config {
    /// Topic to join, and topic of all messages sent.
    pub topic: String,
    /// Payload of the join: null for clients and gateways, the stamp secret for relays.
    pub join_payload: Value,
    /// Time between heartbeats; at most [`MAX_HEARTBEAT_INTERVAL`].
    pub heartbeat_interval: Duration,
    /// Longest partition that is survived; `None` means for ever.
    pub budget: Option<Duration>,
    /// Patience of the first connect.
    pub first_connect: FirstConnect,
    /// Seed of the back-off's jitter.
    pub seed: [u8; 32],
}

impl Config {
    /// The ordinary settings: heartbeat of 10 s, patient first connect, no budget.
    pub fn new(topic: impl Into<String>, join_payload: Value, seed: [u8; 32]) -> Self {
        Self {
            topic: topic.into(),
            join_payload,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            budget: None,
            first_connect: FirstConnect::Patient,
            seed,
        }
    }
}

/// What the owner is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The topic is joined, for the first time on this connection or again after its channel crashed.
    Connected,
    /// A message of the portal.
    Message(Message),
    /// The connection failed or was lost; the next attempt follows by itself after `delay`.
    Hiccup {
        /// Time until the next attempt.
        delay: Duration,
        /// Budget in force; absent when unlimited.
        budget: Option<Duration>,
        /// What happened.
        error: ConnectionError,
    },
    /// The channel was closed as the owner wished.
    Closed,
}

/// What the driver must do with the socket. Each action refers to the one current socket or attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start an attempt; answer with `handle_connected` or `handle_failure`.
    Dial,
    /// Abandon the attempt in flight without an answer.
    Abort,
    /// Close the connection gracefully in the background; it is no longer the current one.
    Retire,
    /// Close the current connection gracefully; answer with `handle_closed`.
    Close,
}

/// Why a message was not queued; it comes back to its owner.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SendError {
    /// There is no connection.
    #[error("not connected to the portal")]
    NotConnected(Outgoing),
    /// Too many messages wait already.
    #[error("too many messages wait for the portal")]
    QueueFull(Outgoing),
}

/// `close` came while there was no connection yet; the channel is closed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("closed while connecting")]
pub struct ClosedWhileConnecting;

/// The channel without its socket. The loop that drives it:
///
/// ```text
/// loop {
///     while let Some(result) = core.poll_event() { tell the owner; an error is the end }
///     while let Some(action) = core.poll_action() { dial, abort, retire or close the socket }
///     while the socket takes frames { match core.poll_transmit(now) { Some(text) => write it, None => break } }
///     wait for: socket (handle_connected, handle_failure, handle_text, handle_closed), owner, core.poll_timeout()
///     if the timeout is reached { core.handle_timeout(now) }
/// }
/// ```
#[derive(Debug)]
pub struct PhoenixCore {
    config: Config,
    backoff: Backoff,
    state: State,
    actions: VecDeque<Action>,
    events: VecDeque<Result<Event, FatalError>>,
}

#[derive(Debug)]
enum State {
    Closed,
    Waiting { until: Instant },
    Connecting { deadline: Instant },
    Connected(Connection),
    Closing { deadline: Instant },
    Failed,
}

impl PhoenixCore {
    /// A closed channel; nothing happens before [`Self::connect`].
    pub fn new(mut config: Config) -> Self {
        config.heartbeat_interval = config.heartbeat_interval.min(MAX_HEARTBEAT_INTERVAL);
        Self {
            backoff: Backoff::new(config.budget, config.first_connect, config.seed),
            config,
            state: State::Closed,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Starts an attempt after `delay`, in place of whatever is going on. A zero delay forgets earlier failures.
    /// Without effect after a fatal error.
    pub fn connect(&mut self, delay: Duration, now: Instant) {
        match self.state {
            State::Failed => return,
            State::Connecting { .. } => self.actions.push_back(Action::Abort),
            State::Connected(_) | State::Closing { .. } => self.actions.push_back(Action::Retire),
            State::Closed | State::Waiting { .. } => {}
        }
        if delay.is_zero() {
            self.backoff.restart();
            self.dial(now);
        } else {
            self.state = State::Waiting { until: now + delay };
        }
    }

    /// Queues a message for the login topic. A message equal to one that still waits is dropped.
    pub fn send(&mut self, message: Outgoing) -> Result<(), SendError> {
        match &mut self.state {
            State::Connected(connection) => connection.send(message),
            State::Closed
            | State::Waiting { .. }
            | State::Connecting { .. }
            | State::Closing { .. }
            | State::Failed => Err(SendError::NotConnected(message)),
        }
    }

    /// Ends the channel gracefully; [`Event::Closed`] follows.
    pub fn close(&mut self, now: Instant) -> Result<(), ClosedWhileConnecting> {
        match self.state {
            State::Connected(_) => {
                self.actions.push_back(Action::Close);
                self.state = State::Closing {
                    deadline: now + CLOSE_TIMEOUT,
                };
                Ok(())
            }
            State::Connecting { .. } => {
                self.actions.push_back(Action::Abort);
                self.state = State::Closed;
                Err(ClosedWhileConnecting)
            }
            State::Waiting { .. } => {
                self.state = State::Closed;
                Err(ClosedWhileConnecting)
            }
            State::Closed => {
                self.events.push_back(Ok(Event::Closed));
                Ok(())
            }
            State::Closing { .. } | State::Failed => Ok(()),
        }
    }

    /// Whether messages are accepted.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// The upgrade succeeded.
    pub fn handle_connected(&mut self, now: Instant) {
        if matches!(self.state, State::Connecting { .. }) {
            self.state = State::Connected(Connection::new(&self.config, now));
        }
    }

    /// The attempt in flight failed.
    pub fn handle_failure(&mut self, error: ConnectionError, now: Instant) {
        if matches!(self.state, State::Connecting { .. }) {
            self.fail(error, now);
        }
    }

    /// A text frame arrived.
    pub fn handle_text(&mut self, text: &str, now: Instant) {
        tracing::trace!(target: "wire::api::recv", "{text}");
        let State::Connected(connection) = &mut self.state else {
            return;
        };
        let frame = match Frame::decode(text) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, bytes = text.len(), "failed to deserialize message");
                return;
            }
        };
        match connection.handle_frame(frame, now) {
            Verdict::Nothing => {}
            Verdict::Joined => {
                self.backoff.succeeded();
                self.events.push_back(Ok(Event::Connected));
            }
            Verdict::Message(message) => self.events.push_back(Ok(Event::Message(message))),
            Verdict::Lost(error) => self.hiccup(error, now),
            Verdict::Fatal(error) => self.die(error),
        }
    }

    /// The connection ended or broke, or the graceful end that was asked for is complete.
    pub fn handle_closed(&mut self, error: ConnectionError, now: Instant) {
        match self.state {
            State::Connected(_) => self.fail(error, now),
            State::Closing { .. } => self.finish_closing(),
            State::Closed | State::Waiting { .. } | State::Connecting { .. } | State::Failed => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { until } if *until <= now => self.dial(now),
            State::Connecting { deadline } if *deadline <= now => {
                self.actions.push_back(Action::Abort);
                self.fail(ConnectionError::ConnectTimeout, now);
            }
            State::Closing { deadline } if *deadline <= now => {
                self.actions.push_back(Action::Retire);
                self.finish_closing();
            }
            State::Connected(connection) => {
                if let Err(error) = connection.handle_timeout(now) {
                    self.hiccup(error, now);
                }
            }
            State::Closed
            | State::Waiting { .. }
            | State::Connecting { .. }
            | State::Closing { .. }
            | State::Failed => {}
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Connecting { deadline } | State::Closing { deadline } => Some(*deadline),
            State::Connected(connection) => Some(connection.poll_timeout()),
            State::Closed | State::Failed => None,
        }
    }

    /// Next text frame; ask only when the socket can take it, since asking counts as writing.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<String> {
        let State::Connected(connection) = &mut self.state else {
            return None;
        };
        match connection.poll_transmit(now) {
            Ok(frame) => {
                let text = frame?.encode();
                tracing::trace!(target: "wire::api::send", "{text}");
                Some(text)
            }
            Err(error) => {
                self.hiccup(error, now);
                None
            }
        }
    }

    /// Next thing to do with the socket.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Next thing to tell the owner; an error is the last one.
    pub fn poll_event(&mut self) -> Option<Result<Event, FatalError>> {
        self.events.pop_front()
    }

    fn dial(&mut self, now: Instant) {
        self.actions.push_back(Action::Dial);
        self.state = State::Connecting {
            deadline: now + CONNECT_TIMEOUT,
        };
    }

    /// We give up a connection that still stands.
    fn hiccup(&mut self, error: ConnectionError, now: Instant) {
        self.actions.push_back(Action::Retire);
        self.fail(error, now);
    }

    /// The attempt or connection is gone; plans the next one.
    fn fail(&mut self, error: ConnectionError, now: Instant) {
        let asked = match &error {
            ConnectionError::Refused(refused) => {
                return self.die_without_socket(refused.clone().into());
            }
            ConnectionError::Http { retry_after, .. } => *retry_after,
            _ => None,
        };
        let Some(retry) = self.backoff.next(asked, now) else {
            return self.die_without_socket(FatalError::MaxRetriesReached { final_error: error });
        };
        self.state = State::Waiting {
            until: now + retry.delay,
        };
        self.events.push_back(Ok(Event::Hiccup {
            delay: retry.delay,
            budget: retry.budget,
            error,
        }));
    }

    fn die(&mut self, error: FatalError) {
        self.actions.push_back(Action::Retire);
        self.die_without_socket(error);
    }

    fn die_without_socket(&mut self, error: FatalError) {
        self.state = State::Failed;
        self.events.push_back(Err(error));
    }

    fn finish_closing(&mut self) {
        self.state = State::Closed;
        self.events.push_back(Ok(Event::Closed));
    }
}

#[cfg(test)]
mod tests;
