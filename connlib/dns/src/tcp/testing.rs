//! The other end of a connection, and a wire between the two, for tests.

use super::stack::{Stack, endpoint};
use ip_packet::{IpPacket, PacketRef};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A program with one TCP socket.
pub(super) struct Peer {
    stack: Stack,
    handle: SocketHandle,
}

impl Peer {
    /// Connects from `local` to `remote`.
    pub(super) fn connect(local: &str, remote: &str, now: Instant) -> Self {
        let mut peer = Self::closed(now);
        assert!(peer.stack.connect(peer.handle, addr(local), addr(remote)));
        peer
    }

    /// Waits for a connection.
    pub(super) fn listen(local: &str, now: Instant) -> Self {
        let mut peer = Self::closed(now);
        peer.socket().listen(endpoint(addr(local))).unwrap();
        peer
    }

    /// Refuses every connection.
    pub(super) fn closed(now: Instant) -> Self {
        let mut stack = Stack::new(7, now);
        let handle = stack.add_socket();
        Self { stack, handle }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.stack.socket(self.handle)
    }

    pub(super) fn state(&mut self) -> State {
        self.socket().state()
    }

    /// Sends these messages in one piece.
    pub(super) fn send(&mut self, messages: &[&[u8]]) {
        let bytes = messages
            .iter()
            .flat_map(|message| framed(message))
            .collect::<Vec<_>>();
        self.send_raw(&bytes);
    }

    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        assert_eq!(self.socket().send_slice(bytes), Ok(bytes.len()));
    }

    /// The next complete message.
    pub(super) fn message(&mut self) -> Option<Vec<u8>> {
        super::framing::read_message(self.socket()).unwrap()
    }
}

/// Something that takes and gives packets.
pub(super) trait Node {
    fn give(&mut self, packet: PacketRef<'_>, now: Instant);
    fn take(&mut self, now: Instant) -> Option<IpPacket>;
    fn wake(&mut self, now: Instant);
    fn next_wake(&self) -> Option<Instant>;
}

impl Node for Peer {
    fn give(&mut self, packet: PacketRef<'_>, now: Instant) {
        self.stack.receive(packet);
        self.stack.poll(now);
    }

    fn take(&mut self, now: Instant) -> Option<IpPacket> {
        self.stack.poll(now);
        self.stack.next_packet()
    }

    fn wake(&mut self, now: Instant) {
        self.stack.poll(now);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.stack.next_poll()
    }
}

impl Node for super::Server {
    fn give(&mut self, packet: PacketRef<'_>, now: Instant) {
        self.handle_packet(packet, now);
    }

    fn take(&mut self, _: Instant) -> Option<IpPacket> {
        self.poll_packet()
    }

    fn wake(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.poll_timeout()
    }
}

impl Node for super::Client {
    fn give(&mut self, packet: PacketRef<'_>, now: Instant) {
        self.handle_packet(packet, now);
    }

    fn take(&mut self, _: Instant) -> Option<IpPacket> {
        self.poll_packet()
    }

    fn wake(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.poll_timeout()
    }
}

/// Carries packets both ways until neither end has any; checks each.
pub(super) fn exchange(a: &mut impl Node, b: &mut impl Node, now: Instant) {
    lossy_exchange(a, b, now, |_| false);
}

/// As [`exchange`], losing the packets for whose number `lost` is true.
pub(super) fn lossy_exchange(
    a: &mut impl Node,
    b: &mut impl Node,
    now: Instant,
    mut lost: impl FnMut(usize) -> bool,
) {
    let mut count = 0;
    loop {
        let (from_a, from_b) = (a.take(now), b.take(now));
        if from_a.is_none() && from_b.is_none() {
            return;
        }
        for (packet, is_from_a) in [(from_a, true), (from_b, false)] {
            let Some(packet) = packet else { continue };
            assert!(packet.has_valid_checksums());
            assert!(packet.as_tcp().is_some());
            count += 1;
            assert!(count < 10_000, "no end");
            if lost(count) {
                continue;
            }
            if is_from_a {
                b.give(packet.view(), now);
            } else {
                a.give(packet.view(), now);
            }
        }
    }
}

/// Lets time pass for both ends, exchanging at each deadline, until `end`.
pub(super) fn run_until(a: &mut impl Node, b: &mut impl Node, mut now: Instant, end: Instant) {
    exchange(a, b, now);
    for _ in 0..10_000 {
        let next = [a.next_wake(), b.next_wake()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(end);
        now = next.max(now).min(end);
        a.wake(now);
        b.wake(now);
        exchange(a, b, now);
        if now == end {
            return;
        }
    }
    panic!("deadlines do not advance");
}

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// A query of any length from 12 bytes.
pub(super) fn query(id: u16, len: usize) -> Vec<u8> {
    let mut message = vec![0xab; len];
    message[..12].copy_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message[..2].copy_from_slice(&id.to_be_bytes());
    message
}

/// A response of any length from 12 bytes.
pub(super) fn response(id: u16, len: usize) -> Vec<u8> {
    let mut message = query(id, len);
    message[2] = 0x81;
    message
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
