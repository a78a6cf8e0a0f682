//! Where sealed datagrams go.

use std::net::SocketAddr;

use ip_packet::Ecn;

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
