//! Client and gateway, whole: from the TUN device's buffer to the send buffer, and from a datagram to the TUN device.

use std::hint::black_box;
use std::net::SocketAddr;

use connlib_tunnel::segment::{Coalescer, Coalescing};
use connlib_tunnel::{DatagramSink, Train, TunPacket};
use ip_packet::Ecn;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    case::Round,
    packets::{self, Super},
    world::{Datagram, Path, Sent, World, client_socket, gateway_socket},
};

/// Who works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Gateway,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Gateway,
            Self::Gateway => Self::Client,
        }
    }

    fn socket(self, client: usize) -> SocketAddr {
        match self {
            Self::Client => client_socket(client),
            Self::Gateway => gateway_socket(),
        }
    }

    /// What this end's TUN device yields, from or for a client.
    fn super_packet(self, client: usize, count: usize) -> Super {
        match self {
            Self::Client => packets::up(client, count, 0),
            Self::Gateway => packets::down(client, count, 0),
        }
    }

    fn handle_tun(
        self,
        world: &mut World,
        client: usize,
        packet: TunPacket<'_>,
        sink: &mut impl DatagramSink,
    ) {
        let now = world.now;
        match self {
            Self::Client => world.clients[client].handle_tun(packet, now, sink),
            Self::Gateway => world.gateway.handle_tun(packet, now, sink),
        }
    }

    fn handle_network(
        self,
        world: &mut World,
        client: usize,
        received: &Received<'_>,
        out: &mut Coalescer,
    ) {
        let Received {
            from,
            to,
            mut train,
        } = *received;
        let (ecn, now) = (Ecn::NotEct, world.now);
        let train = &mut train;
        match self {
            Self::Client => world.clients[client].handle_train(to, from, ecn, train, now, out),
            Self::Gateway => world.gateway.handle_train(to, from, ecn, train, now, out),
        }
    }
}

/// Datagrams in a receive buffer.
struct Received<'a> {
    from: SocketAddr,
    to: SocketAddr,
    train: Train<'a>,
}

/// A send buffer: slots one behind the other, as the runtime's queue has them.
struct SendBuffer {
    bytes: Vec<u8>,
    used: usize,
    datagrams: usize,
}

impl DatagramSink for SendBuffer {
    #[inline]
    fn reserve(&mut self, _: Option<SocketAddr>, _: SocketAddr, _: Ecn, len: usize) -> &mut [u8] {
        &mut self.bytes[self.used..self.used + len]
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        self.used += len;
        self.datagrams += 1;
    }
}

/// One super-packet from or for a client, sealed by an end.
pub(crate) fn seal(world: &mut World, end: End, client: usize, packets: usize) -> Vec<Datagram> {
    let mut packet = end.super_packet(client, packets);
    let packet = TunPacket {
        buf: &mut packet.bytes,
        gso: packet.gso,
    };
    let mut sent = Sent::default();
    end.handle_tun(world, client, packet, &mut sent);
    sent.datagrams(end.socket(client))
}

/// Whose packet comes next.
struct Turns {
    /// One of so many, the first of which begins.
    clients: usize,
    now: usize,
    random: SmallRng,
}

impl Turns {
    /// Always the first one's.
    fn first() -> Self {
        Self::among(1)
    }

    fn among(clients: usize) -> Self {
        Self {
            clients,
            now: 0,
            random: SmallRng::seed_from_u64(1),
        }
    }

    fn next(&mut self) -> usize {
        self.now = self.random.random_range(0..self.clients);
        self.now
    }
}

/// TUN device to datagrams.
pub(crate) struct Up {
    world: World,
    end: End,
    turns: Turns,
    template: Super,
    buffer: Vec<u8>,
    sink: SendBuffer,
    packets: usize,
}

impl Up {
    pub(crate) fn new(
        end: End,
        path: Path,
        packets: usize,
        clients: usize,
        resources: usize,
    ) -> Self {
        let template = end.super_packet(0, packets);
        Self {
            world: World::connected(path, clients, resources),
            end,
            turns: Turns::first(),
            buffer: template.bytes.clone(),
            template,
            sink: SendBuffer {
                bytes: vec![0; 128 * 1024],
                used: 0,
                datagrams: packets,
            },
            packets,
        }
    }

