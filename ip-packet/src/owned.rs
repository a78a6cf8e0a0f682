//! An owned packet in a pooled buffer.

use crate::pool::PooledBuffer;
use crate::view::forward_accessors;
use crate::{Layout, MAX_IP_SIZE, PacketMut, PacketRef, ParseError};
use std::fmt;

/// A validated packet of at most [`MAX_IP_SIZE`] bytes in a buffer of its own.
///
/// Moves as 24 bytes; a clone is a deep copy; two are equal when their bytes are. The buffer goes back to a
/// process-wide lock-free pool on drop.
pub struct IpPacket {
    buffer: PooledBuffer,
    len: u16,
    layout: Layout,
}

impl IpPacket {
    /// Validates and copies a packet.
    ///
    /// # Errors
    /// As [`PacketRef::parse`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseError> {
        PacketRef::parse(bytes)?.try_into()
    }

    /// Lets `write` fill a buffer of `len` bytes with a packet, then validates it. The buffer's content is
    /// unspecified before.
    ///
    /// # Errors
    /// As [`PacketRef::parse`].
    pub fn from_fn(len: usize, write: impl FnOnce(&mut [u8])) -> Result<Self, ParseError> {
        if len > MAX_IP_SIZE {
            return Err(ParseError::TooLong {
                len,
                max: MAX_IP_SIZE,
            });
        }
        let mut buffer = PooledBuffer::take();
        write(&mut buffer.bytes_mut()[..len]);
        let layout = Layout::parse(&buffer.bytes()[..len], MAX_IP_SIZE)?;
        Ok(Self {
            buffer,
            len: len as u16,
            layout,
        })
    }

    /// The shared view.
    #[inline]
    pub fn view(&self) -> PacketRef<'_> {
        PacketRef::with_layout(&self.buffer.bytes()[..usize::from(self.len)], self.layout)
    }

    /// The exclusive view, for translation in place.
    #[inline]
    pub fn view_mut(&mut self) -> PacketMut<'_> {
        PacketMut::with_layout(
            &mut self.buffer.bytes_mut()[..usize::from(self.len)],
            self.layout,
        )
    }
}

/// The accessors of [`PacketRef`].
impl IpPacket {
    forward_accessors!();
}

/// Copies a packet without validating it again; fails on a super-packet longer than [`MAX_IP_SIZE`].
impl TryFrom<PacketRef<'_>> for IpPacket {
    type Error = ParseError;

    fn try_from(packet: PacketRef<'_>) -> Result<Self, ParseError> {
        let bytes = packet.as_slice();
        if bytes.len() > MAX_IP_SIZE {
            return Err(ParseError::TooLong {
                len: bytes.len(),
                max: MAX_IP_SIZE,
            });
        }
        let mut buffer = PooledBuffer::take();
        buffer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(Self {
            buffer,
            len: bytes.len() as u16,
            layout: packet.layout(),
        })
    }
}

impl Clone for IpPacket {
    fn clone(&self) -> Self {
        self.view()
            .try_into()
            .expect("an owned packet is never longer than the limit")
    }
}

impl PartialEq for IpPacket {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for IpPacket {}

impl fmt::Debug for IpPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make;

    fn packet() -> IpPacket {
        make::icmp_echo_request([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, 2, b"ping").unwrap()
    }

    #[test]
    fn moves_cheaply() {
        assert!(size_of::<IpPacket>() <= 32);
        assert!(size_of::<PacketRef<'_>>() <= 32);
    }

    #[test]
    fn clone_is_deep_and_equality_is_by_bytes() {
        let original = packet();
        let mut copy = original.clone();
        assert_eq!(copy, original);
        copy.view_mut().set_source([10, 0, 0, 9].into()).unwrap();
        assert_ne!(copy, original);
        assert_eq!(original.source(), std::net::IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn reused_buffers_do_not_leak_into_the_next_packet() {
        drop(packet());
        let short = IpPacket::from_slice(packet().as_slice()).unwrap();
        assert_eq!(short.as_slice().len(), 32);
        assert!(IpPacket::from_fn(1281, |_| ()).is_err());
    }
}
