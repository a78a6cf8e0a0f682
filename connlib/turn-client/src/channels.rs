//! Channel numbers and what they are bound to (RFC 8656 §12; snownet spec §2.7).
//!
//! The relay binds a number to one peer for 600 s, then keeps both reserved for each other during a cool-down of 300 s.
//! All ages count from our receipt of the confirmation, which is later than the relay's own start, so whatever we consider
//! cooled down has cooled down there too.
//!
//! Entries live in a table indexed by number, and the channel used last is tried first: framing a packet of a bulk flow
//! costs one comparison of addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_cover::cover;
use connlib_stun::ChannelNumber;

/// How long a relay relays on a channel after a binding.
const LIFETIME: Duration = Duration::from_secs(600);
/// Age at which the relay has forgotten a channel: lifetime and cool-down.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// Age from which a used channel is bound again.
const REFRESH: Duration = Duration::from_secs(300);
/// Size of the number space 0x4000–0x4FFF, and thereby of the table.
const NUMBERS: usize = 0x1000;

/// The channels of one allocation.
#[derive(Debug)]
pub(crate) struct Channels {
    /// Indexed by `number - 0x4000`; grows as numbers are handed out.
    table: Vec<Option<Channel>>,
    by_peer: BTreeMap<SocketAddr, ChannelNumber>,
    /// Refresh instants of bound channels that carried data since they were bound.
    refreshes: BTreeSet<(Instant, ChannelNumber)>,
    /// The number to try first for the next new channel.
    next: ChannelNumber,
    last_sent: ChannelNumber,
}

#[derive(Debug)]
struct Channel {
    peer: SocketAddr,
    binding: Binding,
    last_activity: Instant,
    /// Data was received since the channel was last bound.
    received: bool,
    /// Data was sent or received since the channel was last bound.
    active: bool,
}

#[derive(Debug, Clone, Copy)]
enum Binding {
    /// A CHANNEL-BIND is in flight; `confirmed` if an earlier one was confirmed.
    InFlight { confirmed: bool },
    /// The relay confirmed the latest CHANNEL-BIND at `at`.
    Bound { at: Instant },
}

impl Channels {
    pub(crate) fn new() -> Self {
        Self {
            table: Vec::new(),
            by_peer: BTreeMap::new(),
            refreshes: BTreeSet::new(),
            next: ChannelNumber::MIN,
            last_sent: ChannelNumber::MIN,
        }
    }

