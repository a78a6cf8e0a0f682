//! Channels of all clients, and the two look-ups of the data path.
//!
//! | Table | Key → value | For |
//! |---|---|---|
//! | `by_number` | (client, number) → channel | client → peer |
//! | `by_peer` | (client, peer) → number | one number per peer |
//! | `bound` | (allocation port, peer) → (client, number) | peer → client; bound channels only |
//!
//! Invariants: the three agree; an entry of `bound` exists exactly while the channel is bound. A channel relays for ten
//! minutes after its last bind, then cools down for five, in which only the same pair may be bound again, then is gone
//! (RFC 8656 §12, relay spec §2.7).

use std::time::{Duration, Instant};

use connlib_stun::ChannelNumber;

use crate::{
    address::{AllocationPort, ClientSocket, PeerSocket},
    hash::{SecretHash, Table},
};

/// How long a bind lasts.
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// How long number and peer stay tied to each other afterwards.
pub const CHANNEL_COOL_DOWN: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Channels {
    by_number: Table<(ClientSocket, ChannelNumber), Channel>,
    by_peer: Table<(ClientSocket, PeerSocket), ChannelNumber>,
    bound: Table<(AllocationPort, PeerSocket), (ClientSocket, ChannelNumber)>,
}

/// One channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channel {
    /// Where its data goes, and who may send.
    pub(crate) peer: PeerSocket,
    /// The allocation it belongs to.
    pub(crate) port: AllocationPort,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Bound { until: Instant },
    CoolingDown { until: Instant },
}

/// What a bind would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Neither number nor peer is taken.
    New,
    /// The pair exists, bound or cooling down.
    Existing,
    /// The number belongs to another peer, or the peer to another number.
    Conflict,
}

/// What a timer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// No more data; number and peer stay tied until then.
    CoolsDown { until: Instant },
    /// Number and peer are free.
    Gone,
}

impl Channels {
    pub(crate) fn new(hash: &SecretHash) -> Self {
        Self {
            by_number: Table::with_hasher(hash.clone()),
            by_peer: Table::with_hasher(hash.clone()),
            bound: Table::with_hasher(hash.clone()),
        }
    }

    /// The bound channel of this number.
    #[inline]
    pub(crate) fn of_number(
        &self,
        client: ClientSocket,
        number: ChannelNumber,
    ) -> Option<&Channel> {
        let channel = self.by_number.get(&(client, number))?;
        matches!(channel.state, State::Bound { .. }).then_some(channel)
    }

    /// Who has bound a channel to `peer` from this allocation.
    #[inline]
    pub(crate) fn of_peer(
        &self,
        port: AllocationPort,
        peer: PeerSocket,
    ) -> Option<(ClientSocket, ChannelNumber)> {
        self.bound.get(&(port, peer)).copied()
    }

    pub(crate) fn claim(
        &self,
        client: ClientSocket,
        number: ChannelNumber,
        peer: PeerSocket,
    ) -> Claim {
        let number_taken = self.by_number.get(&(client, number));
        let peer_taken = self.by_peer.get(&(client, peer));
        match (number_taken, peer_taken) {
            (None, None) => Claim::New,
            (Some(channel), Some(of_peer)) if channel.peer == peer && *of_peer == number => {
                Claim::Existing
            }
            (Some(_), _) | (None, Some(_)) => Claim::Conflict,
        }
    }

    /// Binds a pair whose claim is no conflict, or binds it again. Returns the deadline that this replaces and the new
    /// one.
    pub(crate) fn bind(
        &mut self,
        client: ClientSocket,
        number: ChannelNumber,
        (port, peer): (AllocationPort, PeerSocket),
        now: Instant,
    ) -> (Option<Instant>, Instant) {
        let until = now + CHANNEL_LIFETIME;
        let state = State::Bound { until };
        let channel = Channel { peer, port, state };
        let previous = self.by_number.insert((client, number), channel);
        self.by_peer.insert((client, peer), number);
        self.bound.insert((port, peer), (client, number));
        (previous.map(|channel| channel.deadline()), until)
    }

    /// The channel's deadline was reached.
    pub(crate) fn expire(
        &mut self,
        client: ClientSocket,
        number: ChannelNumber,
    ) -> Option<Expired> {
        let channel = self.by_number.get_mut(&(client, number))?;
        match channel.state {
            State::Bound { until } => {
                let until = until + CHANNEL_COOL_DOWN;
                channel.state = State::CoolingDown { until };
                self.bound.remove(&(channel.port, channel.peer));
                Some(Expired::CoolsDown { until })
            }
            State::CoolingDown { .. } => {
                self.remove(client, number);
                Some(Expired::Gone)
            }
        }
    }

    /// Forgets a channel; returns its deadline.
    pub(crate) fn remove(
        &mut self,
        client: ClientSocket,
        number: ChannelNumber,
    ) -> Option<Instant> {
        let channel = self.by_number.remove(&(client, number))?;
        self.by_peer.remove(&(client, channel.peer));
        if let State::Bound { .. } = channel.state {
            self.bound.remove(&(channel.port, channel.peer));
        }
        Some(channel.deadline())
    }

    /// Channels that relay at present.
    pub(crate) fn bound_len(&self) -> usize {
        self.bound.len()
    }
}

impl Channel {
    fn deadline(&self) -> Instant {
        match self.state {
            State::Bound { until } | State::CoolingDown { until } => until,
        }
    }
}

#[cfg(test)]
impl Channels {
    /// Panics if the tables disagree; returns how many channels there are.
    pub(crate) fn check(&self, numbers: &[(ClientSocket, ChannelNumber)]) {
        let mut bound = 0;
        for (client, number) in numbers {
            let channel = self.by_number[&(*client, *number)];
            assert_eq!(self.by_peer[&(*client, channel.peer)], *number);
            let fast = self.bound.get(&(channel.port, channel.peer));
            match channel.state {
                State::Bound { .. } => {
                    assert_eq!(fast, Some(&(*client, *number)));
                    bound += 1;
                }
                State::CoolingDown { .. } => assert_ne!(fast, Some(&(*client, *number))),
            }
        }
        assert_eq!(self.by_number.len(), numbers.len());
        assert_eq!(self.by_peer.len(), numbers.len());
        assert_eq!(self.bound.len(), bound);
    }
}
