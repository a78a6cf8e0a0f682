//! How packets of one flow are handed down the data path.

use crate::{IpPacket, PacketRef};

/// Lending iterator over the finished IP packets of **one** flow, in order.
///
/// Each packet is at most [`MAX_IP_SIZE`](crate::MAX_IP_SIZE) bytes, has its own headers and right checksums. A
/// returned slice is valid until the next call, so an implementation may write each packet over the previous one.
pub trait PacketBatch {
    /// The next packet; `None` at the end, and again on every later call.
    fn next_packet(&mut self) -> Option<&[u8]>;
}

/// A batch of one packet.
#[derive(Debug, Clone)]
pub struct Single<'a>(Option<&'a [u8]>);

impl<'a> Single<'a> {
    /// The batch of this one packet.
    pub fn new(packet: PacketRef<'a>) -> Self {
        Self(Some(packet.as_slice()))
    }
}

impl<'a> From<&'a IpPacket> for Single<'a> {
    fn from(packet: &'a IpPacket) -> Self {
        Self(Some(packet.as_slice()))
    }
}

impl PacketBatch for Single<'_> {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.0.take()
    }
}
