//! Where sealed datagrams go.

use std::{collections::VecDeque, net::SocketAddr};

use ip_packet::Ecn;

use crate::Transmit;

/// Receives datagrams in the order in which they must leave.
///
/// The node writes each datagram straight into the memory that [`reserve`](Self::reserve) hands
/// out, so that the cipher's copy is the only one. Every `reserve` is followed by exactly one
/// `commit` before the next `reserve`.
pub trait DatagramSink {
    /// Room for one datagram of at most `len` bytes to `dst`.
    ///
    /// `src` is the local socket address that must be used, or `None` for any (traffic to relays).
    /// The returned slice must be at least `len` bytes long.
    fn reserve(
        &mut self,
        src: Option<SocketAddr>,
        dst: SocketAddr,
        ecn: Ecn,
        len: usize,
    ) -> &mut [u8];

    /// Ends the reservation: the first `len` bytes are the datagram; 0 gives the room back.
    fn commit(&mut self, len: usize);
}

/// Keeps each datagram in a buffer of its own, for those who have no send batch at hand. Without a bound: the caller takes
/// the datagrams out after every input.
impl DatagramSink for VecDeque<Transmit> {
    fn reserve(
        &mut self,
        src: Option<SocketAddr>,
        dst: SocketAddr,
        ecn: Ecn,
        len: usize,
    ) -> &mut [u8] {
        self.push_back(Transmit {
            src,
            dst,
            payload: vec![0; len],
            ecn,
        });

        &mut self
            .back_mut()
            .expect("an element was pushed right before")
            .payload
    }

    fn commit(&mut self, len: usize) {
        if len == 0 {
            self.pop_back();
        } else if let Some(transmit) = self.back_mut() {
            transmit.payload.truncate(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_datagrams_keep_their_order_and_length() {
        let mut queue = VecDeque::new();
        for byte in 1..=2 {
            let slot = reserve(&mut queue);
            slot[..3].fill(byte);
            queue.commit(3);
        }
        assert_eq!(queue.pop_front().expect("first").payload, [1, 1, 1]);
        assert_eq!(queue.pop_front().expect("second").payload, [2, 2, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn rolled_back_slot_leaves_no_trace() {
        let mut queue = VecDeque::new();
        reserve(&mut queue);
        queue.commit(0);
        assert!(queue.is_empty());
    }

    fn reserve(queue: &mut VecDeque<Transmit>) -> &mut [u8] {
        let address = SocketAddr::from(([192, 0, 2, 1], 1));

        DatagramSink::reserve(queue, None, address, Ecn::NotEct, 10)
    }
}
