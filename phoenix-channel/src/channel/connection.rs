//! One established connection: join, numbers, heartbeats, queue. Replaced as a whole at every reconnect.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Config, JOIN_TIMEOUT, SendError};
use crate::error::{ConnectionError, FatalError};
use crate::frame::{self, Frame, Message, Outgoing, Reason, Reply};

/// Heartbeats that may be unanswered; one more means that the portal is gone.
const MAX_UNANSWERED_HEARTBEATS: usize = 3;

/// Heartbeats that may come due while the first of them still waits for the socket. What takes no byte for a minute is
/// dead, and TCP itself would need a quarter of an hour to say so.
const MAX_STALLED_HEARTBEATS: u32 = 6;

/// Messages that may wait. A busy client sends a handful per second; more than this is waiting only behind a connection
/// that is dead already, and heartbeats end that.
const MAX_QUEUED: usize = 1024;

/// Shortest time between two joins on one connection, so that a crashing channel is not hammered.
const REJOIN_INTERVAL: Duration = Duration::from_secs(1);

/// What a frame means for the channel.
#[derive(Debug)]
pub(super) enum Verdict {
    Nothing,
    Joined,
    Message(Message),
    Lost(ConnectionError),
    Fatal(FatalError),
}

#[derive(Debug)]
pub(super) struct Connection {
    topic: String,
    join_payload: Value,
    next_reference: u64,
    join: Join,
    heartbeat: Heartbeat,
    queue: VecDeque<Outgoing>,
}

#[derive(Debug)]
enum Join {
    /// To be written at `at`.
    Planned { at: Instant },
    /// Due, waits for the socket.
    Due { deadline: Instant },
    /// Written.
    Pending { reference: u64, since: Instant },
    /// Answered. `reference` and `since` are those of the join.
    Joined { reference: u64, since: Instant },
}

#[derive(Debug)]
struct Heartbeat {
    interval: Duration,
    next: Instant,
    /// Heartbeats that came due since the last one was written; they are written as one.
    due: u32,
    unanswered: BTreeSet<u64>,
}

