//! Receive buffers and the datagrams in them.
//!
//! One call fills up to four buffers of 64 KB; with generic receive offload each holds many datagrams of one sender, cut
//! apart here only as they are asked for.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use ip_packet::Ecn;
use quinn_udp::{RecvMeta, UdpSockRef};

use crate::MAX_DATAGRAM;
use crate::counters::ReceiveCounters;
use crate::udp::UdpSocket;

/// Buffers per call. More bring nothing: a burst of 256 KB is already worth one wake-up.
const BUFFERS: usize = 4;

/// Size of a buffer: the most that the kernel joins.
const BUFFER_BYTES: usize = 64 * 1024;

/// One datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Address and port it was sent to.
    pub local: SocketAddr,
    /// Who sent it.
    pub from: SocketAddr,
    /// Congestion mark of its IP header.
    pub ecn: Ecn,
    /// Its content; at most [`MAX_DATAGRAM`] bytes, never empty.
    pub payload: &'a [u8],
}

/// Memory for one receive call; one per data thread.
pub struct ReceiveBuffers {
    memory: Box<[u8]>,
    meta: [RecvMeta; BUFFERS],
    counters: ReceiveCounters,
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self::new()
    }
}

impl ReceiveBuffers {
    /// Fresh buffers.
    pub fn new() -> Self {
        Self {
            memory: vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            meta: [RecvMeta::default(); BUFFERS],
            counters: ReceiveCounters::default(),
        }
    }

    /// What was received so far.
    pub fn counters(&self) -> ReceiveCounters {
        self.counters
    }

    /// Receives what is there; `None` when nothing is. Call again until then.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<Option<Datagrams<'_>>> {
        let filled = match self.fill(socket) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        self.counters.calls += 1;
        Ok(Some(Datagrams {
            memory: &self.memory,
            meta: &self.meta[..filled],
            port: socket.local_address().port(),
            rest: Rest::default(),
            counters: &mut self.counters,
        }))
    }

    fn fill(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut chunks = self.memory.chunks_exact_mut(BUFFER_BYTES);
        let mut next = || IoSliceMut::new(chunks.next().unwrap_or_default());
        let mut slices: [IoSliceMut<'_>; BUFFERS] = std::array::from_fn(|_| next());
        let state = socket.state();
        state.recv(
            UdpSockRef::from(socket.as_std()),
            &mut slices,
            &mut self.meta,
        )
    }
}

/// The datagrams of one receive call.
pub struct Datagrams<'a> {
    memory: &'a [u8],
    /// Filled buffers that were not looked at yet; the first belongs to the first of `memory`.
    meta: &'a [RecvMeta],
    port: u16,
    rest: Rest<'a>,
    counters: &'a mut ReceiveCounters,
}

/// What is left of the buffer that is being cut apart.
#[derive(Default)]
struct Rest<'a> {
    bytes: &'a [u8],
    stride: usize,
    addresses: Option<(SocketAddr, SocketAddr, Ecn)>,
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Datagram<'a>;

    fn next(&mut self) -> Option<Datagram<'a>> {
        loop {
            let Some((local, from, ecn)) =
                self.rest.addresses.filter(|_| !self.rest.bytes.is_empty())
            else {
                self.open_next_buffer()?;
                continue;
            };
            let (payload, rest) = self
                .rest
                .bytes
                .split_at(self.rest.stride.min(self.rest.bytes.len()));
            self.rest.bytes = rest;
            if payload.len() > MAX_DATAGRAM {
                self.counters.oversized += 1;
                continue;
            }
            self.counters.datagrams += 1;
            self.counters.bytes += payload.len() as u64;
            return Some(Datagram {
                local,
                from,
                ecn,
                payload,
            });
        }
    }
}

impl Datagrams<'_> {
    /// Starts on the next buffer; an unusable one leaves nothing behind. `None` after the last.
    fn open_next_buffer(&mut self) -> Option<()> {
        let (meta, others) = self.meta.split_first()?;
        let (buffer, memory) = self.memory.split_at(BUFFER_BYTES);
        (self.meta, self.memory) = (others, memory);
        self.rest = Rest::default();
        if meta.len == 0 || meta.len > buffer.len() || meta.stride == 0 || meta.stride > meta.len {
            self.counters.malformed += 1;
        } else if let Some(local) = meta.dst_ip {
            let ecn = meta
                .ecn
                .map_or(Ecn::NotEct, |ecn| Ecn::from_bits(ecn as u8));
            self.rest = Rest {
                bytes: &buffer[..meta.len],
                stride: meta.stride,
                addresses: Some((SocketAddr::new(local, self.port), meta.addr, ecn)),
            };
        } else {
            self.counters.no_local_address += 1;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn meta(len: usize, stride: usize) -> RecvMeta {
        let mut meta = RecvMeta::default();
        meta.addr = SocketAddr::from(([192, 0, 2, 1], 9));
        meta.len = len;
        meta.stride = stride;
        meta.dst_ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        meta
    }

    /// Lengths of the datagrams that come out of buffers described by `meta`.
    fn cut(meta: &[RecvMeta]) -> (Vec<usize>, ReceiveCounters) {
        let memory = vec![7; meta.len() * BUFFER_BYTES];
        let mut counters = ReceiveCounters::default();
        let datagrams = Datagrams {
            memory: &memory,
            meta,
            port: 5,
            rest: Rest::default(),
            counters: &mut counters,
        };
        let lengths = datagrams.map(|datagram| datagram.payload.len()).collect();
        (lengths, counters)
    }

    #[test]
    fn tunnel_82_trailing_partial_segment() {
        let (lengths, _) = cut(&[meta(1312 * 2 + 100, 1312), meta(50, 50)]);
        assert_eq!(lengths, [1312, 1312, 100, 50]);
    }

    #[test]
    fn tunnel_82_stride_beyond_the_length_is_dropped() {
        let (lengths, counters) = cut(&[meta(100, 1312), meta(60, 60)]);
        assert_eq!((lengths, counters.malformed), (vec![60], 1));
    }

    #[test]
    fn tunnel_82_empty_datagrams_are_dropped() {
        let (lengths, counters) = cut(&[meta(0, 0), meta(10, 0), meta(60, 60)]);
        assert_eq!((lengths, counters.malformed), (vec![60], 2));
    }

    #[test]
    fn tunnel_82_datagrams_without_local_address_are_dropped() {
        let mut nameless = meta(100, 50);
        nameless.dst_ip = None;
        let (lengths, counters) = cut(&[nameless, meta(60, 60)]);
        assert_eq!((lengths, counters.no_local_address), (vec![60], 1));
    }

    #[test]
    fn tunnel_78_1316_bytes_pass_and_1317_do_not() {
        let (lengths, counters) = cut(&[meta(1316, 1316), meta(1317, 1317), meta(60, 60)]);
        assert_eq!((lengths, counters.oversized), (vec![1316, 60], 1));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_kernel_says_nothing_breaks(sizes in proptest::collection::vec((0usize..70_000, 0usize..70_000), 1..5)) {
            let all: Vec<_> = sizes.into_iter().map(|(len, stride)| meta(len, stride)).collect();
            let (lengths, _) = cut(&all);
            proptest::prop_assert!(lengths.iter().all(|len| (1..=MAX_DATAGRAM).contains(len)));
        }
    }
}