    /// Forgets every channel. Numbers go on from where they were, so that late packets do not reach another peer's channel.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.by_peer.clear();
        self.refreshes.clear();
    }

    /// The channel on which data can be sent to `peer` now; marks it as used.
    #[inline]
    pub(crate) fn for_sending(&mut self, peer: SocketAddr, now: Instant) -> Option<ChannelNumber> {
        let number = self.number_of(peer)?;
        let channel = self.table.get_mut(index(number))?.as_mut()?;
        if !channel.can_send(now) {
            return None;
        }
        self.last_sent = number;
        self.mark_active(number, now);
        Some(number)
    }

    /// The peer that sent what arrived on this channel; marks the channel as used.
    #[inline]
    pub(crate) fn for_receiving(
        &mut self,
        number: ChannelNumber,
        now: Instant,
    ) -> Option<SocketAddr> {
        let channel = self.table.get_mut(index(number))?.as_mut()?;
        if matches!(channel.binding, Binding::InFlight { confirmed: false }) {
            return None;
        }
        channel.received = true;
        let peer = channel.peer;
        self.mark_active(number, now);
        Some(peer)
    }

    /// Decides whether a CHANNEL-BIND is needed for `peer`, and under which number.
    pub(crate) fn bind(&mut self, peer: SocketAddr, now: Instant) -> Bind {
        let known = self.by_peer.get(&peer).copied();
        if let Some(number) = known
            && let Some(binding) = self.channel_mut(number).map(|channel| channel.binding)
        {
            match binding {
                Binding::InFlight { .. } => return Bind::NotNeeded,
                Binding::Bound { at } if now < at + LIFETIME => return Bind::NotNeeded,
                Binding::Bound { at } if now < at + FORGOTTEN => {
                    cover!("turn/channel-cool-down-reused");
                    self.start_rebind(number);
                    return Bind::Request(number);
                }
                Binding::Bound { .. } => {
                    cover!("turn/channel-rebound-after-cool-down");
                    self.remove(number);
                }
            }
        }
        self.drop_idle(now);
        match self.pick(now) {
            Some(number) => {
                self.insert(number, peer, now);
                Bind::Request(number)
            }
            None => Bind::Exhausted,
        }
    }

    /// The relay confirmed the CHANNEL-BIND for this number.
    pub(crate) fn confirm(&mut self, number: ChannelNumber, now: Instant) {
        if let Some(channel) = self.channel_mut(number) {
            channel.binding = Binding::Bound { at: now };
            channel.last_activity = now;
            channel.received = false;
            channel.active = false;
        }
    }

    /// Forgets one channel.
    pub(crate) fn remove(&mut self, number: ChannelNumber) {
        let Some(channel) = self.table.get_mut(index(number)).and_then(Option::take) else {
            return;
        };
        self.by_peer.remove(&channel.peer);
        if let Binding::Bound { at } = channel.binding {
            self.refreshes.remove(&(at + REFRESH, number));
        }
    }

    /// When the next used channel wants to be bound again.
    pub(crate) fn next_refresh(&self) -> Option<Instant> {
        self.refreshes.first().map(|(at, _)| *at)
    }

    /// A channel that is to be bound again now; its CHANNEL-BIND counts as in flight from here on.
    pub(crate) fn take_refresh(&mut self, now: Instant) -> Option<(ChannelNumber, SocketAddr)> {
        let number = match self.refreshes.first() {
            Some((at, number)) if *at <= now => *number,
            _ => return None,
        };
        self.start_rebind(number);
        self.channel_mut(number)
            .map(|channel| (number, channel.peer))
    }

    #[inline]
    fn number_of(&self, peer: SocketAddr) -> Option<ChannelNumber> {
        match self.table.get(index(self.last_sent)) {
            Some(Some(channel)) if channel.peer == peer => Some(self.last_sent),
            _ => self.by_peer.get(&peer).copied(),
        }
    }

    #[inline]
    fn mark_active(&mut self, number: ChannelNumber, now: Instant) {
        let Some(Some(channel)) = self.table.get_mut(index(number)) else {
            return;
        };
        channel.last_activity = now;
        if let Binding::Bound { at } = channel.binding
            && !channel.active
        {
            channel.active = true;
            self.refreshes.insert((at + REFRESH, number));
        }
    }

    fn channel_mut(&mut self, number: ChannelNumber) -> Option<&mut Channel> {
        self.table.get_mut(index(number))?.as_mut()
    }

    fn start_rebind(&mut self, number: ChannelNumber) {
        let Some(channel) = self.channel_mut(number) else {
            return;
        };
        let before = channel.binding;
        channel.binding = Binding::InFlight { confirmed: true };
        if let Binding::Bound { at } = before {
            self.refreshes.remove(&(at + REFRESH, number));
        }
    }

    fn insert(&mut self, number: ChannelNumber, peer: SocketAddr, now: Instant) {
        self.remove(number);
        let at = index(number);
        if self.table.len() <= at {
            self.table.resize_with(at + 1, || None);
        }
        self.table[at] = Some(Channel {
            peer,
            binding: Binding::InFlight { confirmed: false },
            last_activity: now,
            received: false,
            active: false,
        });
        self.by_peer.insert(peer, number);
        self.next = number.next_strict();
    }

    /// A number for a new channel, round robin: unused ones before those that the relay has forgotten.
    fn pick(&mut self, now: Instant) -> Option<ChannelNumber> {
        let candidates =
            std::iter::successors(Some(self.next), |number| Some(number.next_strict()))
                .take(NUMBERS);
        let mut reusable = None;
        for number in candidates {
            match self.table.get(index(number)) {
                None | Some(None) => return Some(number),
                Some(Some(channel)) if channel.is_reusable(now) => {
                    reusable = reusable.or(Some(number));
                }
                Some(Some(_)) => {}
            }
        }
        reusable
    }

    /// Forgets channels that nobody has used for longer than the relay remembers them.
    fn drop_idle(&mut self, now: Instant) {
        let idle: Vec<_> = self
            .by_peer
            .values()
            .copied()
            .filter(|number| {
                let channel = self.table.get(index(*number)).and_then(Option::as_ref);
                channel.is_some_and(|channel| channel.is_idle(now))
            })
            .collect();
        for number in idle {
            self.remove(number);
        }
    }
}

/// Outcome of [`Channels::bind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    /// Send a CHANNEL-BIND with this number.
    Request(ChannelNumber),
    /// The peer has a usable channel, or its CHANNEL-BIND is in flight.
    NotNeeded,
    /// Every number is taken.
    Exhausted,
}

impl Channel {
    fn can_send(&self, now: Instant) -> bool {
        match self.binding {
            Binding::InFlight { .. } => true,
            Binding::Bound { at } => now < at + LIFETIME,
        }
    }

    fn is_reusable(&self, now: Instant) -> bool {
        match self.binding {
            Binding::InFlight { .. } => false,
            Binding::Bound { at } => now >= at + FORGOTTEN && !self.received,
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        match self.binding {
            Binding::InFlight { .. } => false,
            Binding::Bound { at } => now > at.max(self.last_activity) + FORGOTTEN,
        }
    }
}

/// Position of a number in the table; numbers above the strict range lie beyond it.
#[inline]
fn index(number: ChannelNumber) -> usize {
    usize::from(number.get() - ChannelNumber::MIN.get())
}
