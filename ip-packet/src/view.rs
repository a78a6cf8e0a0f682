//! Views of a validated packet: shared ([`PacketRef`]) and exclusive ([`PacketMut`]).

mod forward;
mod mutate;

pub(crate) use forward::forward_accessors;

use crate::control::CONTROL_HEADER_LEN;
use crate::transport::read_u16;
use crate::{
    Control, Ecn, IcmpError, Icmpv4, Icmpv6, IpVersion, Layout, MAX_IP_SIZE, MAX_SUPER_SIZE,
    ParseError, Protocol, Tcp, Transport, Udp, UnsupportedProtocol, checksum, number,
};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A validated packet in borrowed bytes.
#[derive(Clone, Copy)]
pub struct PacketRef<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

impl<'a> PacketRef<'a> {
    /// Validates the bytes of one packet of at most [`MAX_IP_SIZE`] bytes.
    ///
    /// # Errors
    /// Every [`ParseError`]; [`ParseError::Fragment`] is the one worth a debug log, the others are noise.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Layout::parse(bytes, MAX_IP_SIZE).map(|layout| Self { bytes, layout })
    }

    /// Validates the bytes of a super-packet of at most [`MAX_SUPER_SIZE`] bytes; otherwise as [`parse`](Self::parse).
    ///
    /// The TCP or UDP checksum field of a super-packet usually holds only the sum over the pseudo-header, since the
    /// sender left the rest to the device. Mutators patch it like any other, and whoever cuts it into segments
    /// computes each segment's checksum anew.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    #[inline]
    pub fn parse_super(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Layout::parse(bytes, MAX_SUPER_SIZE).map(|layout| Self { bytes, layout })
    }

    /// The view of `bytes` whose headers are those that `layout` was found for; nothing is validated again.
    ///
    /// # Panics
    /// If `bytes` are fewer than the headers of `layout`.
    #[inline]
    pub fn with_layout(bytes: &'a [u8], layout: Layout) -> Self {
        assert!(
            layout.payload_offset() <= bytes.len(),
            "layout is of other bytes"
        );
        Self { bytes, layout }
    }

    /// Where the parts are.
    #[inline]
    pub fn layout(self) -> Layout {
        self.layout
    }

    /// The whole packet.
    #[inline]
    pub fn as_slice(self) -> &'a [u8] {
        self.bytes
    }

    /// IP version.
    #[inline]
    pub fn version(self) -> IpVersion {
        self.layout.version()
    }

    /// Source address.
    #[inline]
    pub fn source(self) -> IpAddr {
        match self.layout.version() {
            IpVersion::V4 => IpAddr::V4(self.v4_at(12)),
            IpVersion::V6 => IpAddr::V6(self.v6_at(8)),
        }
    }

    /// Destination address.
    #[inline]
    pub fn destination(self) -> IpAddr {
        match self.layout.version() {
            IpVersion::V4 => IpAddr::V4(self.v4_at(16)),
            IpVersion::V6 => IpAddr::V6(self.v6_at(24)),
        }
    }

    /// IP protocol number of the transport, behind all extension headers.
    #[inline]
    pub fn next_header(self) -> u8 {
        self.layout.next_header()
    }

    /// Time to live or hop limit.
    #[inline]
    pub fn hop_limit(self) -> u8 {
        match self.layout.version() {
            IpVersion::V4 => self.bytes[8],
            IpVersion::V6 => self.bytes[7],
        }
    }

    /// Transport header and its payload.
    #[inline]
    pub fn payload(self) -> &'a [u8] {
        &self.bytes[self.layout.transport_offset()..]
    }

    /// Payload of the transport; the whole IP payload of an unknown transport.
    #[inline]
    pub fn l4_payload(self) -> &'a [u8] {
        &self.bytes[self.layout.payload_offset()..]
    }

    /// Bytes of the IP header with options or extension headers, plus those of the transport header.
    #[inline]
    pub fn header_len(self) -> usize {
        self.layout.payload_offset()
    }

    /// Source port or echo identifier.
    ///
    /// # Errors
    /// The transport is neither TCP nor UDP nor an ICMP echo.
    #[inline]
    pub fn source_protocol(self) -> Result<Protocol, UnsupportedProtocol> {
        self.protocol(0)
    }

    /// Destination port or echo identifier; for an echo the same as [`source_protocol`](Self::source_protocol).
    ///
    /// # Errors
    /// The transport is neither TCP nor UDP nor an ICMP echo.
    #[inline]
    pub fn destination_protocol(self) -> Result<Protocol, UnsupportedProtocol> {
        self.protocol(2)
    }

    /// The TCP segment, if it is one.
    #[inline]
    pub fn as_tcp(self) -> Option<Tcp<'a>> {
        let (header, payload) = self.transport(Transport::Tcp)?;
        Some(Tcp { header, payload })
    }

    /// The UDP datagram, if it is one.
    #[inline]
    pub fn as_udp(self) -> Option<Udp<'a>> {
        let (header, payload) = self.transport(Transport::Udp)?;
        Some(Udp { header, payload })
    }

    /// The ICMPv4 message, if it is one.
    #[inline]
    pub fn as_icmpv4(self) -> Option<Icmpv4<'a>> {
        let (header, payload) = self.transport(Transport::Icmpv4)?;
        Some(Icmpv4 { header, payload })
    }

    /// The ICMPv6 message, if it is one.
    #[inline]
    pub fn as_icmpv6(self) -> Option<Icmpv6<'a>> {
        let (header, payload) = self.transport(Transport::Icmpv6)?;
        Some(Icmpv6 { header, payload })
    }

    /// The ICMP error, if it is one of those that concern a flow: unreachable, packet too big, time exceeded.
    pub fn icmp_error(self) -> Option<IcmpError<'a>> {
        IcmpError::from_packet(self)
    }

    /// Whether [`as_control`](Self::as_control) would return something.
    #[inline]
    pub fn is_control(self) -> bool {
        self.as_control().is_some()
    }

    /// The content of a control packet, if it is one.
    #[inline]
    pub fn as_control(self) -> Option<Control<'a>> {
        if self.layout.next_header() != number::CONTROL || self.layout.version() != IpVersion::V6 {
            return None;
        }
        // Source and destination are both `::`.
        if self.bytes[8..40].iter().any(|byte| *byte != 0) {
            return None;
        }
        let (header, payload) = self.payload().split_first_chunk::<CONTROL_HEADER_LEN>()?;
        Some(Control {
            event_type: header[0],
            payload,
        })
    }

    /// ECN codepoint.
    #[inline]
    pub fn ecn(self) -> Ecn {
        Ecn::from_bits(match self.layout.version() {
            IpVersion::V4 => self.bytes[1],
            IpVersion::V6 => self.bytes[1] >> 4,
        })
    }

    /// Whether all checksums are right: IPv4 header, and TCP, UDP (absent over IPv4 counts as right) or ICMP.
    ///
    /// Reads the whole packet. An unknown transport has no checksum to look at.
    pub fn has_valid_checksums(self) -> bool {
        self.has_valid_ip_checksum() && self.has_valid_transport_checksum()
    }

    /// Whether the IPv4 header's checksum is right; always for IPv6.
    pub fn has_valid_ip_checksum(self) -> bool {
        match self.layout.version() {
            IpVersion::V4 => {
                checksum::of(&self.bytes[..usize::from(self.bytes[0] & 0x0f) * 4]) == 0
            }
            IpVersion::V6 => true,
        }
    }

    /// Whether the transport's checksum is right; see [`has_valid_checksums`](Self::has_valid_checksums).
    pub fn has_valid_transport_checksum(self) -> bool {
        let transport = match self.layout.transport() {
            Transport::Other => return true,
            Transport::Icmpv4 => return checksum::of(self.payload()) == 0,
            // RFC 768: absent over IPv4; RFC 8200 §8.1: forbidden over IPv6.
            Transport::Udp if read_u16(self.payload(), 6) == 0 => {
                return self.version() == IpVersion::V4;
            }
            Transport::Udp | Transport::Tcp | Transport::Icmpv6 => self.payload(),
        };
        checksum::of_transport(
            self.source(),
            self.destination(),
            self.next_header(),
            transport,
        ) == 0
    }

    #[inline]
    fn protocol(self, port_offset: usize) -> Result<Protocol, UnsupportedProtocol> {
        let transport = self.payload();
        match self.layout.transport() {
            Transport::Tcp => Ok(Protocol::Tcp(read_u16(transport, port_offset))),
            Transport::Udp => Ok(Protocol::Udp(read_u16(transport, port_offset))),
            Transport::Icmpv4 => match (transport[0], transport[1]) {
                (Icmpv4::ECHO_REQUEST | Icmpv4::ECHO_REPLY, 0) => {
                    Ok(Protocol::IcmpEcho(read_u16(transport, 4)))
                }
                (icmp_type, _) => Err(UnsupportedProtocol::Icmpv4Type(icmp_type)),
            },
            Transport::Icmpv6 => match (transport[0], transport[1]) {
                (Icmpv6::ECHO_REQUEST | Icmpv6::ECHO_REPLY, 0) => {
                    Ok(Protocol::IcmpEcho(read_u16(transport, 4)))
                }
                (icmp_type, _) => Err(UnsupportedProtocol::Icmpv6Type(icmp_type)),
            },
            Transport::Other => Err(UnsupportedProtocol::IpPayload(self.layout.next_header())),
        }
    }

    #[inline]
    fn transport(self, wanted: Transport) -> Option<(&'a [u8], &'a [u8])> {
        if self.layout.transport() != wanted {
            return None;
        }
        let header = &self.bytes[self.layout.transport_offset()..self.layout.payload_offset()];
        Some((header, self.l4_payload()))
    }

    #[inline]
    fn v4_at(self, at: usize) -> Ipv4Addr {
        let mut octets = [0; 4];
        octets.copy_from_slice(&self.bytes[at..at + 4]);
        octets.into()
    }

    #[inline]
    fn v6_at(self, at: usize) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.bytes[at..at + 16]);
        octets.into()
    }
}

