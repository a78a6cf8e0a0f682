//! ICMP errors about a flow, and the packet inside them.
//!
//! Destination unreachable (ICMPv4 type 3 with all codes including fragmentation needed, ICMPv6 type 1), ICMPv6 packet
//! too big (type 2) and time exceeded (11 and 3); RFC 792, RFC 1191, RFC 4443. Of the embedded packet only the IP
//! header and the 8 bytes behind it are guaranteed, so nothing more is required, and it may be cut anywhere after that.

use crate::layout::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::transport::{read_u16, read_u32};
use crate::{
    EmbeddedError, FamilyMismatch, Icmpv4, Icmpv6, IpVersion, PacketRef, Protocol,
    UnsupportedProtocol, number,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an ICMP error reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// ICMPv4 destination unreachable with any code but 4.
    V4Unreachable {
        /// RFC 792 and RFC 1812 §5.2.7.1.
        code: u8,
    },
    /// ICMPv4 fragmentation needed (type 3 code 4).
    V4FragmentationNeeded {
        /// MTU of the next hop in bytes (RFC 1191); 0 from routers that do not know it.
        mtu: u16,
    },
    /// ICMPv4 time exceeded.
    V4TimeExceeded {
        /// 0 in transit, 1 in reassembly.
        code: u8,
    },
    /// ICMPv6 destination unreachable.
    V6Unreachable {
        /// RFC 4443 §3.1.
        code: u8,
    },
    /// ICMPv6 packet too big.
    V6PacketTooBig {
        /// MTU of the next hop in bytes.
        mtu: u32,
    },
    /// ICMPv6 time exceeded.
    V6TimeExceeded {
        /// 0 in transit, 1 in reassembly.
        code: u8,
    },
}

impl IcmpErrorKind {
    /// Whether a gateway refused the packet: "communication administratively prohibited" (v4 code 13, v6 code 1).
    pub fn is_prohibited(self) -> bool {
        matches!(
            self,
            Self::V4Unreachable { code: 13 } | Self::V6Unreachable { code: 1 }
        )
    }
}

/// An ICMP error with the packet that caused it.
#[derive(Debug, Clone, Copy)]
pub struct IcmpError<'a> {
    kind: IcmpErrorKind,
    message: &'a [u8],
    embedded: &'a [u8],
}

impl<'a> IcmpError<'a> {
    pub(crate) fn from_packet(packet: PacketRef<'a>) -> Option<Self> {
        let (kind, embedded) = if let Some(icmp) = packet.as_icmpv4() {
            (v4_kind(icmp)?, icmp.payload())
        } else {
            let icmp = packet.as_icmpv6()?;
            (v6_kind(icmp)?, icmp.payload())
        };
        Some(Self {
            kind,
            message: packet.payload(),
            embedded,
        })
    }

    /// What is reported.
    pub fn kind(&self) -> IcmpErrorKind {
        self.kind
    }

    /// The bytes of the packet that caused the error, as many as were sent back.
    pub fn embedded(&self) -> &'a [u8] {
        self.embedded
    }

    /// The whole ICMP message, header included.
    pub(crate) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// IP version of the error; that of the embedded packet is the same.
    pub fn version(&self) -> IpVersion {
        match self.kind {
            IcmpErrorKind::V4Unreachable { .. }
            | IcmpErrorKind::V4FragmentationNeeded { .. }
            | IcmpErrorKind::V4TimeExceeded { .. } => IpVersion::V4,
            IcmpErrorKind::V6Unreachable { .. }
            | IcmpErrorKind::V6PacketTooBig { .. }
            | IcmpErrorKind::V6TimeExceeded { .. } => IpVersion::V6,
        }
    }

    /// The flow that the error is about.
    ///
    /// # Errors
    /// The embedded packet is malformed or has no ports; an echo *reply* counts as unsupported, since nobody asks to
    /// be told about those.
    pub fn failed_packet(&self) -> Result<FailedPacket<'a>, EmbeddedError> {
        FailedPacket::parse(self.embedded, self.version())
    }
}

fn v4_kind(icmp: Icmpv4<'_>) -> Option<IcmpErrorKind> {
    let code = icmp.code();
    match icmp.icmp_type() {
        3 if code == 4 => {
            let rest = icmp.rest_of_header();
            Some(IcmpErrorKind::V4FragmentationNeeded {
                mtu: read_u16(&rest, 2),
            })
        }
        3 => Some(IcmpErrorKind::V4Unreachable { code }),
        11 => Some(IcmpErrorKind::V4TimeExceeded { code }),
        _ => None,
    }
}

fn v6_kind(icmp: Icmpv6<'_>) -> Option<IcmpErrorKind> {
    let code = icmp.code();
    match icmp.icmp_type() {
        1 => Some(IcmpErrorKind::V6Unreachable { code }),
        2 => Some(IcmpErrorKind::V6PacketTooBig {
            mtu: read_u32(&icmp.rest_of_header(), 0),
        }),
        3 => Some(IcmpErrorKind::V6TimeExceeded { code }),
        _ => None,
    }
}

