//! What leaves through the UDP sockets: everything in the order in which it was made, but for acknowledgements of TCP.
//!
//! Datagrams leave in trains of one size, and a shorter one ends its train. Where data goes both ways, acknowledgements come
//! out of the TUN device between the super-packets and would cut each train behind the first of them. Each piece costs a
//! system call here, two at a relay and a receive buffer at the other end. So segments that acknowledge and do nothing else
//! wait beside the data until the round is over. An acknowledgement that is overtaken by data, or overtakes it, says the
//! same as before; the order of all others stays, and so does the order of acknowledgements.
//!
//! The other end's replay window bounds how far that may go: the smallest that is known holds the last 1024 packets. A round
//! brings no more than five super-packets, some 270 packets of the usual size.
//!
//! The last train of a round need not leave with it: while the TUN device has more, it grows in the next round.

use std::net::SocketAddr;

use connlib_snownet::{DatagramSink, Transmit};
use connlib_sockets::{Flushed, GsoQueue, Sockets};
use connlib_tunnel::{TunPacket, segment::GsoKind};
use ip_packet::{Ecn, PacketRef};

/// Longest bare acknowledgement (bytes): the longest headers of IPv4 and TCP. IPv6 extension headers are rare.
const MAX_ACK: usize = 60 + 60;

/// The queues, of one data thread.
pub(crate) struct Outgoing {
    data: GsoQueue,
    acks: GsoQueue,
    /// Whether the last train of `data` may wait for more.
    keeps_open: bool,
}

/// Which queue a packet's datagrams go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Data,
    Acks,
}

impl Lane {
    /// The lane of a packet from the TUN device.
    pub(crate) fn of(packet: &TunPacket<'_>) -> Self {
        if packet.gso.kind != GsoKind::None || packet.buf.len() > MAX_ACK {
            return Self::Data;
        }
        let tcp = PacketRef::parse(packet.buf)
            .ok()
            .and_then(PacketRef::as_tcp);
        match tcp {
            Some(tcp) if tcp.is_bare_ack() => Self::Acks,
            Some(_) | None => Self::Data,
        }
    }
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            data: GsoQueue::new(),
            acks: GsoQueue::new(),
            keeps_open: false,
        }
    }

    /// Lets the state machine seal straight into a queue.
    pub(crate) fn sink(&mut self, lane: Lane) -> Sink<'_> {
        Sink(match lane {
            Lane::Data => &mut self.data,
            Lane::Acks => &mut self.acks,
        })
    }

    /// Queues a datagram that the state machine made itself.
    pub(crate) fn push(&mut self, transmit: &Transmit) {
        self.data
            .push(transmit.src, transmit.dst, transmit.ecn, &transmit.payload);
    }

    /// How many datagrams of data were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.data.written()
    }

    /// Whether [`Self::flush`] leaves the last train behind, because more will be written or flushed soon. Does not last:
    /// who says so repeats it each round, and not if nothing was written meanwhile.
    pub(crate) fn keep_open(&mut self, is_kept: bool) {
        self.keeps_open = is_kept;
    }

    /// In the middle of a round: sends the trains that cannot grow. Whether everything that is to leave did.
    pub(crate) fn flush_ready(&mut self, sockets: &mut Sockets) -> bool {
        self.data.flush_ready(sockets).is_complete()
    }

    /// At the end of a round. Whether everything that is to leave did.
    pub(crate) fn flush(&mut self, sockets: &mut Sockets) -> bool {
        // Senders wait for acknowledgements; nobody waits for the end of a train.
        let acks = self.acks.flush(sockets);
        let data = match self.keeps_open {
            true => self.data.flush_ready(sockets),
            false => self.data.flush(sockets),
        };
        [acks, data].into_iter().all(Flushed::is_complete)
    }

    /// Whether more should be written only after a flush.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.data.is_nearly_full() || self.acks.is_nearly_full()
    }

    /// Forgets everything that waits, because the sockets are new.
    pub(crate) fn clear(&mut self) {
        self.data.clear();
        self.acks.clear();
    }
}

/// One lane, as the state machine sees it.
pub(crate) struct Sink<'a>(&'a mut GsoQueue);