impl fmt::Debug for PacketRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Packet");
        debug
            .field("source", &self.source())
            .field("destination", &self.destination());
        match (self.source_protocol(), self.destination_protocol()) {
            (Ok(source), Ok(destination)) => debug.field("from", &source).field("to", &destination),
            _ => debug.field("next_header", &self.next_header()),
        };
        debug.field("len", &self.bytes.len()).finish()
    }
}

/// A validated packet in exclusively borrowed bytes, for translation in place.
pub struct PacketMut<'a> {
    bytes: &'a mut [u8],
    layout: Layout,
}

impl<'a> PacketMut<'a> {
    /// As [`PacketRef::parse`].
    ///
    /// # Errors
    /// As [`PacketRef::parse`].
    #[inline]
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, ParseError> {
        Layout::parse(bytes, MAX_IP_SIZE).map(|layout| Self { bytes, layout })
    }

    /// As [`PacketRef::parse_super`].
    ///
    /// # Errors
    /// As [`PacketRef::parse_super`].
    #[inline]
    pub fn parse_super(bytes: &'a mut [u8]) -> Result<Self, ParseError> {
        Layout::parse(bytes, MAX_SUPER_SIZE).map(|layout| Self { bytes, layout })
    }

    /// As [`PacketRef::with_layout`].
    ///
    /// # Panics
    /// As [`PacketRef::with_layout`].
    #[inline]
    pub fn with_layout(bytes: &'a mut [u8], layout: Layout) -> Self {
        assert!(
            layout.payload_offset() <= bytes.len(),
            "layout is of other bytes"
        );
        Self { bytes, layout }
    }

    /// The shared view.
    #[inline]
    pub fn view(&self) -> PacketRef<'_> {
        PacketRef {
            bytes: self.bytes,
            layout: self.layout,
        }
    }

    /// An exclusive view for a shorter time.
    #[inline]
    pub fn reborrow(&mut self) -> PacketMut<'_> {
        PacketMut {
            bytes: self.bytes,
            layout: self.layout,
        }
    }
}

impl fmt::Debug for PacketMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// The accessors of [`PacketRef`].
impl PacketMut<'_> {
    forward_accessors!();
}
