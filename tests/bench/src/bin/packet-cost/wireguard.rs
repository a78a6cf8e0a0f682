//! One WireGuard peer: the engine with its timers, without routing and paths.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use connlib_wireguard::{
    DATA_OVERHEAD, IndexTable, Opened, Peer, PeerConfig, PrivateKey, Role, SealSink, WallClock,
};
use ip_packet::PacketBatch;

use crate::{
    case::{BATCH, Round},
    packets::{self, PACKET},
};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The same packet, several times.
struct Repeat<'a> {
    packet: &'a [u8],
    left: usize,
}

impl PacketBatch for Repeat<'_> {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(self.packet)
    }
}

/// Slots of one send buffer, one behind the other.
struct Slots {
    bytes: Vec<u8>,
    used: usize,
}

impl SealSink for Slots {
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.used..self.used + len]
    }

    fn commit(&mut self, len: usize) {
        self.used += len;
    }
}

/// Two peers with a session.
struct Pair {
    initiator: Peer,
    responder: Peer,
    packet: Vec<u8>,
    slots: Slots,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let keys = [[1; 32], [2; 32]].map(PrivateKey::from_seed);
        let mut indices = IndexTable::new([3; 32]);
        let mut make = |role, own: usize| {
            let config = PeerConfig {
                role,
                private: &keys[own],
                remote: keys[1 - own].public(),
                psk: [4; 32],
                indices: indices.allocate().expect("the table is empty"),
                clock: WallClock::new(now, Duration::ZERO),
                seed: [5; 32],
            };
            let mut peer = Peer::new(config, now);
            peer.path_ready(now);
            peer
        };
        let (mut initiator, mut responder) = (make(Role::Initiator, 0), make(Role::Responder, 1));
        let mut out = [0; 2048];
        for _ in 0..3 {
            while let Some(datagram) = initiator.poll_transmit() {
                let opened = responder.open(datagram.bytes, FROM, now, &mut out);
                opened.expect("a handshake");
            }
            while let Some(datagram) = responder.poll_transmit() {
                let opened = initiator.open(datagram.bytes, FROM, now, &mut out);
                opened.expect("a handshake");
            }
        }
        Self {
            initiator,
            responder,
            packet: packets::up(0, 1, 0).bytes,
            slots: Slots {
                bytes: vec![0; BATCH * (PACKET + DATA_OVERHEAD)],
                used: 0,
            },
            now,
        }
    }

    fn seal(&mut self) {
        self.slots.used = 0;
        let mut batch = Repeat {
            packet: &self.packet,
            left: BATCH,
        };
        let sealed = self.initiator.seal(&mut batch, self.now, &mut self.slots);
        assert_eq!(sealed.sent, BATCH);
    }
}

/// Sealing.
pub(crate) struct PeerSeal(Pair);

impl PeerSeal {
    pub(crate) fn new() -> Self {
        Self(Pair::new())
    }
}

impl Round for PeerSeal {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        self.0.seal();
    }
}

/// Opening.
pub(crate) struct PeerOpen(Pair);

impl PeerOpen {
    pub(crate) fn new() -> Self {
        Self(Pair::new())
    }
}

impl Round for PeerOpen {
    fn prepare(&mut self) {
        self.0.seal();
    }

    fn work(&mut self) {
        let Pair {
            responder,
            slots,
            now,
            ..
        } = &mut self.0;
        let mut out = [0; PACKET + DATA_OVERHEAD];
        for datagram in slots.bytes.chunks_exact(PACKET + DATA_OVERHEAD) {
            let opened = responder.open(datagram, FROM, *now, &mut out);
            assert_eq!(opened, Ok(Opened::Packet { len: PACKET }));
        }
    }
}
