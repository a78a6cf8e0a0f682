//! The outgoing queue of the sockets, as the state machine sees it.

use std::net::SocketAddr;

use connlib_snownet::{DatagramSink, Transmit};
use connlib_sockets::GsoQueue;
use ip_packet::Ecn;

/// Lets the state machine seal straight into the GSO queue.
pub(crate) struct Sink<'a>(pub(crate) &'a mut GsoQueue);

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

/// Queues a datagram that the state machine made itself.
pub(crate) fn push(queue: &mut GsoQueue, transmit: &Transmit) {
    queue.push(transmit.src, transmit.dst, transmit.ecn, &transmit.payload);
}
