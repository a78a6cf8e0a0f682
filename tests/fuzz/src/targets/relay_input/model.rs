//! A relay without tables, timers and messages: who has which port, and which channel leads where.
//!
//! It learns from the relay's own success replies, so it does not decide who gets what, but holds the relay to its word.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_stun::{
    ChannelRange, Class, Envelope, Indication, Outcome, Request, RequestBody, Response, Success,
};
use relay_core::{Config, Profile, PublicAddresses, Route};

use super::world::channel_data;

const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// What the relay has promised.
#[derive(Debug, Clone)]
pub(super) struct Model {
    now: Instant,
    profile: Profile,
    range: ChannelRange,
    public: PublicAddresses,
    /// Port by client.
    allocations: BTreeMap<SocketAddr, u16>,
    /// Peer and time of the last bind, by client and number.
    channels: BTreeMap<(SocketAddr, u16), (SocketAddr, Instant)>,
    /// Time of the last request, by client and peer address.
    permissions: BTreeMap<(SocketAddr, IpAddr), Instant>,
}

impl Model {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            now,
            profile: config.profile,
            range: config.channel_numbers,
            public: config.public,
            allocations: BTreeMap::new(),
            channels: BTreeMap::new(),
            permissions: BTreeMap::new(),
        }
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    pub(super) fn allocations(&self) -> usize {
        self.allocations.len()
    }

    #[cfg(test)]
    pub(super) fn port_of(&self, client: SocketAddr) -> Option<u16> {
        self.allocations.get(&client).copied()
    }

    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.allocations.values().copied().collect()
    }

    /// Channels that relay.
    pub(super) fn channels(&self) -> usize {
        let alive = self.channels.values().filter(|(_, at)| self.is_bound(*at));
        alive.count()
    }

    /// The allocation on this port is gone, with all that belongs to it.
    pub(super) fn free(&mut self, port: u16) {
        let client = self.allocations.iter().find(|(_, it)| **it == port);
        let Some(client) = client.map(|(client, _)| *client) else {
            return;
        };
        self.allocations.remove(&client);
        self.channels.retain(|(owner, _), _| *owner != client);
        self.permissions.retain(|(owner, _), _| *owner != client);
    }

    /// Takes the relay at its word.
    pub(super) fn learn(&mut self, client: SocketAddr, request: &Request, reply: &[u8]) {
        let envelope = Envelope::parse(reply).expect("the relay speaks STUN");
        let response = Response::decode(&envelope).expect("the relay's replies can be read");
        let Outcome::Success(success) = response.outcome else {
            return;
        };
        let now = self.now;
        match (success, &request.body) {
            (
                Success::Allocate {
                    relayed, lifetime, ..
                },
                _,
            ) => {
                assert!(lifetime.is_some_and(|it| it <= 3600));
                self.allocations.insert(client, relayed[0].port());
            }
            (Success::ChannelBind, RequestBody::ChannelBind(bind)) => {
                let (number, peer) = (bind.number.expect("granted"), bind.peer.expect("granted"));
                self.channels.insert((client, number.get()), (peer, now));
                self.permissions.insert((client, peer.ip()), now);
            }
            (Success::CreatePermission, RequestBody::CreatePermission(permission)) => {
                for peer in &permission.peers {
                    self.permissions.insert((client, peer.ip()), now);
                }
            }
            (Success::Refresh { .. } | Success::Binding { .. }, _) => {}
            (success, body) => panic!("{success:?} in answer to {body:?}"),
        }
    }

    /// Messages that are no replies.
    pub(super) fn indications(&self, messages: &[(SocketAddr, Vec<u8>)]) -> usize {
        let class = |bytes: &[u8]| Envelope::parse(bytes).map(|it| it.class());
        messages
            .iter()
            .filter(|(_, bytes)| class(bytes) == Ok(Class::Indication))
            .count()
    }

    /// Whether a client's datagram may have led to this.
    pub(super) fn may_forward(
        &self,
        client: SocketAddr,
        datagram: &[u8],
        route: Route,
        payload: &[u8],
    ) -> bool {
        let Some(port) = self.allocations.get(&client) else {
            return false;
        };
        let (peer, data) = match (channel_data(datagram, self.range), sent_data(datagram)) {
            (Some(data), _) => match self.bound_to(client, data.number.get()) {
                Some(peer) => (peer, data.payload.to_vec()),
                None => return false,
            },
            (None, Some((peer, data))) if self.permits(client, peer) => (peer, data),
            _ => return false,
        };
        let leads_there = match route {
            Route::ToPeer {
                port: from,
                peer: to,
            } => from.get() == *port && to.address() == peer,
            Route::ToClient { client: to, number } => {
                let relayed = SocketAddr::new(peer.ip(), *port);
                self.is_own(peer.ip())
                    && self.allocations.get(&to.address()) == Some(&peer.port())
                    && self.bound_to(to.address(), number.get()) == Some(relayed)
            }
            Route::ToSibling { .. } => panic!("delivered by the workers"),
        };
        leads_there && data == payload
    }

    /// Whether a client's datagram must be passed on.
    pub(super) fn owes(&self, client: SocketAddr, datagram: &[u8]) -> bool {
        let Some(data) = channel_data(datagram, self.range) else {
            return false;
        };
        let peer = self.bound_to(client, data.number.get());
        peer.is_some_and(|peer| !self.is_own(peer.ip()))
    }

    /// Whether a peer's datagram must be passed on by a channel.
    pub(super) fn owes_from(&self, port: u16, peer: SocketAddr) -> bool {
        let mut channels = self.channels.iter();
        channels.any(|((client, _), (to, at))| {
            *to == peer && self.is_bound(*at) && self.allocations.get(client) == Some(&port)
        })
    }

    /// Whether a peer's datagram may take this way.
    pub(super) fn may_deliver(&self, port: u16, peer: SocketAddr, route: Route) -> bool {
        let Route::ToClient { client, number } = route else {
            return false;
        };
        let client = client.address();
        self.allocations.get(&client) == Some(&port)
            && self.bound_to(client, number.get()) == Some(peer)
    }

    /// Whether a peer's datagram may reach a client without a channel.
    pub(super) fn may_indicate(&self, port: u16, peer: SocketAddr, to: SocketAddr) -> bool {
        self.allocations.get(&to) == Some(&port) && self.permits(to, peer)
    }

    fn permits(&self, client: SocketAddr, peer: SocketAddr) -> bool {
        let at = self.permissions.get(&(client, peer.ip()));
        self.profile == Profile::Open && at.is_some_and(|at| self.now - *at < PERMISSION_LIFETIME)
    }

    fn bound_to(&self, client: SocketAddr, number: u16) -> Option<SocketAddr> {
        let (peer, at) = self.channels.get(&(client, number))?;
        self.is_bound(*at).then_some(*peer)
    }

    fn is_bound(&self, at: Instant) -> bool {
        self.now - at < CHANNEL_LIFETIME
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.public.iter().any(|own| own == ip)
    }
}

/// Peer and data of a Send indication.
fn sent_data(datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
    let envelope = Envelope::parse(datagram).ok()?;
    match Indication::decode(&envelope).ok()? {
        Indication::Send { peer, data } => Some((peer, data)),
        Indication::Data { .. } => None,
    }
}

/// Addresses that a relay with public addresses of its own never sends to (relay spec §6.2), written down once more.
pub(super) fn is_forbidden(ip: IpAddr) -> bool {
    let v4 = |ip: Ipv4Addr| {
        let [a, b, ..] = ip.octets();
        matches!((a, b), (0 | 10 | 127 | 224.., _) | (169, 254) | (192, 168))
            || matches!((a, b), (172, 16..=31) | (100, 64..=127))
    };
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.segments() {
            [0, 0, 0, 0, 0, 0 | 0xffff, ..] => true,
            [0xfc00..=0xfdff | 0xfe80..=0xfebf | 0xff00.., ..] => true,
            [0x64, 0xff9b, 0, 0, 0, 0, a, b] => v4((u32::from(a) << 16 | u32::from(b)).into()),
            [0x2002, a, b, ..] => v4((u32::from(a) << 16 | u32::from(b)).into()),
            _ => false,
        },
    }
}
