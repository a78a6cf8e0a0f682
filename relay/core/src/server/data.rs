//! The data path: trains of datagrams in, routes out.
//!
//! The unit is what one receive call delivers: several datagrams of one sender, all but the last of one size. The tables
//! are asked once per train and channel, not once per datagram; nothing is allocated or copied here.

use std::{net::SocketAddr, num::NonZeroU64, time::Instant};

use connlib_cover::cover;
use connlib_stun::{
    ChannelNumber, PacketKind,
    channel::{self, ChannelData},
    classify,
};

use crate::{
    address::{AllocationPort, ClientSocket, PeerSocket, family_of},
    limit::Budget,
    server::Server,
};

/// Largest UDP payload over IPv4: 65 535 bytes less the IP and UDP headers.
const MAX_UDP_PAYLOAD_V4: usize = 65_507;
/// Largest UDP payload over IPv6, whose length field does not count the IP header.
const MAX_UDP_PAYLOAD_V6: usize = 65_527;

/// Datagrams of one sender that arrived together: each `segment_size` bytes long, the last perhaps shorter.
#[derive(Debug, Clone, Copy)]
pub struct Train<'a> {
    bytes: &'a [u8],
    segment_size: usize,
}

impl<'a> Train<'a> {
    /// Cuts `bytes` every `segment_size` bytes. A size of 0, or beyond the end, means one datagram.
    #[must_use]
    pub fn new(bytes: &'a [u8], segment_size: usize) -> Self {
        let segment_size = match segment_size {
            0 => bytes.len(),
            size => size,
        };
        Self {
            bytes,
            segment_size: segment_size.max(1),
        }
    }

    /// One datagram by itself; it may be empty.
    #[must_use]
    pub fn single(datagram: &'a [u8]) -> Self {
        Self::new(datagram, datagram.len())
    }

    /// The datagrams in order.
    pub fn datagrams(self) -> impl Iterator<Item = &'a [u8]> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty
            .into_iter()
            .chain(self.bytes.chunks(self.segment_size))
    }
}

/// Where a payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// As it is, from the socket of the peer's family on the allocation's port.
    ToPeer {
        /// The allocation.
        port: AllocationPort,
        /// The destination.
        peer: PeerSocket,
    },
    /// From the listen port, with a channel header in front.
    ToClient {
        /// The destination.
        client: ClientSocket,
        /// Channel for [`channel::encode_header`].
        number: ChannelNumber,
    },
    /// As it is, to the shard that owns the port: into its [`Server::handle_peer_input`], coming from `from`.
    ToSibling {
        /// The allocation that it is for.
        port: AllocationPort,
        /// The relayed address that it comes from.
        from: PeerSocket,
    },
}

/// Takes what is to be sent on; implemented over the send queues, or over a list in tests.
pub trait Forwarder {
    /// Sends a payload on, in order. Consecutive payloads of one train mostly share their route.
    fn forward(&mut self, route: Route, payload: &[u8]);
}

/// Counters of one train, added up when it is over. One per train only: the last one's budget is the allocation's.
#[derive(Default)]
pub(super) struct Tally {
    packets: u64,
    bytes: u64,
    hairpinned: u64,
    over_limit: u64,
    limit: Option<Limit>,
}

/// What the train's allocation may relay.
struct Limit {
    client: ClientSocket,
    budget: Budget,
    rate: NonZeroU64,
    now: Instant,
}

impl Server {
    /// Handles datagrams from `from` that arrived together on the listen port.
    pub fn handle_client_input(
        &mut self,
        from: SocketAddr,
        train: Train<'_>,
        now: Instant,
        out: &mut impl Forwarder,
    ) {
        self.handle_timeout(now);
        // Nobody can be answered at port 0. One of our own allocations as a client would let a relay be chained to
        // itself (relay spec §6.3).
        if from.port() == 0 || self.policy.own().is_allocation(from) {
            self.counters.drops.bad_source += 1;
            return;
        }
        let client = ClientSocket::new(from);
        let mut tally = self.tally(client, now);
        let mut current = None;
        for datagram in train.datagrams() {
            match classify(datagram, self.config.channel_numbers) {
                PacketKind::ChannelData => {
                    self.forward_channel_data(client, datagram, &mut current, &mut tally, out);
                }
                PacketKind::Stun => {
                    // Whatever the message does, the tables must be asked again behind it.
                    current = None;
                    self.handle_stun(client, datagram, now, &mut tally, out);
                }
                PacketKind::Other => self.counters.drops.malformed += 1,
            }
        }
        self.add(tally);
    }

    /// Handles datagrams from `from` that arrived together on the port of an allocation.
    pub fn handle_peer_input(
        &mut self,
        port: AllocationPort,
        from: SocketAddr,
        train: Train<'_>,
        now: Instant,
        out: &mut impl Forwarder,
    ) {
        self.handle_timeout(now);
        let peer = PeerSocket::new(from);
        let Some((client, number)) = self.channels.of_peer(port, peer) else {
            self.handle_unbound_peer(port, peer, train, now);
            return;
        };
        let route = Route::ToClient { client, number };
        let mut tally = self.tally(client, now);
        for payload in train.datagrams() {
            if payload.len() > max_framed(client) {
                self.counters.drops.oversized += 1;
                continue;
            }
            if !tally.admits(payload) {
                continue;
            }
            cover!("relay/channel-data-from-peer");
            tally.count(payload);
            out.forward(route, payload);
        }
        self.add(tally);
    }