impl Connection {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            topic: config.topic.clone(),
            join_payload: config.join_payload.clone(),
            next_reference: 0,
            join: Join::Due {
                deadline: now + JOIN_TIMEOUT,
            },
            heartbeat: Heartbeat {
                interval: config.heartbeat_interval,
                next: now + config.heartbeat_interval,
                due: 0,
                unanswered: BTreeSet::new(),
            },
            queue: VecDeque::new(),
        }
    }

    pub(super) fn send(&mut self, message: Outgoing) -> Result<(), SendError> {
        if self.queue.contains(&message) {
            tracing::debug!(event = %message.event, "equal message waits already");
            return Ok(());
        }
        if self.queue.len() >= MAX_QUEUED {
            return Err(SendError::QueueFull(message));
        }
        self.queue.push_back(message);
        Ok(())
    }

    /// Heartbeat first, then the join, then messages once joined.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Result<Option<Frame>, ConnectionError> {
        if self.heartbeat.due > 0 {
            return self.transmit_heartbeat().map(Some);
        }
        match self.join {
            Join::Due { .. } => {
                let reference = self.take_reference();
                self.join = Join::Pending {
                    reference,
                    since: now,
                };
                Ok(Some(Frame::join(
                    &self.topic,
                    self.join_payload.clone(),
                    reference,
                )))
            }
            Join::Joined { .. } => Ok(self.transmit_message()),
            Join::Planned { .. } | Join::Pending { .. } => Ok(None),
        }
    }

    pub(super) fn handle_frame(&mut self, frame: Frame, now: Instant) -> Verdict {
        let is_own_topic = frame.topic == self.topic;
        match frame.event.as_str() {
            frame::REPLY => self.handle_reply(&frame, now),
            frame::ERROR => {
                tracing::debug!(topic = %frame.topic, "portal reports a crashed channel");
                if is_own_topic {
                    self.handle_crashed_channel(now);
                }
                Verdict::Nothing
            }
            frame::CLOSE if is_own_topic => Verdict::Lost(ConnectionError::ChannelClosed),
            frame::CLOSE => Verdict::Nothing,
            frame::DISCONNECT => handle_disconnect(&frame.payload),
            _ => Verdict::Message(frame.into()),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        match self.join {
            Join::Planned { at } if at <= now => {
                self.join = Join::Due {
                    deadline: now + JOIN_TIMEOUT,
                };
            }
            Join::Due { deadline } if deadline <= now => return Err(ConnectionError::JoinTimeout),
            Join::Pending { since, .. } if since + JOIN_TIMEOUT <= now => {
                return Err(ConnectionError::JoinTimeout);
            }
            Join::Planned { .. }
            | Join::Due { .. }
            | Join::Pending { .. }
            | Join::Joined { .. } => {}
        }
        if self.heartbeat.next <= now {
            self.heartbeat.due += 1;
            self.heartbeat.next = now + self.heartbeat.interval;
        }
        if self.heartbeat.due > MAX_STALLED_HEARTBEATS {
            return Err(ConnectionError::Stalled);
        }
        Ok(())
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let join = match self.join {
            Join::Planned { at } => at,
            Join::Due { deadline } => deadline,
            Join::Pending { since, .. } => since + JOIN_TIMEOUT,
            Join::Joined { .. } => self.heartbeat.next,
        };
        join.min(self.heartbeat.next)
    }

    fn transmit_heartbeat(&mut self) -> Result<Frame, ConnectionError> {
        let reference = self.take_reference();
        self.heartbeat.due = 0;
        self.heartbeat.unanswered.insert(reference);
        match self.heartbeat.unanswered.len() {
            missing if missing > MAX_UNANSWERED_HEARTBEATS => {
                Err(ConnectionError::MissedHeartbeats)
            }
            _ => Ok(Frame::heartbeat(reference)),
        }
    }

    fn transmit_message(&mut self) -> Option<Frame> {
        let message = self.queue.pop_front()?;
        let reference = self.take_reference();
        Some(Frame::request(&self.topic, message, reference))
    }

    fn take_reference(&mut self) -> u64 {
        let reference = self.next_reference;
        self.next_reference += 1;
        reference
    }

    fn handle_reply(&mut self, frame: &Frame, now: Instant) -> Verdict {
        let Some(reference) = frame.reference else {
            tracing::debug!("reply without reference");
            return Verdict::Nothing;
        };
        if self.heartbeat.unanswered.remove(&reference) {
            return Verdict::Nothing;
        }
        let reply = Reply::parse(&frame.payload);
        if let Join::Pending {
            reference: join,
            since,
        } = self.join
            && join == reference
        {
            return self.handle_join_reply(reply, reference, since);
        }
        match reply {
            Some(Reply::Ok(_)) => {}
            Some(Reply::Error(Reason::UnmatchedTopic)) if frame.topic == self.topic => {
                self.handle_unmatched_topic(reference, now);
            }
            Some(Reply::Error(reason)) => {
                tracing::debug!(%reason, reference, "portal refused a message")
            }
            None => tracing::warn!(reference, "failed to deserialize reply"),
        }
        Verdict::Nothing
    }

    fn handle_join_reply(
        &mut self,
        reply: Option<Reply>,
        reference: u64,
        since: Instant,
    ) -> Verdict {
        match reply {
            Some(Reply::Ok(_)) => {
                self.join = Join::Joined { reference, since };
                Verdict::Joined
            }
            Some(Reply::Error(reason @ (Reason::InvalidVersion | Reason::TokenExpired))) => {
                Verdict::Fatal(FatalError::LoginFailed(reason))
            }
            Some(Reply::Error(reason)) => {
                Verdict::Lost(ConnectionError::JoinRefused(reason.to_string()))
            }
            None => Verdict::Lost(ConnectionError::JoinRefused("no reason given".to_owned())),
        }
    }

    /// A refusal of what was sent before the newest join says nothing about that join.
    fn handle_unmatched_topic(&mut self, refused: u64, now: Instant) {
        if let Join::Joined { reference, since } = self.join
            && refused > reference
        {
            self.plan_join(since, now);
        }
    }

    fn handle_crashed_channel(&mut self, now: Instant) {
        match self.join {
            Join::Joined { since, .. } | Join::Pending { since, .. } => self.plan_join(since, now),
            Join::Planned { .. } | Join::Due { .. } => {}
        }
    }

    fn plan_join(&mut self, last: Instant, now: Instant) {
        tracing::debug!(topic = %self.topic, "joining again");
        self.join = match last + REJOIN_INTERVAL {
            at if at > now => Join::Planned { at },
            _ => Join::Due {
                deadline: now + JOIN_TIMEOUT,
            },
        };
    }
}

/// The portal says why it is about to hang up; only an expired token is final, everything else shows in the close.
fn handle_disconnect(payload: &Value) -> Verdict {
    match payload.get("reason").and_then(Value::as_str) {
        Some("token_expired") => Verdict::Fatal(FatalError::InvalidToken),
        reason => {
            tracing::warn!(?reason, "portal is about to disconnect");
            Verdict::Nothing
        }
    }
}
