//! One IP packet of the tunnel: checked views, owned pooled packets, in-place translation, builders.
//!
//! A packet is validated once, when a view is made of its bytes ([`PacketRef::parse`], [`PacketMut::parse`],
//! [`IpPacket::from_slice`]); the offsets found then are kept as a [`Layout`], so that accessors and mutators
//! neither search nor fail afterwards. Mutators patch checksums incrementally (RFC 1624).
//!
//! Invariants:
//! * no input makes a parser, accessor or mutator panic;
//! * a fragment, a source-routed packet or one whose lengths disagree never becomes a view;
//! * a checksum that was wrong on arrival is still wrong after a mutation: damage stays visible to the receiver.
//!
//! Super-packets (what a TUN device with segmentation offload hands over: one header in front of many segments'
//! payload, up to [`MAX_SUPER_SIZE`]) use the same views through [`PacketRef::parse_super`].
//!
//! Start reading at [`view`](PacketRef), then [`Layout`], then [`make`].

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod make;

mod batch;
mod control;
mod ecn;
mod error;
mod icmp_error;
mod layout;
mod owned;
mod pool;
mod protocol;
mod transport;
mod view;

#[cfg(test)]
mod testing;

pub use batch::{PacketBatch, Single};
pub use control::Control;
pub use ecn::Ecn;
pub use error::{BuildError, EmbeddedError, FamilyMismatch, ParseError, UnsupportedProtocol};
pub use icmp_error::{FailedPacket, IcmpError, IcmpErrorKind};
pub use layout::{Layout, Transport};
pub use owned::IpPacket;
pub use protocol::{IpVersion, Protocol};
pub use transport::{Icmpv4, Icmpv6, Tcp, TcpFlags, Udp};
pub use view::{PacketMut, PacketRef};

/// Largest IP packet in the tunnel, in bytes: the IPv6 minimum MTU (RFC 8200 §5), so that it fits every path.
pub const MAX_IP_SIZE: usize = 1280;

/// Largest super-packet, in bytes: what an IPv4 total length can say.
pub const MAX_SUPER_SIZE: usize = 65_535;

/// Largest UDP payload of a packet that is made here, in bytes: 1280 less the longest IPv4 header and the UDP header.
pub const MAX_UDP_PAYLOAD: usize = MAX_IP_SIZE - 60 - 8;

/// IP protocol numbers used in this crate (IANA "Protocol Numbers").
pub mod number {
    /// ICMP for IPv4.
    pub const ICMPV4: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Reserved; the tunnel's control packets.
    pub const CONTROL: u8 = 255;
}
