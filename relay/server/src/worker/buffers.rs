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
/// Buffers for the first call at the socket of an allocation, where little is waiting mostly.
pub(super) const FEW_BUFFERS: usize = 4;
/// Bytes in a buffer from which few of them are used: what passes through many large ones falls out of the caches.
const LARGE: usize = 8 * 1024;
/// Size of a buffer: the most that the kernel joins.
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) struct Buffers {
    memory: Box<[u8]>,
    meta: [RecvMeta; BUFFERS],
    /// How many suit what came last.
    suitable: usize,
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
            suitable: BUFFERS,
        }
    }

    /// Receives into at most so many buffers; returns how many are filled.
    pub(super) fn fill(&mut self, socket: &UdpSocket, most: usize) -> io::Result<usize> {
        let mut chunks = self.memory.chunks_exact_mut(BUFFER_BYTES);
        let mut next = || IoSliceMut::new(chunks.next().unwrap_or_default());
        let mut slices: [IoSliceMut<'_>; BUFFERS] = std::array::from_fn(|_| next());
        let filled = socket.receive(&mut slices[..most.min(BUFFERS)], &mut self.meta)?;
        let bytes: usize = self.meta.iter().take(filled).map(|meta| meta.len).sum();
        self.suitable = match bytes >= filled * LARGE {
            true => FEW_BUFFERS,
            false => BUFFERS,
        };
        Ok(filled)
    }

    /// How many buffers suit the kind of traffic that came last.
    pub(super) fn suitable(&self) -> usize {
        self.suitable
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
