//! What can be wrong with a packet, one enum per boundary.

use std::net::IpAddr;

/// Why bytes are not a packet that the tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No byte at all.
    #[error("packet is empty")]
    Empty,
    /// More bytes than the tunnel carries in one packet.
    #[error("packet of {len} bytes exceeds {max}")]
    TooLong {
        /// Length of the input in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The version nibble is neither 4 nor 6.
    #[error("IP version {0} is unknown")]
    UnknownVersion(u8),
    /// Fewer bytes than the IP header needs, or an IPv4 header length below 20.
    #[error("IP header is incomplete")]
    TruncatedHeader,
    /// The length in the IP header is not the number of bytes.
    #[error("IP header announces {announced} bytes but there are {len}")]
    LengthMismatch {
        /// Total length according to the header, in bytes.
        announced: usize,
        /// Length of the input in bytes.
        len: usize,
    },
    /// The IPv6 extension headers are truncated, out of order or too many.
    #[error("IPv6 extension headers are malformed")]
    MalformedExtensions,
    /// Part of a fragmented packet; fragments are unsupported end to end.
    #[error("packet is a fragment")]
    Fragment,
    /// The packet names further hops, so its destination address is not where it ends up.
    #[error("packet is source-routed")]
    SourceRouted,
    /// The TCP header is incomplete or its data offset is out of range.
    #[error("TCP header is malformed")]
    MalformedTcp,
    /// The UDP header is incomplete or its length is not that of the IP payload.
    #[error("UDP header is malformed")]
    MalformedUdp,
    /// The ICMP header is incomplete.
    #[error("ICMP header is incomplete")]
    MalformedIcmp,
    /// ICMPv4 inside IPv6 or ICMPv6 inside IPv4.
    #[error("ICMP of the other IP version")]
    IcmpVersionMismatch,
}

/// Why a packet has no port or echo identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedProtocol {
    /// The transport is neither TCP, UDP nor ICMP.
    #[error("IP payload of protocol {0} is unsupported")]
    IpPayload(u8),
    /// An ICMPv4 message other than echo request and reply; its type.
    #[error("ICMPv4 type {0} is unsupported")]
    Icmpv4Type(u8),
    /// An ICMPv6 message other than echo request and reply; its type.
    #[error("ICMPv6 type {0} is unsupported")]
    Icmpv6Type(u8),
}

/// An IPv4 address was given for an IPv6 packet or the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("address {0} is not of the packet's IP version")]
pub struct FamilyMismatch(pub IpAddr);

/// Why the packet inside an ICMP error cannot be related to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddedError {
    /// Fewer bytes than an IP header and 8 bytes of its payload, or a header that contradicts itself.
    #[error("embedded packet is truncated or malformed")]
    Malformed,
    /// The embedded packet is of the other IP version.
    #[error("embedded packet is of the other IP version")]
    VersionMismatch,
    /// The embedded packet is a later fragment and has no transport header.
    #[error("embedded packet is a fragment")]
    Fragment,
    /// The embedded packet has no port or echo-request identifier.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedProtocol),
}

/// Why a packet cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Source and destination are of different IP versions.
    #[error("source {source_addr} and destination {destination} are of different IP versions")]
    MixedFamilies {
        /// The source address.
        source_addr: IpAddr,
        /// The destination address.
        destination: IpAddr,
    },
    /// An ICMPv4 message between IPv6 addresses or the other way round.
    #[error("ICMP message and addresses are of different IP versions")]
    WrongIcmpVersion,
    /// The packet would exceed [`MAX_IP_SIZE`](crate::MAX_IP_SIZE).
    #[error("packet of {0} bytes exceeds 1280")]
    TooLong(usize),
    /// TCP options are longer than 40 bytes or not a multiple of 4.
    #[error("TCP options of {0} bytes are invalid")]
    InvalidOptions(usize),
    /// RFC 1122 §3.2.2 forbids an ICMP error about this packet (an ICMP error, or from or to no single host).
    #[error("no ICMP error may be sent about this packet")]
    NotAnswerable,
    /// The packet inside the ICMP error cannot be rewritten.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The new address is of the other IP version.
    #[error(transparent)]
    Family(#[from] FamilyMismatch),
}
