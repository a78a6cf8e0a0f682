//! Memory for one receive call.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
};

use quinn_udp::{EcnCodepoint, RecvMeta};
use relay_core::Train;

use super::socket::UdpSocket;

/// Buffers per receive call. Batches pay off where many senders meet, at the listen port; the library takes no more.
pub(super) const BUFFERS: usize = 32;
/// Size of a buffer: the most that the kernel joins.
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) struct Buffers {
    memory: Box<[u8]>,
    meta: [RecvMeta; BUFFERS],
}

/// One filled buffer.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) from: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) train: Train<'a>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            memory: vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            meta: [RecvMeta::default(); BUFFERS],
        }
    }

    /// Receives; returns how many buffers are filled.
    pub(super) fn fill(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut chunks = self.memory.chunks_exact_mut(BUFFER_BYTES);
        let mut next = || IoSliceMut::new(chunks.next().unwrap_or_default());
        let mut slices: [IoSliceMut<'_>; BUFFERS] = std::array::from_fn(|_| next());
        socket.receive(&mut slices, &mut self.meta)
    }

    /// How many of the first buffers hold one datagram rather than several that the kernel has joined.
    pub(super) fn singles(&self, filled: usize) -> u64 {
        let filled = self.meta.iter().take(filled);
        filled.filter(|meta| meta.len <= meta.stride).count() as u64
    }

    /// What one buffer was filled with.
    pub(super) fn get(&self, index: usize) -> Received<'_> {
        let meta = &self.meta[index];
        let start = index * BUFFER_BYTES;
        let len = meta.len.min(BUFFER_BYTES);
        let bytes = &self.memory[start..start + len];
        Received {
            from: meta.addr,
            ecn: meta.ecn,
            train: Train::new(bytes, meta.stride),
        }
    }
}