    /// Packets for any of the clients instead of the first one.
    pub(crate) fn for_anyone(mut self) -> Self {
        self.turns = Turns::among(self.world.clients.len());
        self
    }
}

impl Round for Up {
    fn prepare(&mut self) {
        assert_eq!(
            self.sink.datagrams, self.packets,
            "not everything was sealed"
        );
        self.sink.used = 0;
        self.sink.datagrams = 0;
        let former = self.turns.now;
        if self.turns.next() != former {
            self.template = self.end.super_packet(self.turns.now, self.packets);
        }
        self.buffer.copy_from_slice(&self.template.bytes);
    }

    fn work(&mut self) {
        let packet = TunPacket {
            buf: &mut self.buffer,
            gso: self.template.gso,
        };
        let client = self.turns.now;
        self.end
            .handle_tun(&mut self.world, client, packet, &mut self.sink);
    }
}

/// Datagrams to the TUN device.
pub(crate) struct Down {
    world: World,
    end: End,
    turns: Turns,
    /// Of the super-packet, in bytes.
    len: usize,
    /// Datagrams one behind the other, as the kernel hands over those that it merged.
    buffer: Vec<u8>,
    /// Length of each.
    stride: usize,
    /// Sender and receiver of all of them.
    ends: (SocketAddr, SocketAddr),
    coalescer: Coalescer,
    packets: usize,
    opened: usize,
}

impl Down {
    pub(crate) fn new(
        end: End,
        path: Path,
        packets: usize,
        clients: usize,
        resources: usize,
    ) -> Self {
        let mut this = Self {
            world: World::connected(path, clients, resources),
            end,
            turns: Turns::first(),
            len: end.other().super_packet(0, packets).bytes.len(),
            buffer: Vec::new(),
            stride: 0,
            ends: (end.other().socket(0), end.socket(0)),
            coalescer: Coalescer::new(Coalescing::ON),
            packets,
            opened: 0,
        };
        this.opened = this.len;
        if end == End::Client {
            // The gateway answers on a connection that the client has used.
            for datagram in seal(&mut this.world, End::Client, 0, 1) {
                for Datagram { from, to, bytes } in this.arriving(datagram) {
                    let train = Train::single(&bytes);
                    let received = Received { from, to, train };
                    End::Gateway.handle_network(&mut this.world, 0, &received, &mut this.coalescer);
                }
            }
            assert_eq!(this.coalescer.drain().count(), 1);
        }
        this
    }

    /// Packets of any of the clients instead of the first one. For the gateway, which waits for nobody to speak first.
    pub(crate) fn of_anyone(mut self) -> Self {
        self.turns = Turns::among(self.world.clients.len());
        self
    }

    /// A datagram as it arrives, through the relay if it is addressed to it.
    fn arriving(&mut self, datagram: Datagram) -> Vec<Datagram> {
        let client = self.turns.now;
        let is_direct = [client_socket(client), gateway_socket()].contains(&datagram.to);
        match is_direct {
            true => vec![datagram],
            false => self.world.relay(&datagram),
        }
    }
}

impl Round for Down {
    fn prepare(&mut self) {
        assert_eq!(self.opened, self.len, "not everything was opened");
        self.opened = 0;
        let client = self.turns.next();
        let sent = seal(&mut self.world, self.end.other(), client, self.packets);
        self.buffer.clear();
        for datagram in sent {
            for Datagram { from, to, bytes } in self.arriving(datagram) {
                self.ends = (from, to);
                self.stride = bytes.len();
                self.buffer.extend_from_slice(&bytes);
            }
        }
        assert_eq!(
            self.buffer.len(),
            self.packets * self.stride,
            "not everything was sealed"
        );
    }

    fn work(&mut self) {
        let (from, to) = self.ends;
        let train = Train::new(&self.buffer, self.stride);
        let received = Received { from, to, train };
        let client = self.turns.now;
        self.end
            .handle_network(&mut self.world, client, &received, &mut self.coalescer);
        for item in self.coalescer.drain() {
            self.opened += black_box(item).1.len();
        }
    }
}
