//! Validation of a packet, once, and the offsets it finds.
//!
//! RFC 791 (IPv4), RFC 8200 (IPv6 and its extension headers), RFC 9293 (TCP), RFC 768 (UDP), RFC 792 and RFC 4443 (ICMP).

use crate::{EmbeddedError, IpVersion, ParseError, number};

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_HEADER_LEN: usize = 20;
/// Bytes of the fixed IPv6 header.
pub(crate) const IPV6_HEADER_LEN: usize = 40;
/// Bytes of a TCP header without options.
pub(crate) const TCP_HEADER_LEN: usize = 20;
/// Bytes of a UDP header.
pub(crate) const UDP_HEADER_LEN: usize = 8;
/// Bytes of an ICMP header: type, code, checksum and four bytes that depend on the type.
pub(crate) const ICMP_HEADER_LEN: usize = 8;

/// IPv6 extension headers accepted in one packet: RFC 8200 §4.1 lists seven places.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Transport protocol of a validated packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP with a complete header.
    Tcp,
    /// UDP whose length is that of the IP payload.
    Udp,
    /// ICMPv4 with a complete header, in IPv4.
    Icmpv4,
    /// ICMPv6 with a complete header, in IPv6.
    Icmpv6,
    /// Anything else, not looked into.
    Other,
}

/// Where the parts of a packet are; the result of its validation.
///
/// Stays true under all mutators, and for any other packet with the same header bytes in front of another payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    version: IpVersion,
    transport: Transport,
    next_header: u8,
    transport_offset: u16,
    payload_offset: u16,
}

impl Layout {
    /// Validates `packet`, which may have at most `max` bytes.
    pub(crate) fn parse(packet: &[u8], max: usize) -> Result<Self, ParseError> {
        let Some(first) = packet.first() else {
            return Err(ParseError::Empty);
        };
        if packet.len() > max {
            return Err(ParseError::TooLong {
                len: packet.len(),
                max,
            });
        }
        match first >> 4 {
            4 => parse_v4(packet),
            6 => parse_v6(packet),
            version => Err(ParseError::UnknownVersion(version)),
        }
    }

    /// IP version.
    pub fn version(&self) -> IpVersion {
        self.version
    }

    /// What the IP payload is, behind all extension headers.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// IP protocol number of the transport.
    pub fn next_header(&self) -> u8 {
        self.next_header
    }

    /// Bytes in front of the transport header: IP header with options or extension headers.
    pub fn transport_offset(&self) -> usize {
        usize::from(self.transport_offset)
    }

    /// Bytes in front of the transport's payload: IP and transport header; equal to
    /// [`transport_offset`](Self::transport_offset) for [`Transport::Other`].
    pub fn payload_offset(&self) -> usize {
        usize::from(self.payload_offset)
    }
}

fn parse_v4(packet: &[u8]) -> Result<Layout, ParseError> {
    let Some((header, _)) = packet.split_first_chunk::<IPV4_HEADER_LEN>() else {
        return Err(ParseError::TruncatedHeader);
    };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header_len < IPV4_HEADER_LEN || header_len > packet.len() {
        return Err(ParseError::TruncatedHeader);
    }
    let announced = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if announced != packet.len() {
        return Err(ParseError::LengthMismatch {
            announced,
            len: packet.len(),
        });
    }
    // More-fragments flag or an offset; "don't fragment" and the reserved bit say nothing.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(ParseError::Fragment);
    }
    if header_len > IPV4_HEADER_LEN && is_source_routed(&packet[IPV4_HEADER_LEN..header_len]) {
        return Err(ParseError::SourceRouted);
    }
    parse_transport(packet, IpVersion::V4, header[9], header_len)
}

/// Whether IPv4 options ask for loose or strict source routing (RFC 791 §3.1).
fn is_source_routed(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        match *options {
            [] | [END, ..] => return false,
            [LOOSE | STRICT, ..] => return true,
            [NO_OPERATION, ref rest @ ..] => options = rest,
            [_, len, ..] if len >= 2 && usize::from(len) <= options.len() => {
                options = &options[usize::from(len)..];
            }
            // Nobody can act on what follows a malformed option.
            _ => return false,
        }
    }
}

