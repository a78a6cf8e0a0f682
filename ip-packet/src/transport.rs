//! Typed views of transport headers. Made from a validated packet only, so their reads cannot fail.

use std::ops::BitOr;

/// A TCP segment.
#[derive(Debug, Clone, Copy)]
pub struct Tcp<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Source port.
    pub fn source_port(&self) -> u16 {
        read_u16(self.header, 0)
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        read_u16(self.header, 2)
    }

    /// Sequence number.
    pub fn sequence(&self) -> u32 {
        read_u32(self.header, 4)
    }

    /// Acknowledgement number; meaningful with the ACK flag.
    pub fn acknowledgement(&self) -> u32 {
        read_u32(self.header, 8)
    }

    /// Control bits.
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.header[13])
    }

    /// Window as sent, without scaling.
    pub fn window(&self) -> u16 {
        read_u16(self.header, 14)
    }

    /// Checksum as found.
    pub fn checksum(&self) -> u16 {
        read_u16(self.header, 16)
    }

    /// Option bytes, 0 to 40.
    pub fn options(&self) -> &'a [u8] {
        &self.header[20..]
    }

    /// Payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// An acknowledgement and nothing else: it opens nothing, ends nothing and carries nothing.
    pub fn is_bare_ack(&self) -> bool {
        let others = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;
        self.payload.is_empty()
            && self.flags().contains(TcpFlags::ACK)
            && self.flags().bits() & others.bits() == 0
    }

    /// The first segment of a connection: SYN without ACK.
    pub fn is_initial_syn(&self) -> bool {
        self.flags().contains(TcpFlags::SYN) && !self.flags().contains(TcpFlags::ACK)
    }
}

/// TCP control bits (RFC 9293 §3.1), the low eight of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push to the application.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Flags from the header's byte.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Flags as the header's byte.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A UDP datagram.
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Source port.
    pub fn source_port(&self) -> u16 {
        read_u16(self.header, 0)
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        read_u16(self.header, 2)
    }

    /// Length of header and payload in bytes.
    pub fn length(&self) -> u16 {
        read_u16(self.header, 4)
    }

    /// Checksum as found; 0 means absent.
    pub fn checksum(&self) -> u16 {
        read_u16(self.header, 6)
    }

    /// Payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Fields that ICMPv4 and ICMPv6 share.
macro_rules! icmp_view {
    ($(#[$doc:meta])* $name:ident, request: $request:ident = $request_type:literal, reply: $reply:ident = $reply_type:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name<'a> {
            pub(crate) header: &'a [u8],
            pub(crate) payload: &'a [u8],
        }

        impl<'a> $name<'a> {
            /// Type of an echo request.
            pub const $request: u8 = $request_type;
            /// Type of an echo reply.
            pub const $reply: u8 = $reply_type;

            /// Message type.
            pub fn icmp_type(&self) -> u8 {
                self.header[0]
            }

            /// Message code.
            pub fn code(&self) -> u8 {
                self.header[1]
            }

            /// Checksum as found.
            pub fn checksum(&self) -> u16 {
                read_u16(self.header, 2)
            }

            /// The four bytes of the header that depend on the type.
            pub fn rest_of_header(&self) -> [u8; 4] {
                [self.header[4], self.header[5], self.header[6], self.header[7]]
            }

            /// Bytes behind the 8-byte header.
            pub fn payload(&self) -> &'a [u8] {
                self.payload
            }

            /// Whether this is an echo request or reply.
            pub fn is_echo(&self) -> bool {
                self.is_echo_request() || self.is_echo_reply()
            }

            /// Whether this is an echo request.
            pub fn is_echo_request(&self) -> bool {
                self.icmp_type() == Self::$request && self.code() == 0
            }

            /// Whether this is an echo reply.
            pub fn is_echo_reply(&self) -> bool {
                self.icmp_type() == Self::$reply && self.code() == 0
            }

            /// Identifier of an echo message.
            pub fn echo_identifier(&self) -> Option<u16> {
                self.is_echo().then(|| read_u16(self.header, 4))
            }

            /// Sequence number of an echo message.
            pub fn echo_sequence(&self) -> Option<u16> {
                self.is_echo().then(|| read_u16(self.header, 6))
            }
        }
    };
}

icmp_view!(
    /// An ICMPv4 message (RFC 792).
    Icmpv4, request: ECHO_REQUEST = 8, reply: ECHO_REPLY = 0
);
icmp_view!(
    /// An ICMPv6 message (RFC 4443).
    Icmpv6, request: ECHO_REQUEST = 128, reply: ECHO_REPLY = 129
);

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
