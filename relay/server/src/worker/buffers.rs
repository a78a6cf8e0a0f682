//! Memory for one receive call.

use std::{io, net::SocketAddr};

use relay_core::Train;

use super::socket::UdpSocket;
use crate::platform::datagrams::{Ecn, MAX_MESSAGES, Receiver};

/// Buffers per receive call. Batches pay off where many senders meet, at the listen port.
pub(super) const BUFFERS: usize = MAX_MESSAGES;
/// Buffers for the first call at the socket of an allocation, where little is waiting mostly.
pub(super) const FEW_BUFFERS: usize = 4;
/// Bytes in a buffer from which few of them are used: what passes through many large ones falls out of the caches.
const LARGE: usize = 8 * 1024;
/// Size of a buffer: the most that the kernel joins.
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) struct Buffers {
    memory: Box<[u8]>,
    receiver: Receiver,
    /// How many suit what came last.
    suitable: usize,
}

/// One filled buffer.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) from: SocketAddr,
    pub(super) ecn: Ecn,
    pub(super) train: Train<'a>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            memory: vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            receiver: Receiver::new(),
            suitable: BUFFERS,
        }
    }

    /// Receives into at most so many buffers; returns how many are filled.
    pub(super) fn fill(&mut self, socket: &UdpSocket, most: usize) -> io::Result<usize> {
        let buffers = self.memory.chunks_exact_mut(BUFFER_BYTES).take(most);
        let filled = socket.receive(&mut self.receiver, buffers)?;
        let arrivals = self.receiver.arrivals().iter().take(filled);
        let bytes: usize = arrivals.map(|it| it.len).sum();
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

    /// What one buffer was filled with.
    pub(super) fn get(&self, index: usize) -> Received<'_> {
        let arrival = &self.receiver.arrivals()[index];
        let start = index * BUFFER_BYTES;
        let len = arrival.len.min(BUFFER_BYTES);
        let bytes = &self.memory[start..start + len];
        Received {
            from: arrival.from,
            ecn: arrival.ecn,
            train: Train::new(bytes, arrival.segment_size),
        }
    }
}