/// The packet inside an ICMP error, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedPacket<'a> {
    bytes: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    source_protocol: Protocol,
    destination_protocol: Protocol,
    transport_offset: usize,
}

impl<'a> FailedPacket<'a> {
    fn parse(bytes: &'a [u8], version: IpVersion) -> Result<Self, EmbeddedError> {
        let header = match (bytes.first().map(|byte| byte >> 4), version) {
            (Some(4), IpVersion::V4) => EmbeddedHeader::parse_v4(bytes)?,
            (Some(6), IpVersion::V6) => EmbeddedHeader::parse_v6(bytes)?,
            (Some(4 | 6), _) => return Err(EmbeddedError::VersionMismatch),
            _ => return Err(EmbeddedError::Malformed),
        };
        let transport = bytes
            .get(header.transport_offset..header.transport_offset + 8)
            .ok_or(EmbeddedError::Malformed)?;
        let (source_protocol, destination_protocol) = protocols(header.next_header, transport)?;
        Ok(Self {
            bytes,
            source: header.source,
            destination: header.destination,
            source_protocol,
            destination_protocol,
            transport_offset: header.transport_offset,
        })
    }

    /// The bytes that were sent back.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Source address: who sent the failed packet.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Destination address: who did not get it.
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Source port or echo identifier.
    pub fn source_protocol(&self) -> Protocol {
        self.source_protocol
    }

    /// Destination port or echo identifier.
    pub fn destination_protocol(&self) -> Protocol {
        self.destination_protocol
    }

    /// The first eight bytes behind the IP header.
    pub fn transport_bytes(&self) -> &'a [u8] {
        &self.bytes[self.transport_offset..]
    }

    /// Writes another destination address and source port or identifier into `copy`, a copy of
    /// [`bytes`](Self::bytes). Embedded checksums are left as they are: nobody verifies them.
    pub(crate) fn rewrite(
        &self,
        copy: &mut [u8],
        destination: IpAddr,
        value: u16,
    ) -> Result<(), FamilyMismatch> {
        match (self.destination, destination) {
            (IpAddr::V4(_), IpAddr::V4(v4)) => copy[16..20].copy_from_slice(&v4.octets()),
            (IpAddr::V6(_), IpAddr::V6(v6)) => copy[24..40].copy_from_slice(&v6.octets()),
            (_, address) => return Err(FamilyMismatch(address)),
        }
        let at = self.transport_offset
            + match self.source_protocol {
                Protocol::Tcp(_) | Protocol::Udp(_) => 0,
                Protocol::IcmpEcho(_) => 4,
            };
        copy[at..at + 2].copy_from_slice(&value.to_be_bytes());
        Ok(())
    }
}

struct EmbeddedHeader {
    source: IpAddr,
    destination: IpAddr,
    next_header: u8,
    transport_offset: usize,
}

impl EmbeddedHeader {
    fn parse_v4(bytes: &[u8]) -> Result<Self, EmbeddedError> {
        let Some((header, _)) = bytes.split_first_chunk::<IPV4_HEADER_LEN>() else {
            return Err(EmbeddedError::Malformed);
        };
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header_len < IPV4_HEADER_LEN {
            return Err(EmbeddedError::Malformed);
        }
        // A first fragment has the ports, later ones have not.
        if read_u16(header, 6) & 0x1fff != 0 {
            return Err(EmbeddedError::Fragment);
        }
        Ok(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            next_header: header[9],
            transport_offset: header_len,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, EmbeddedError> {
        let Some((header, _)) = bytes.split_first_chunk::<IPV6_HEADER_LEN>() else {
            return Err(EmbeddedError::Malformed);
        };
        let address = |at: usize| -> Ipv6Addr {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            octets.into()
        };
        let (next_header, transport_offset) = crate::layout::embedded_transport(bytes, header[6])?;
        Ok(Self {
            source: address(8).into(),
            destination: address(24).into(),
            next_header,
            transport_offset,
        })
    }
}

fn protocols(
    next_header: u8,
    transport: &[u8],
) -> Result<(Protocol, Protocol), UnsupportedProtocol> {
    let (first, second) = (read_u16(transport, 0), read_u16(transport, 2));
    match next_header {
        number::TCP => Ok((Protocol::Tcp(first), Protocol::Tcp(second))),
        number::UDP => Ok((Protocol::Udp(first), Protocol::Udp(second))),
        // As for whole packets, a code other than 0 makes it something else.
        number::ICMPV4 if transport[..2] != [Icmpv4::ECHO_REQUEST, 0] => {
            Err(UnsupportedProtocol::Icmpv4Type(transport[0]))
        }
        number::ICMPV6 if transport[..2] != [Icmpv6::ECHO_REQUEST, 0] => {
            Err(UnsupportedProtocol::Icmpv6Type(transport[0]))
        }
        number::ICMPV4 | number::ICMPV6 => {
            let echo = Protocol::IcmpEcho(read_u16(transport, 4));
            Ok((echo, echo))
        }
        other => Err(UnsupportedProtocol::IpPayload(other)),
    }
}

#[cfg(test)]
mod tests;
