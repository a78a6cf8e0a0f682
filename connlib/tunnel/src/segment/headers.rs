//! The header fields that segmentation and coalescing read and write in raw packets.

use ip_packet::checksum::Sum;
use ip_packet::number;

/// Length of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extensions.
const IPV6_LEN: usize = 40;
/// Length of a UDP header.
const UDP_LEN: usize = 8;
/// Length of a TCP header without options.
const TCP_LEN: usize = 20;

/// Longest header of a packet that may be merged: IPv6 without extensions, TCP with all options.
pub(super) const MAX_PLAIN_LEN: usize = IPV6_LEN + 60;

/// Offset of the flags byte in a TCP header.
pub(super) const TCP_FLAGS: usize = 13;
/// TCP flag FIN.
pub(super) const FIN: u8 = 0x01;
/// TCP flag PSH.
pub(super) const PSH: u8 = 0x08;
/// TCP flag ACK.
pub(super) const ACK: u8 = 0x10;
/// TCP flag CWR (RFC 3168).
pub(super) const CWR: u8 = 0x80;

/// "More fragments" and the fragment offset of IPv4; "don't fragment" is not among them.
const FRAGMENT_BITS: u16 = 0x3fff;

/// Transport of a packet that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransportKind {
    Tcp,
    Udp,
}

impl TransportKind {
    /// Offset of the checksum in the transport header (bytes).
    pub(super) fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Tcp => number::TCP,
            Self::Udp => number::UDP,
        }
    }
}

/// Where the parts of a TCP or UDP packet lie (bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) kind: TransportKind,
    /// Length of the IP header.
    pub(super) ip_len: usize,
    /// Length of IP and transport header.
    pub(super) header_len: usize,
    /// Length of the transport payload.
    pub(super) payload_len: usize,
}

impl Transport {
    /// Finds the parts of an unfragmented TCP or UDP packet without IPv6 extension headers.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let (ip_len, protocol) = match packet.first()? >> 4 {
            4 => parse_v4(packet)?,
            6 => parse_v6(packet)?,
            _ => return None,
        };
        let transport = packet.get(ip_len..)?;
        let (kind, len) = match protocol {
            number::TCP => (TransportKind::Tcp, usize::from(transport.get(12)? >> 4) * 4),
            number::UDP => (TransportKind::Udp, UDP_LEN),
            _ => return None,
        };
        let minimum = match kind {
            TransportKind::Tcp => TCP_LEN,
            TransportKind::Udp => UDP_LEN,
        };
        if len < minimum || len > transport.len() {
            return None;
        }
        Some(Self {
            kind,
            ip_len,
            header_len: ip_len + len,
            payload_len: transport.len() - len,
        })
    }

    /// Whether the packet carries nothing but data, so that it may be merged.
    pub(super) fn is_plain(self, packet: &[u8]) -> bool {
        let has_plain_ip = match packet[0] >> 4 {
            4 => self.ip_len == IPV4_LEN,
            _ => self.ip_len == IPV6_LEN,
        };
        let has_plain_transport = match self.kind {
            TransportKind::Tcp => packet[self.ip_len + TCP_FLAGS] & !PSH == ACK,
            // Zero means that there is nothing to verify.
            TransportKind::Udp => read_u16(packet, self.ip_len + 6) != 0,
        };
        has_plain_ip && has_plain_transport && self.payload_len > 0
    }

    /// Whether the packet is TCP with PSH.
    pub(super) fn has_push(self, packet: &[u8]) -> bool {
        self.kind == TransportKind::Tcp && packet[self.ip_len + TCP_FLAGS] & PSH != 0
    }
}

fn parse_v4(packet: &[u8]) -> Option<(usize, u8)> {
    let ip_len = usize::from(packet[0] & 0x0f) * 4;
    let is_whole = packet.len() >= ip_len
        && ip_len >= IPV4_LEN
        && usize::from(read_u16(packet, 2)) == packet.len()
        && read_u16(packet, 6) & FRAGMENT_BITS == 0;
    is_whole.then(|| (ip_len, packet[9]))
}

