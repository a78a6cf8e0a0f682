//! Segmentation and coalescing of super-packets: bytes in, bytes out.
//!
//! With offload a TUN device hands over up to 64 KB of one flow under one header, and takes the same back. The tunnel
//! carries packets of at most [`ip_packet::MAX_IP_SIZE`] bytes. Between the two stand
//!
//! * [`Splitter`]: super-packet to packets. Each packet's header is written *in front of its payload*, over bytes that
//!   were sealed before, so the only copy is the cipher's.
//! * [`Coalescer`]: packets to super-packets. Datagrams are opened *behind the last payload* of the super-packet that
//!   they probably extend, so again the only copy is the cipher's.
//!
//! A packet without offload is a super-packet of one segment; there is one code path.
//!
//! Both are pure and bounded, and neither panics whatever bytes it is given.

mod coalescer;
mod headers;
mod splitter;
#[cfg(test)]
mod testing;

pub use coalescer::{Coalescer, Coalescing, Commit, Slot};
pub(crate) use coalescer::{FlowTag, Run};
pub use splitter::{SplitError, Splitter};

/// How a super-packet is to be segmented, and the state of its transport checksum.
///
/// Carries what a `virtio_net_hdr` says and a packet does not. Header lengths are deliberately absent: on the forward
/// path the kernel's `hdr_len` lies, so they are always computed from the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GsoMeta {
    /// The protocol to segment by.
    pub kind: GsoKind,
    /// Transport payload bytes per segment; the last may be shorter. Ignored for [`GsoKind::None`].
    pub segment_size: u16,
    /// Whether the transport checksum is already right.
    pub checksum: ChecksumState,
}

/// The protocol by which a super-packet is segmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// Not at all: one ordinary packet.
    None,
    /// TCP segmentation (TSO).
    Tcp,
    /// UDP segmentation (USO): one datagram per segment.
    Udp,
}

/// State of the transport checksum of a packet that crosses the TUN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumState {
    /// The packet carries what its sender computed.
    Complete,
    /// The checksum field holds the sum of the pseudo-header; the sum over everything from `start` is missing.
    Partial {
        /// Offset of the transport header in the packet (bytes).
        start: u16,
        /// Offset of the checksum field in the transport header (bytes).
        offset: u16,
    },
}

impl GsoMeta {
    /// An ordinary packet with a complete checksum.
    pub const NONE: Self = Self {
        kind: GsoKind::None,
        segment_size: 0,
        checksum: ChecksumState::Complete,
    };
}

/// One IP packet or super-packet as read from the TUN device.
///
/// The bytes are working memory: headers are rewritten in place while the packet is split.
#[derive(Debug)]
pub struct TunPacket<'a> {
    /// The IP packet, exactly.
    pub buf: &'a mut [u8],
    /// What the device said about it.
    pub gso: GsoMeta,
}