    /// `current` is the channel of the datagram before, if its route still holds.
    #[inline]
    fn forward_channel_data(
        &mut self,
        client: ClientSocket,
        datagram: &[u8],
        current: &mut Option<(ChannelNumber, Route)>,
        tally: &mut Tally,
        out: &mut impl Forwarder,
    ) {
        let Ok(data) = ChannelData::parse(datagram, self.config.channel_numbers) else {
            self.counters.drops.malformed += 1;
            return;
        };
        let route = match current {
            Some((number, route)) if *number == data.number => *route,
            Some(_) | None => {
                let Some(route) = self.route_of(client, data.number) else {
                    self.counters.drops.no_channel += 1;
                    cover!("relay/unknown-channel-dropped");
                    tracing::trace!(%client, number = %data.number, "Channel data without a bound channel");
                    return;
                };
                *current = Some((data.number, route));
                route
            }
        };
        if !tally.admits(data.payload) {
            return;
        }
        cover!("relay/channel-data-from-client");
        cover!("relay/family-translated" if matches!(
            route,
            Route::ToPeer { peer, .. } if peer.family() != family_of(client.ip())
        ));
        match route {
            Route::ToPeer { .. } => tally.count(data.payload),
            Route::ToClient { .. } => {
                tally.count(data.payload);
                tally.count_hairpinned(data.payload);
            }
            // Counted as relayed by whoever delivers it.
            Route::ToSibling { .. } => tally.count_hairpinned(data.payload),
        }
        out.forward(route, data.payload);
    }

    /// Where a client's channel leads. If the peer is an allocation of ours, the datagram takes the short way to that
    /// allocation's client, who must have bound a channel back (relay spec §2.10).
    fn route_of(&self, client: ClientSocket, number: ChannelNumber) -> Option<Route> {
        let channel = self.channels.of_number(client, number)?;
        let (port, peer) = (channel.port, channel.peer);
        let own = self.policy.own();
        if !own.is_allocation(peer.address()) {
            return Some(Route::ToPeer { port, peer });
        }
        let from = PeerSocket::new(own.relayed(peer.family(), port.get())?);
        let port = AllocationPort::new(peer.port());
        if !self.config.shard.owns(peer.port()) {
            return Some(Route::ToSibling { port, from });
        }
        let (client, number) = self.channels.of_peer(port, from)?;
        Some(Route::ToClient { client, number })
    }

    /// Begins to count what a client sends or gets; end with [`Self::add`].
    pub(super) fn tally(&self, client: ClientSocket, now: Instant) -> Tally {
        let limit = self.config.max_bytes_per_second.and_then(|rate| {
            let budget = self.allocations.get(client)?.budget;
            Some(Limit {
                client,
                budget,
                rate,
                now,
            })
        });
        Tally {
            limit,
            ..Tally::default()
        }
    }

    /// The train is over.
    pub(super) fn add(&mut self, tally: Tally) {
        if let Some(limit) = tally.limit
            && let Some(allocation) = self.allocations.get_mut(limit.client)
        {
            allocation.budget = limit.budget;
        }
        self.counters.drops.over_limit += tally.over_limit;
        self.counters.relayed_packets += tally.packets;
        self.counters.relayed_bytes += tally.bytes;
        self.counters.hairpinned_bytes += tally.hairpinned;
    }
}

impl Tally {
    /// Whether a payload is within what the allocation may relay.
    #[inline]
    pub(super) fn admits(&mut self, payload: &[u8]) -> bool {
        let Some(limit) = &mut self.limit else {
            return true;
        };
        let admits = limit.budget.take(payload.len(), limit.rate, limit.now);
        self.over_limit += u64::from(!admits);
        admits
    }

    /// A payload is relayed.
    #[inline]
    pub(super) fn count(&mut self, payload: &[u8]) {
        self.packets += 1;
        self.bytes += payload.len() as u64;
    }

    /// A payload goes to another allocation of this relay.
    pub(super) fn count_hairpinned(&mut self, payload: &[u8]) {
        self.hairpinned += payload.len() as u64;
    }
}

/// Largest payload that reaches a client with a channel header in front.
pub(super) fn max_framed(client: ClientSocket) -> usize {
    let udp = match family_of(client.ip()) {
        connlib_stun::Family::V4 => MAX_UDP_PAYLOAD_V4,
        connlib_stun::Family::V6 => MAX_UDP_PAYLOAD_V6,
    };
    udp - channel::HEADER_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(len: usize, segment_size: usize) -> Vec<usize> {
        let bytes = vec![0; len];
        let train = Train::new(&bytes, segment_size);
        train.datagrams().map(<[u8]>::len).collect()
    }

    #[test]
    fn trains_are_cut_into_datagrams() {
        assert_eq!(cut(250, 100), [100, 100, 50]);
        assert_eq!(cut(200, 100), [100, 100]);
        assert_eq!(cut(50, 100), [50]);
        assert_eq!(cut(50, 0), [50]);
        assert_eq!(cut(0, 0), [0]);
        assert_eq!(Train::single(&[]).datagrams().count(), 1);
    }
}