fn parse_v6(packet: &[u8]) -> Option<(usize, u8)> {
    let is_whole =
        packet.len() >= IPV6_LEN && usize::from(read_u16(packet, 4)) == packet.len() - IPV6_LEN;
    is_whole.then(|| (IPV6_LEN, packet[6]))
}

/// Whether both packets belong to one connection in one direction: equal addresses, protocol and ports.
pub(super) fn same_connection(a: &[u8], at_a: Transport, b: &[u8], at_b: Transport) -> bool {
    let addresses = match (a[0] >> 4, b[0] >> 4) {
        (4, 4) => 12..20,
        (6, 6) => 8..40,
        _ => return false,
    };
    at_a.kind == at_b.kind
        && a[at_a.ip_len..at_a.ip_len + 4] == b[at_b.ip_len..at_b.ip_len + 4]
        && a[addresses.clone()] == b[addresses]
}

/// Whether `next` may follow, under the header `first`, `payload_so_far` bytes of payload.
///
/// Both are plain packets of one connection. Window and IPv6 flow label may differ; the first packet's stay.
pub(super) fn can_share_header(
    first: &[u8],
    at_first: Transport,
    next: &[u8],
    at_next: Transport,
    payload_so_far: usize,
) -> bool {
    if at_first.header_len != at_next.header_len || !can_share_ip_header(first, next) {
        return false;
    }
    match at_first.kind {
        TransportKind::Udp => true,
        TransportKind::Tcp => {
            let (first, next) = (&first[at_first.ip_len..], &next[at_next.ip_len..]);
            // A super-packet is shorter than 64 KB.
            let expected = read_u32(first, 4).wrapping_add(payload_so_far as u32);
            read_u32(next, 4) == expected
                // Acknowledgement, data offset; urgent pointer and options.
                && first[8..TCP_FLAGS] == next[8..TCP_FLAGS]
                && first[18..] == next[18..]
        }
    }
}

fn can_share_ip_header(first: &[u8], next: &[u8]) -> bool {
    if first[0] >> 4 == 4 {
        // TOS; fragment flags and TTL.
        first[1] == next[1] && first[6..9] == next[6..9]
    } else {
        // Traffic class, hop limit.
        first[0] == next[0] && first[1] & 0xf0 == next[1] & 0xf0 && first[7] == next[7]
    }
}

/// The headers of a plain packet as it arrived: what the next packet of its stream is recognised by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Template {
    bytes: [u8; MAX_PLAIN_LEN],
    at: Transport,
}

impl Template {
    /// Of a [plain](Transport::is_plain) packet.
    pub(super) fn of(packet: &[u8], at: Transport) -> Self {
        let mut bytes = [0; MAX_PLAIN_LEN];
        bytes[..at.header_len].copy_from_slice(&packet[..at.header_len]);
        Self { bytes, at }
    }

    /// Where the parts of `packet` lie if it is plain, of the same connection, and could share the template's header
    /// behind `payload_so_far` bytes. The same as parsing and comparing, with the template's offsets instead of the
    /// packet's own.
    #[inline]
    pub(super) fn next(&self, packet: &[u8], payload_so_far: usize) -> Option<Transport> {
        let Transport {
            kind,
            ip_len,
            header_len,
            ..
        } = self.at;
        let first = &self.bytes[..header_len];
        let payload_len = packet.len().checked_sub(header_len)?;
        if payload_len == 0 || !self.has_next_ip_header(packet) {
            return None;
        }
        let (first, next) = (&first[ip_len..], &packet[ip_len..header_len]);
        let is_next = match kind {
            TransportKind::Tcp => {
                let expected = read_u32(first, 4).wrapping_add(payload_so_far as u32);
                first[..4] == next[..4]
                    && read_u32(next, 4) == expected
                    // Acknowledgement, data offset; flags; urgent pointer and options.
                    && first[8..TCP_FLAGS] == next[8..TCP_FLAGS]
                    && next[TCP_FLAGS] & !PSH == ACK
                    && first[18..20] == next[18..20]
                    && first[20..] == next[20..]
            }
            TransportKind::Udp => {
                first[..4] == next[..4]
                    && usize::from(read_u16(next, 4)) == UDP_LEN + payload_len
                    && read_u16(next, 6) != 0
            }
        };
        is_next.then_some(Transport {
            payload_len,
            ..self.at
        })
    }

