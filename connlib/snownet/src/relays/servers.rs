//! Sockets of relays: the ones we use, and the ones we used.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// Most remembered sockets of former relays. Late traffic of a relay that is gone stops within minutes; two relays with two
/// sockets each, changed sixteen times, fit.
const MAX_FORMER: usize = 64;

/// What the sender of a datagram is to us, judged by its address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A relay in use.
    Relay,
    /// A relay that we no longer use: its STUN and channel data are swallowed.
    FormerRelay,
    /// Anybody else. Its datagrams may look like a relay's and mean something else.
    Unknown,
}

/// Relay sockets. A handful, so a list is the fastest map.
#[derive(Default)]
pub(super) struct Servers<R> {
    current: Vec<(SocketAddr, R)>,
    former: VecDeque<SocketAddr>,
}

impl<R: Copy + PartialEq> Servers<R> {
    pub(super) fn new() -> Self {
        Self {
            current: Vec::new(),
            former: VecDeque::new(),
        }
    }

    pub(super) fn insert(&mut self, relay: R, sockets: impl Iterator<Item = SocketAddr>) {
        self.current.extend(sockets.map(|socket| (socket, relay)));
    }

    /// The relay is no longer used; its sockets are remembered.
    pub(super) fn retire(&mut self, relay: R) {
        let (retired, current) = self.current.iter().partition(|(_, id)| *id == relay);
        self.current = current;
        let retired: Vec<(SocketAddr, R)> = retired;
        for (socket, _) in retired {
            self.former.retain(|known| *known != socket);
            self.former.push_back(socket);
            if self.former.len() > MAX_FORMER {
                self.former.pop_front();
            }
        }
    }

    #[inline]
    pub(super) fn classify(&self, from: SocketAddr) -> Sender {
        if self.current.iter().any(|(socket, _)| *socket == from) {
            Sender::Relay
        } else if self.former.contains(&from) {
            Sender::FormerRelay
        } else {
            Sender::Unknown
        }
    }

    /// Relays that listen on `socket`: one, unless a relay was listed anew under another id.
    #[inline]
    pub(super) fn at(&self, socket: SocketAddr) -> impl Iterator<Item = R> + '_ {
        self.current
            .iter()
            .filter(move |(s, _)| *s == socket)
            .map(|(_, relay)| *relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn snownet_24_former_relays_are_remembered_up_to_a_bound() {
        let mut servers = Servers::new();
        for port in 0..=64 {
            servers.insert(port, [socket(port)].into_iter());
        }
        assert_eq!(servers.classify(socket(0)), Sender::Relay);
        for port in 0..=64 {
            servers.retire(port);
        }
        assert_eq!(servers.classify(socket(0)), Sender::Unknown);
        assert_eq!(servers.classify(socket(1)), Sender::FormerRelay);
        assert_eq!(servers.former.len(), MAX_FORMER);
    }

    #[test]
    fn a_relay_that_returns_is_current_again() {
        let mut servers = Servers::new();
        servers.insert('a', [socket(1)].into_iter());
        servers.retire('a');
        servers.insert('b', [socket(1)].into_iter());
        assert_eq!(servers.classify(socket(1)), Sender::Relay);
        assert_eq!(servers.at(socket(1)).collect::<Vec<_>>(), ['b']);
    }
}
