//! Where sealed datagrams go.

/// Destination of sealed datagrams: hands out one slot at a time and takes it back filled.
///
/// Implemented by the runtime over its send buffer, so that the cipher's copy is the only copy of a packet.
pub trait SealSink {
    /// Lends a slot of at least `len` bytes. Every call is followed by one [`SealSink::commit`].
    fn reserve(&mut self, len: usize) -> &mut [u8];

    /// Keeps the first `len` bytes of the slot lent last as one datagram; `0` gives the slot back unused.
    fn commit(&mut self, len: usize);
}

/// What became of the packets of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sealed {
    /// Sealed into the sink.
    pub sent: usize,
    /// Waiting for a session; they leave through `poll_transmit` once there is one.
    pub buffered: usize,
    /// Lost: no room to wait, no session to wait for, or larger than the tunnel's MTU.
    pub dropped: usize,
}