fn parse_v6(packet: &[u8]) -> Result<Layout, ParseError> {
    let Some((header, _)) = packet.split_first_chunk::<IPV6_HEADER_LEN>() else {
        return Err(ParseError::TruncatedHeader);
    };
    let announced = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if announced != packet.len() {
        return Err(ParseError::LengthMismatch {
            announced,
            len: packet.len(),
        });
    }
    match header[6] {
        // The usual case without a look at extension headers.
        next @ (number::TCP | number::UDP | number::ICMPV6) => {
            parse_transport(packet, IpVersion::V6, next, IPV6_HEADER_LEN)
        }
        next => {
            let (next, offset) = skip_extensions(packet, next)?;
            parse_transport(packet, IpVersion::V6, next, offset)
        }
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Walks the extension headers; returns the transport's protocol number and offset.
fn skip_extensions(packet: &[u8], first: u8) -> Result<(u8, usize), ParseError> {
    let mut next = first;
    let mut offset = IPV6_HEADER_LEN;
    for count in 0..=MAX_EXTENSION_HEADERS {
        if !is_extension(next) {
            return Ok((next, offset));
        }
        // Only the first place is allowed for hop-by-hop options (RFC 8200 §4.1).
        if count == MAX_EXTENSION_HEADERS || (next == HOP_BY_HOP && count > 0) {
            break;
        }
        // No extension header is shorter than 8 bytes.
        let Some(header) = packet.get(offset..offset + 8) else {
            break;
        };
        let len = match next {
            FRAGMENT => {
                // An atomic fragment (RFC 6946) has neither offset nor more-fragments flag.
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff9 != 0 {
                    return Err(ParseError::Fragment);
                }
                8
            }
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            ROUTING if header[3] != 0 => return Err(ParseError::SourceRouted),
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if len < 8 {
            break;
        }
        offset += len;
        if offset > packet.len() {
            break;
        }
        next = header[0];
    }
    Err(ParseError::MalformedExtensions)
}

/// As [`skip_extensions`] for the packet inside an ICMP error.
pub(crate) fn embedded_transport(packet: &[u8], first: u8) -> Result<(u8, usize), EmbeddedError> {
    skip_extensions(packet, first).map_err(|error| match error {
        ParseError::Fragment => EmbeddedError::Fragment,
        _ => EmbeddedError::Malformed,
    })
}

fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// Checks the transport header at `offset`, which is at most the packet's length.
fn parse_transport(
    packet: &[u8],
    version: IpVersion,
    next_header: u8,
    offset: usize,
) -> Result<Layout, ParseError> {
    let bytes = &packet[offset..];
    let (transport, header_len) = match (next_header, version) {
        (number::TCP, _) => (Transport::Tcp, tcp_header_len(bytes)?),
        (number::UDP, _) => (Transport::Udp, udp_header_len(bytes)?),
        (number::ICMPV4, IpVersion::V4) => (Transport::Icmpv4, icmp_header_len(bytes)?),
        (number::ICMPV6, IpVersion::V6) => (Transport::Icmpv6, icmp_header_len(bytes)?),
        (number::ICMPV4, IpVersion::V6) | (number::ICMPV6, IpVersion::V4) => {
            return Err(ParseError::IcmpVersionMismatch);
        }
        _ => (Transport::Other, 0),
    };
    Ok(Layout {
        version,
        transport,
        next_header,
        // Both fit: no packet is longer than `MAX_SUPER_SIZE`.
        transport_offset: offset as u16,
        payload_offset: (offset + header_len) as u16,
    })
}

fn tcp_header_len(bytes: &[u8]) -> Result<usize, ParseError> {
    let Some((header, _)) = bytes.split_first_chunk::<TCP_HEADER_LEN>() else {
        return Err(ParseError::MalformedTcp);
    };
    let len = usize::from(header[12] >> 4) * 4;
    if len < TCP_HEADER_LEN || len > bytes.len() {
        return Err(ParseError::MalformedTcp);
    }
    Ok(len)
}

fn udp_header_len(bytes: &[u8]) -> Result<usize, ParseError> {
    let Some((header, _)) = bytes.split_first_chunk::<UDP_HEADER_LEN>() else {
        return Err(ParseError::MalformedUdp);
    };
    if usize::from(u16::from_be_bytes([header[4], header[5]])) != bytes.len() {
        return Err(ParseError::MalformedUdp);
    }
    Ok(UDP_HEADER_LEN)
}

fn icmp_header_len(bytes: &[u8]) -> Result<usize, ParseError> {
    if bytes.len() < ICMP_HEADER_LEN {
        return Err(ParseError::MalformedIcmp);
    }
    Ok(ICMP_HEADER_LEN)
}

#[cfg(test)]
mod tests;
