//! Datagrams that leave by `poll_transmit`.
//!
//! Packets from the TUN device are sealed straight into the caller's send batch. Everything else (flushed packets, control
//! events, what the node makes itself) has no such batch at hand and is sealed into a buffer of its own here.

use std::collections::VecDeque;
use std::net::SocketAddr;

use connlib_snownet::{DatagramSink, Transmit};
use ip_packet::Ecn;

/// A queue of datagrams in the order in which they must leave.
///
/// Its bound is that of the queues that are flushed into it: the caller drains it after every input.
#[derive(Debug, Default)]
pub(crate) struct TransmitQueue {
    queue: VecDeque<Transmit>,
}

impl TransmitQueue {
    pub(crate) fn push(&mut self, transmit: Transmit) {
        self.queue.push_back(transmit);
    }

    pub(crate) fn pop(&mut self) -> Option<Transmit> {
        self.queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }
}

impl DatagramSink for TransmitQueue {
    fn reserve(
        &mut self,
        src: Option<SocketAddr>,
        dst: SocketAddr,
        ecn: Ecn,
        len: usize,
    ) -> &mut [u8] {
        self.queue.push_back(Transmit {
            src,
            dst,
            payload: vec![0; len],
            ecn,
        });

        &mut self
            .queue
            .back_mut()
            .expect("an element was pushed right before")
            .payload
    }

    fn commit(&mut self, len: usize) {
        if len == 0 {
            self.queue.pop_back();
        } else if let Some(transmit) = self.queue.back_mut() {
            transmit.payload.truncate(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_datagrams_keep_their_order_and_length() {
        let mut queue = TransmitQueue::default();
        for byte in 1..=2 {
            let slot = reserve(&mut queue);
            slot[..3].fill(byte);
            queue.commit(3);
        }
        assert_eq!(queue.pop().expect("first").payload, [1, 1, 1]);
        assert_eq!(queue.pop().expect("second").payload, [2, 2, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn rolled_back_slot_leaves_no_trace() {
        let mut queue = TransmitQueue::default();
        reserve(&mut queue);
        queue.commit(0);
        assert!(queue.is_empty());
    }

    fn reserve(queue: &mut TransmitQueue) -> &mut [u8] {
        let address = SocketAddr::from(([192, 0, 2, 1], 1));

        queue.reserve(None, address, Ecn::NotEct, 10)
    }
}
