//! Receive buffers and the trains of datagrams in them.
//!
//! One call fills up to four buffers of 64 KB; with generic receive offload each holds many datagrams of one sender. They
//! stay together: whose they are is found out once for all of them.

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

/// Datagrams that the kernel has joined, or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Train<'a> {
    /// Address and port they were sent to.
    pub local: SocketAddr,
    /// Who sent them.
    pub from: SocketAddr,
    /// Congestion mark of their IP headers.
    pub ecn: Ecn,
    /// Their contents one behind the other; never empty.
    pub bytes: &'a [u8],
    /// Length of each but the last, which may be shorter; at most [`MAX_DATAGRAM`] bytes.
    pub stride: usize,
}

impl<'a> Train<'a> {
    /// The contents of the datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.stride)
    }
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
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<Option<Trains<'_>>> {
        let filled = match self.fill(socket) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        self.counters.calls += 1;
        Ok(Some(Trains {
            memory: &self.memory,
            meta: &self.meta[..filled],
            port: socket.local_address().port(),
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

/// What one receive call brought.
pub struct Trains<'a> {
    memory: &'a [u8],
    /// Filled buffers that were not looked at yet; the first belongs to the first of `memory`.
    meta: &'a [RecvMeta],
    port: u16,
    counters: &'a mut ReceiveCounters,
}

impl<'a> Iterator for Trains<'a> {
    type Item = Train<'a>;

    fn next(&mut self) -> Option<Train<'a>> {
        loop {
            let (meta, others) = self.meta.split_first()?;
            let (buffer, memory) = self.memory.split_at(BUFFER_BYTES);
            (self.meta, self.memory) = (others, memory);
            if let Some(train) = self.usable(meta, buffer) {
                return Some(train);
            }
        }
    }
}

impl<'a> Trains<'a> {
    /// What a buffer holds; `None` if it is of no use.
    fn usable(&mut self, meta: &RecvMeta, buffer: &'a [u8]) -> Option<Train<'a>> {
        if meta.len == 0 || meta.len > buffer.len() || meta.stride == 0 || meta.stride > meta.len {
            self.counters.malformed += 1;
            return None;
        }
        let Some(local) = meta.dst_ip else {
            self.counters.no_local_address += 1;
            return None;
        };
        let (bytes, stride) = self.without_oversized(&buffer[..meta.len], meta.stride)?;
        self.counters.datagrams += bytes.len().div_ceil(stride) as u64;
        self.counters.bytes += bytes.len() as u64;
        Some(Train {
            local: SocketAddr::new(local, self.port),
            from: meta.addr,
            ecn: meta
                .ecn
                .map_or(Ecn::NotEct, |ecn| Ecn::from_bits(ecn as u8)),
            bytes,
            stride,
        })
    }

    /// Of datagrams that are too large, at most the last, shorter one is kept.
    fn without_oversized(&mut self, bytes: &'a [u8], stride: usize) -> Option<(&'a [u8], usize)> {
        if stride <= MAX_DATAGRAM {
            return Some((bytes, stride));
        }
        let last = &bytes[bytes.len() - bytes.len() % stride..];
        let is_kept = (1..=MAX_DATAGRAM).contains(&last.len());
        self.counters.oversized += (bytes.len().div_ceil(stride) - usize::from(is_kept)) as u64;
        is_kept.then_some((last, last.len()))
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
        let trains = Trains {
            memory: &memory,
            meta,
            port: 5,
            counters: &mut counters,
        };
        let lengths = trains
            .flat_map(|train| train.datagrams().map(<[u8]>::len).collect::<Vec<_>>())
            .collect();
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

    #[test]
    fn tunnel_78_of_oversized_datagrams_the_short_last_one_is_kept() {
        let (lengths, counters) = cut(&[meta(1400 * 3 + 50, 1400), meta(1400 * 2 + 1350, 1400)]);
        assert_eq!((lengths, counters.oversized), (vec![50], 6));
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