    /// Equal but for the length, which is that of `packet`, and what may differ between segments.
    #[inline]
    fn has_next_ip_header(&self, packet: &[u8]) -> bool {
        let first = &self.bytes;
        if first[0] >> 4 == 4 {
            packet[..2] == first[..2]
                && usize::from(read_u16(packet, 2)) == packet.len()
                && packet[6..10] == first[6..10]
                && packet[12..IPV4_LEN] == first[12..IPV4_LEN]
        } else {
            can_share_ip_header(first, packet)
                && usize::from(read_u16(packet, 4)) == packet.len() - IPV6_LEN
                && packet[6] == first[6]
                && packet[8..IPV6_LEN] == first[8..IPV6_LEN]
        }
    }
}

/// Whether IPv4 and transport checksum are right.
#[inline]
pub(super) fn checksums_are_right(packet: &[u8], at: Transport) -> bool {
    let is_ip_right = packet[0] >> 4 != 4 || ip_header_sum(&packet[..at.ip_len]).fold() == 0xffff;
    is_ip_right
        && pseudo_header(packet, at.kind, packet.len() - at.ip_len)
            .add_bytes(&packet[at.ip_len..])
            .fold()
            == 0xffff
}

/// Sum of the pseudo-header with the packet's addresses and a transport of `length` bytes.
#[inline]
pub(super) fn pseudo_header(packet: &[u8], kind: TransportKind, length: usize) -> Sum {
    let addresses = match packet[0] >> 4 {
        4 => Sum::new().add_array(octets::<8>(packet, 12)),
        _ => Sum::new().add_array(octets::<32>(packet, 8)),
    };
    // Shorter than 64 KB.
    addresses
        .add_u16(u16::from(kind.number()))
        .add_u16(clamp_length(length))
}

#[inline]
fn ip_header_sum(header: &[u8]) -> Sum {
    match header.first_chunk::<IPV4_LEN>() {
        Some(plain) if header.len() == IPV4_LEN => Sum::new().add_array(plain),
        Some(_) | None => Sum::new().add_bytes(header),
    }
}

/// `N` bytes of a packet. Its header must be whole.
#[inline]
fn octets<const N: usize>(packet: &[u8], at: usize) -> &[u8; N] {
    packet[at..]
        .first_chunk()
        .expect("the header of a parsed packet is whole")
}

/// Writes lengths, PSH and the partial checksum of a super-packet into the header of its first packet.
pub(super) fn finish_super_packet(packet: &mut [u8], at: Transport, push: bool) {
    write_ip_length(packet, at.ip_len);
    let transport_len = packet.len() - at.ip_len;
    match at.kind {
        TransportKind::Tcp if push => packet[at.ip_len + TCP_FLAGS] |= PSH,
        TransportKind::Tcp => {}
        TransportKind::Udp => write_u16(packet, at.ip_len + 4, clamp_length(transport_len)),
    }
    let partial = pseudo_header(packet, at.kind, transport_len).fold();
    let field = at.ip_len + usize::from(at.kind.checksum_offset());
    write_u16(packet, field, partial);
}

/// Makes the IP header say the packet's length; IPv4's checksum follows.
pub(super) fn write_ip_length(packet: &mut [u8], ip_len: usize) {
    let len = packet.len();
    if packet[0] >> 4 == 4 {
        write_u16(packet, 2, clamp_length(len));
        write_u16(packet, 10, 0);
        let checksum = Sum::new().add_bytes(&packet[..ip_len]).finish();
        write_u16(packet, 10, checksum);
    } else {
        write_u16(packet, 4, clamp_length(len - IPV6_LEN));
    }
}

/// Lengths here are those of packets of at most 65 535 bytes.
pub(super) fn clamp_length(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// Reads a big-endian 16-bit field. `at + 2` must lie within `bytes`.
pub(super) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a big-endian 32-bit field. `at + 4` must lie within `bytes`.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a big-endian 16-bit field. `at + 2` must lie within `bytes`.
pub(super) fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a big-endian 32-bit field. `at + 4` must lie within `bytes`.
pub(super) fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
