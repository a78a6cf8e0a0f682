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