impl DatagramSink for Sink<'_> {
    fn reserve(
        &mut self,
        src: Option<SocketAddr>,
        dst: SocketAddr,
        ecn: Ecn,
        len: usize,
    ) -> &mut [u8] {
        self.0.reserve(src, dst, ecn, len)
    }

    fn commit(&mut self, len: usize) {
        self.0.commit(len);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use connlib_sockets::SocketOptions;
    use connlib_tunnel::segment::GsoMeta;
    use ip_packet::{
        IpPacket, TcpFlags,
        make::{TcpHeader, tcp_packet, udp_packet},
    };

    use super::*;

    const FULL: usize = 1312;
    const SMALL: usize = 84;

    /// Our sockets, and one that they send to.
    struct Wire {
        sockets: Sockets,
        other: UdpSocket,
    }

    impl Wire {
        fn new() -> Self {
            let other = UdpSocket::bind("127.0.0.1:0").unwrap();
            other
                .set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            Self {
                sockets: Sockets::bind(SocketOptions::default()).unwrap(),
                other,
            }
        }

        fn write(&self, outgoing: &mut Outgoing, lane: Lane, len: usize, count: usize) {
            let to = self.other.local_addr().unwrap();
            for _ in 0..count {
                let mut sink = outgoing.sink(lane);
                sink.reserve(None, to, Ecn::NotEct, len).fill(0);
                sink.commit(len);
            }
        }

        /// Sizes of what has arrived, equal neighbours counted.
        fn arrived(&self) -> Vec<(usize, usize)> {
            let mut sizes: Vec<(usize, usize)> = Vec::new();
            let mut buffer = [0; 2048];
            while let Ok(len) = self.other.recv(&mut buffer) {
                match sizes.last_mut() {
                    Some((last, count)) if *last == len => *count += 1,
                    Some(_) | None => sizes.push((len, 1)),
                }
            }
            sizes
        }
    }

    fn lane(packet: &IpPacket) -> Lane {
        Lane::of(&TunPacket {
            buf: &mut packet.as_slice().to_vec(),
            gso: GsoMeta::NONE,
        })
    }

    fn tcp(source: &str, flags: TcpFlags, payload: &[u8]) -> IpPacket {
        let source: SocketAddr = source.parse().unwrap();
        let header = TcpHeader {
            flags,
            // The most room for selective acknowledgements.
            options: &[1; 40],
            ..TcpHeader::default()
        };
        tcp_packet(source, SocketAddr::new(source.ip(), 80), header, payload).unwrap()
    }

    #[test]
    fn only_bare_acknowledgements_leave_the_order() {
        for source in ["192.0.2.1:1000", "[2001:db8::1]:1000"] {
            for flags in [
                TcpFlags::ACK,
                TcpFlags::ACK | TcpFlags::ECE,
                TcpFlags::ACK | TcpFlags::PSH,
            ] {
                assert_eq!(lane(&tcp(source, flags, b"")), Lane::Acks, "{flags:?}");
                assert_eq!(lane(&tcp(source, flags, b"x")), Lane::Data, "{flags:?}");
            }
            for flags in [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST, TcpFlags::NONE] {
                assert_eq!(lane(&tcp(source, flags, b"")), Lane::Data, "{flags:?}");
            }
            for flags in [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST] {
                let flags = flags | TcpFlags::ACK;
                assert_eq!(lane(&tcp(source, flags, b"")), Lane::Data, "{flags:?}");
            }
        }
        let (a, b) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
        assert_eq!(lane(&udp_packet(a, b, b"").unwrap()), Lane::Data);
    }

    #[test]
    fn what_is_no_packet_is_data() {
        for bytes in [&[][..], &[0x45], &[0xff; 40]] {
            let packet = TunPacket {
                buf: &mut bytes.to_vec(),
                gso: GsoMeta::NONE,
            };
            assert_eq!(Lane::of(&packet), Lane::Data);
        }
    }

    #[test]
    fn acknowledgements_do_not_cut_trains() {
        let mut wire = Wire::new();
        let mut outgoing = Outgoing::new();
        for _ in 0..3 {
            wire.write(&mut outgoing, Lane::Data, FULL, 30);
            wire.write(&mut outgoing, Lane::Acks, SMALL, 1);
            assert!(outgoing.flush_ready(&mut wire.sockets));
        }
        assert_eq!(wire.arrived(), [(FULL, 49)], "one full train so far");

        assert!(outgoing.flush(&mut wire.sockets));
        assert_eq!(wire.arrived(), [(SMALL, 3), (FULL, 41)]);
    }

    #[test]
    fn the_last_train_waits_only_while_it_is_told_to() {
        let mut wire = Wire::new();
        let mut outgoing = Outgoing::new();
        wire.write(&mut outgoing, Lane::Data, FULL, 10);
        wire.write(&mut outgoing, Lane::Acks, SMALL, 1);
        outgoing.keep_open(true);
        assert!(outgoing.flush(&mut wire.sockets), "nothing is held up");
        assert_eq!(wire.arrived(), [(SMALL, 1)]);

        // What cannot join the train lets it go.
        wire.write(&mut outgoing, Lane::Data, SMALL, 1);
        assert!(outgoing.flush(&mut wire.sockets));
        assert_eq!(wire.arrived(), [(FULL, 10), (SMALL, 1)]);

        wire.write(&mut outgoing, Lane::Data, FULL, 10);
        assert!(outgoing.flush(&mut wire.sockets));
        assert_eq!(wire.arrived(), []);
        outgoing.keep_open(false);
        assert!(outgoing.flush(&mut wire.sockets));
        assert_eq!(wire.arrived(), [(FULL, 10)]);
    }

    #[test]
    fn nothing_is_left_after_a_change_of_sockets() {
        let mut wire = Wire::new();
        let mut outgoing = Outgoing::new();
        wire.write(&mut outgoing, Lane::Data, FULL, 1);
        wire.write(&mut outgoing, Lane::Acks, SMALL, 1);
        outgoing.clear();
        assert!(outgoing.flush(&mut wire.sockets));
        assert_eq!(wire.arrived(), []);
    }

    #[test]
    fn what_was_written_counts_and_what_was_taken_back_does_not() {
        let wire = Wire::new();
        let mut outgoing = Outgoing::new();
        wire.write(&mut outgoing, Lane::Data, FULL, 2);
        wire.write(&mut outgoing, Lane::Acks, SMALL, 1);
        assert_eq!(outgoing.written(), 2);
        let to = wire.other.local_addr().unwrap();
        let mut sink = outgoing.sink(Lane::Data);
        sink.reserve(None, to, Ecn::NotEct, FULL);
        sink.commit(0);
        assert_eq!(outgoing.written(), 2);
    }
}
