//! The relay: a train of datagrams that arrived together, each passed on.

use std::hint::black_box;

use relay_core::{AllocationPort, Forwarder, Route, Train};

use crate::{
    case::{BATCH, Round},
    tunnel::{End, seal},
    world::{Datagram, Path, World},
};

/// Counts, and looks at nothing.
#[derive(Default)]
struct Count(usize);

impl Forwarder for Count {
    #[inline]
    fn forward(&mut self, route: Route, payload: &[u8]) {
        black_box((route, payload));
        self.0 += 1;
    }
}

/// One direction of a connection through the relay.
pub(crate) struct Relay {
    world: World,
    first: Datagram,
    train: Vec<u8>,
    forwarded: Count,
}

impl Relay {
    /// Channel data in, plain datagrams out.
    pub(crate) fn to_peer() -> Self {
        Self::new(End::Client)
    }

    /// Plain datagrams in, channel data out.
    pub(crate) fn to_client() -> Self {
        Self::new(End::Gateway)
    }

    fn new(sender: End) -> Self {
        let mut world = World::connected(Path::ClientChannel, 1, 1);
        let sealed = seal(&mut world, sender, 0, BATCH);
        Self {
            world,
            first: sealed[0].clone(),
            train: sealed
                .into_iter()
                .flat_map(|datagram| datagram.bytes)
                .collect(),
            forwarded: Count(BATCH),
        }
    }
}

impl Round for Relay {
    fn prepare(&mut self) {
        assert_eq!(self.forwarded.0, BATCH, "not everything was passed on");
        self.forwarded.0 = 0;
    }

    fn work(&mut self) {
        let Datagram { from, to, bytes } = &self.first;
        let train = Train::new(&self.train, bytes.len());
        let (relay, now) = (&mut self.world.relays[0], self.world.now);
        match to.port() {
            3478 => relay.handle_client_input(*from, train, now, &mut self.forwarded),
            port => {
                let port = AllocationPort::new(port);
                relay.handle_peer_input(port, *from, train, now, &mut self.forwarded);
            }
        }
    }
}
