//! Segmentation: a super-packet becomes packets, each with its own header in front of its payload.
//!
//! The payload stays where the TUN device wrote it. Segment *n*'s header is written over the bytes directly in front of
//! its payload, which are the end of segment *n − 1* and were sealed when that was handed out. Checksums are the sum of
//! the constant header fields, taken once, plus what differs, plus the payload.

use ip_packet::checksum::{Sum, udp_nonzero};
use ip_packet::{
    IpVersion, Layout, MAX_IP_SIZE, PacketBatch, PacketMut, PacketRef, ParseError, Transport,
};

use super::headers::{
    CWR, FIN, PSH, TCP_FLAGS, TransportKind, clamp_length, pseudo_header, read_u16, read_u32,
    write_u16, write_u32,
};
use super::{ChecksumState, GsoKind, TunPacket};

/// Longest header of a super-packet (bytes): 60 for TCP, 40 for IPv6, the rest for IPv6 extension headers.
const MAX_HEADER_LEN: usize = 256;

/// Most segments of a super-packet: 64 KB at the smallest payload that Linux's TCP sends in one (48 − 12 bytes).
const MAX_SEGMENTS: usize = 1_821;

/// Why a packet from the TUN device cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// It is no valid IP packet, or one above 1280 bytes that must not be segmented.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It is to be segmented by a protocol that it does not carry.
    #[error("super-packet does not carry the protocol of its segmentation")]
    WrongProtocol,
    /// Its segments would exceed the tunnel's packet size.
    #[error("segments of {0} bytes exceed the tunnel's packet size")]
    SegmentTooLarge(usize),
    /// The segment size is zero or absurdly small.
    #[error("super-packet has too many segments")]
    TooManySegments,
    /// More headers than any sender uses.
    #[error("headers of {0} bytes are too long for segmentation")]
    HeaderTooLong(usize),
    /// The missing checksum is said to lie where this protocol has none.
    #[error("checksum field is misplaced")]
    ChecksumMisplaced,
}

/// The packets of one super-packet.
///
/// First look at the headers through [`packet`](Self::packet) and translate them through
/// [`packet_mut`](Self::packet_mut), then iterate with [`PacketBatch::next_packet`]: every segment inherits them.
#[derive(Debug)]
pub struct Splitter<'a> {
    buf: &'a mut [u8],
    layout: Layout,
    state: State,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one exists per call on the stack; a box would allocate per super-packet"
)]
enum State {
    /// One packet that leaves as it is.
    Whole,
    /// No segment has left yet.
    Uncut {
        kind: TransportKind,
        size: usize,
    },
    /// `next` segments have left.
    Cutting {
        template: Template,
        next: usize,
    },
    Done,
}

impl<'a> Splitter<'a> {
    /// Validates the packet and completes its checksum if it is not to be segmented.
    ///
    /// # Errors
    ///
    /// [`SplitError`]; the packet cannot be sent and is dropped by the caller.
    pub fn new(packet: TunPacket<'a>) -> Result<Self, SplitError> {
        let TunPacket { buf, gso } = packet;
        let (kind, wanted) = match gso.kind {
            GsoKind::None => return Self::whole(buf, gso.checksum),
            GsoKind::Tcp => (TransportKind::Tcp, Transport::Tcp),
            GsoKind::Udp => (TransportKind::Udp, Transport::Udp),
        };
        let layout = PacketRef::parse_super(buf)?.layout();
        if layout.transport() != wanted {
            return Err(SplitError::WrongProtocol);
        }
        let size = usize::from(gso.segment_size);
        check_sizes(layout.payload_offset(), buf.len(), size)?;
        Ok(Self {
            buf,
            layout,
            state: State::Uncut { kind, size },
        })
    }

    fn whole(buf: &'a mut [u8], checksum: ChecksumState) -> Result<Self, SplitError> {
        let layout = PacketRef::parse(buf)?.layout();
        if let ChecksumState::Partial { start, offset } = checksum {
            complete_checksum(buf, layout, usize::from(start), usize::from(offset))?;
        }
        Ok(Self {
            buf,
            layout,
            state: State::Whole,
        })
    }

    /// The super-packet; all segments share its addresses, ports and flags.
    pub fn packet(&self) -> PacketRef<'_> {
        PacketRef::with_layout(self.buf, self.layout)
    }

    /// The super-packet's headers, for translation before the first segment is taken.
    pub fn packet_mut(&mut self) -> PacketMut<'_> {
        PacketMut::with_layout(self.buf, self.layout)
    }

    /// Number of packets that the super-packet becomes.
    pub fn segments(&self) -> usize {
        match self.state {
            State::Uncut { size, .. } => {
                segments(self.layout.payload_offset(), self.buf.len(), size)
            }
            State::Whole | State::Cutting { .. } | State::Done => 1,
        }
    }
}

impl PacketBatch for Splitter<'_> {
    fn next_packet(&mut self) -> Option<&[u8]> {
        match self.state {
            State::Done => return None,
            State::Whole => {
                self.state = State::Done;
                return Some(self.buf);
            }
            State::Uncut { kind, size } => {
                let template = Template::new(self.buf, self.layout, kind, size);
                self.state = State::Cutting { template, next: 0 };
            }
            State::Cutting { .. } => {}
        }
        let State::Cutting { template, next } = &mut self.state else {
            return None;
        };
        let range = template.segment(*next, self.buf.len())?;
        let packet = &mut self.buf[range.start..range.end];
        template.write(packet, *next, range.is_last);
        *next += 1;
        Some(packet)
    }
}

fn check_sizes(header_len: usize, len: usize, size: usize) -> Result<(), SplitError> {
    if header_len > MAX_HEADER_LEN {
        return Err(SplitError::HeaderTooLong(header_len));
    }
    let largest = header_len + size.min(len - header_len);
    if largest > MAX_IP_SIZE {
        return Err(SplitError::SegmentTooLarge(largest));
    }
    if size == 0 || segments(header_len, len, size) > MAX_SEGMENTS {
        return Err(SplitError::TooManySegments);
    }
    Ok(())
}

/// A super-packet without payload is one segment.
fn segments(header_len: usize, len: usize, size: usize) -> usize {
    (len - header_len).div_ceil(size).max(1)
}

/// Adds what a partially offloaded checksum lacks: the sum over everything from `start`, where the field itself holds
/// the sum of the pseudo-header.
fn complete_checksum(
    buf: &mut [u8],
    layout: Layout,
    start: usize,
    offset: usize,
) -> Result<(), SplitError> {
    let field = start + offset;
    let expected = match layout.transport() {
        Transport::Tcp => Some(16),
        Transport::Udp => Some(6),
        Transport::Icmpv4 | Transport::Icmpv6 => Some(2),
        Transport::Other => None,
    };
    // Anywhere else the checksum would overwrite fields that have been validated.
    let is_misplaced = match expected {
        Some(expected) => start != layout.transport_offset() || offset != expected,
        None => start < layout.transport_offset(),
    };
    if is_misplaced || field + 2 > buf.len() {
        return Err(SplitError::ChecksumMisplaced);
    }
    let checksum = Sum::new().add_bytes(&buf[start..]).finish();
    let checksum = match layout.transport() {
        Transport::Udp => udp_nonzero(checksum),
        Transport::Tcp | Transport::Icmpv4 | Transport::Icmpv6 | Transport::Other => checksum,
    };
    write_u16(buf, field, checksum);
    Ok(())
}

/// The header of a super-packet, and the sums of those of its fields that all segments share.
#[derive(Debug)]
struct Template {
    header: [u8; MAX_HEADER_LEN],
    header_len: usize,
    ip_len: usize,
    kind: TransportKind,
    version: IpVersion,
    size: usize,
    ip_sum: Sum,
    transport_sum: Sum,
}

/// Where a segment lies in the super-packet's buffer, header included.
struct SegmentRange {
    start: usize,
    end: usize,
    is_last: bool,
}

impl Template {
    fn new(packet: &[u8], layout: Layout, kind: TransportKind, size: usize) -> Self {
        let (header_len, ip_len) = (layout.payload_offset(), layout.transport_offset());
        let mut header = [0; MAX_HEADER_LEN];
        header[..header_len].copy_from_slice(&packet[..header_len]);
        Self {
            header,
            header_len,
            ip_len,
            kind,
            version: layout.version(),
            size,
            ip_sum: constant_ip_sum(&header[..ip_len]),
            transport_sum: constant_transport_sum(&header[..header_len], ip_len, kind),
        }
    }

    fn segment(&self, index: usize, len: usize) -> Option<SegmentRange> {
        let start = index * self.size;
        if index > 0 && start + self.header_len >= len {
            return None;
        }
        let end = (start + self.header_len + self.size).min(len);
        Some(SegmentRange {
            start,
            end,
            is_last: end == len,
        })
    }

    fn write(&self, packet: &mut [u8], index: usize, is_last: bool) {
        packet[..self.header_len].copy_from_slice(&self.header[..self.header_len]);
        self.write_ip_header(packet, index);
        let (_, transport) = packet.split_at_mut(self.ip_len);
        match self.kind {
            TransportKind::Tcp => self.write_tcp_header(transport, index, is_last),
            TransportKind::Udp => self.write_udp_header(transport),
        }
    }

    fn write_ip_header(&self, packet: &mut [u8], index: usize) {
        let len = clamp_length(packet.len());
        match self.version {
            IpVersion::V4 => {
                // At most `MAX_SEGMENTS`.
                let id = read_u16(&self.header, 4).wrapping_add(index as u16);
                write_u16(packet, 2, len);
                write_u16(packet, 4, id);
                write_u16(packet, 10, self.ip_sum.add_u16(len).add_u16(id).finish());
            }
            IpVersion::V6 => write_u16(packet, 4, len - 40),
        }
    }

    fn write_tcp_header(&self, tcp: &mut [u8], index: usize, is_last: bool) {
        let tcp_len = self.header_len - self.ip_len;
        // Less than 64 KB.
        let sequence =
            read_u32(&self.header, self.ip_len + 4).wrapping_add((index * self.size) as u32);
        let mut flags = self.header[self.ip_len + TCP_FLAGS];
        if !is_last {
            flags &= !(FIN | PSH);
        }
        if index > 0 {
            flags &= !CWR;
        }
        write_u32(tcp, 4, sequence);
        tcp[TCP_FLAGS] = flags;
        let checksum = self
            .transport_sum
            .add_u16(clamp_length(tcp.len()))
            .add_u16((sequence >> 16) as u16)
            .add_u16(sequence as u16)
            .add_u16(u16::from(flags))
            .add_bytes(&tcp[tcp_len..])
            .finish();
        write_u16(tcp, 16, checksum);
    }

    fn write_udp_header(&self, udp: &mut [u8]) {
        let len = clamp_length(udp.len());
        write_u16(udp, 4, len);
        // Once in the pseudo-header, once in the header.
        let checksum = self
            .transport_sum
            .add_u16(len)
            .add_u16(len)
            .add_bytes(&udp[8..])
            .finish();
        write_u16(udp, 6, udp_nonzero(checksum));
    }
}

/// Sum of an IPv4 header without length, identification and checksum; nothing for IPv6.
fn constant_ip_sum(header: &[u8]) -> Sum {
    if header[0] >> 4 != 4 {
        return Sum::new();
    }
    Sum::new()
        .add_bytes(&header[..2])
        .add_bytes(&header[6..10])
        .add_bytes(&header[12..])
}

/// Sum of pseudo-header and transport header without lengths, checksum, and TCP's sequence number and flags.
fn constant_transport_sum(header: &[u8], ip_len: usize, kind: TransportKind) -> Sum {
    let transport = &header[ip_len..];
    let sum = pseudo_header(header, kind, 0).add_bytes(&transport[..4]);
    match kind {
        TransportKind::Udp => sum,
        TransportKind::Tcp => sum
            .add_bytes(&transport[8..12])
            .add_bytes(&[transport[12], 0])
            .add_bytes(&transport[14..16])
            .add_bytes(&transport[18..]),
    }
}

#[cfg(test)]
mod tests {
    use ip_packet::make::TcpHeader;
    use ip_packet::{IpPacket, TcpFlags};
    use proptest::prelude::*;

    use super::super::GsoMeta;
    use super::super::testing::{ACK, Flow, pattern, split, super_packet, with_bytes, with_id};
    use super::*;

    fn parsed(packets: &[Vec<u8>]) -> Vec<PacketRef<'_>> {
        packets
            .iter()
            .map(|packet| PacketRef::parse(packet).unwrap())
            .collect()
    }

    fn error(mut bytes: Vec<u8>, gso: GsoMeta) -> SplitError {
        Splitter::new(TunPacket {
            buf: &mut bytes,
            gso,
        })
        .unwrap_err()
    }

    #[test]
    fn ordinary_packet_passes_unchanged() {
        let packet = Flow::v4(1).tcp(9, ACK, b"hello");
        assert_eq!(split(packet.as_slice(), GsoMeta::NONE), [packet.as_slice()]);
    }

    // tunnel 83
    #[test]
    fn tunnel_83_partial_checksum_of_an_ordinary_packet_is_completed() {
        for complete in [
            Flow::v4(1).tcp(9, ACK, &pattern(101)),
            Flow::v6(1).udp(&pattern(100)),
        ] {
            let at = super::super::headers::Transport::parse(complete.as_slice()).unwrap();
            let mut bytes = complete.as_slice().to_vec();
            let partial = pseudo_header(&bytes, at.kind, bytes.len() - at.ip_len).fold();
            let offset = at.kind.checksum_offset();
            write_u16(&mut bytes, at.ip_len + usize::from(offset), partial);

            let start = at.ip_len as u16;
            let checksum = ChecksumState::Partial { start, offset };
            let gso = GsoMeta {
                checksum,
                ..GsoMeta::NONE
            };
            assert_eq!(split(&bytes, gso), [complete.as_slice()]);
        }
    }

    // tunnel 83
    #[test]
    fn tunnel_83_tcp_super_packet_becomes_segments() {
        let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let flags = ACK | TcpFlags::PSH | TcpFlags::FIN | TcpFlags::CWR;
        for flow in [Flow::v4(1), Flow::v6(1)] {
            let header = TcpHeader {
                sequence: u32::MAX - 1500,
                flags,
                options: &options,
                ..Default::default()
            };
            let first = with_id(flow.tcp_with(header, &[]), 0xfffe);
            let payload = pattern(3 * 1000 + 17);
            let (bytes, gso) = super_packet(&first, &payload, 1000);
            let packets = split(&bytes, gso);
            let packets = parsed(&packets);

            assert_eq!(packets.len(), 4);
            for (index, packet) in packets.iter().enumerate() {
                let tcp = packet.as_tcp().unwrap();
                assert!(packet.has_valid_checksums());
                assert_eq!(
                    tcp.sequence(),
                    (u32::MAX - 1500).wrapping_add(index as u32 * 1000)
                );
                assert_eq!(
                    tcp.flags().contains(TcpFlags::FIN | TcpFlags::PSH),
                    index == 3
                );
                assert_eq!(tcp.flags().contains(TcpFlags::CWR), index == 0);
                assert_eq!(tcp.options(), options);
                if packet.version() == IpVersion::V4 {
                    assert_eq!(
                        read_u16(packet.as_slice(), 4),
                        0xfffe_u16.wrapping_add(index as u16)
                    );
                }
            }
            let rejoined: Vec<_> = packets
                .iter()
                .flat_map(|packet| packet.l4_payload().to_vec())
                .collect();
            assert_eq!(rejoined, payload);
        }
    }

    // tunnel 83
    #[test]
    fn tunnel_83_udp_super_packet_becomes_datagrams() {
        for flow in [Flow::v4(1), Flow::v6(1)] {
            let payload = pattern(2 * 1200 + 1);
            let (bytes, gso) = super_packet(&flow.udp(&[]), &payload, 1200);
            let packets = split(&bytes, gso);

            let lengths: Vec<_> = parsed(&packets)
                .iter()
                .map(|packet| {
                    assert!(packet.has_valid_checksums());
                    packet.as_udp().unwrap().length()
                })
                .collect();
            assert_eq!(lengths, [1208, 1208, 9]);
        }
    }

    // tunnel 83
    #[test]
    fn tunnel_83_largest_super_packet() {
        let first = Flow::v4(1).tcp(0, ACK, &[]);
        let (bytes, gso) = super_packet(&first, &pattern(65_535 - 40), 1240);
        assert_eq!(bytes.len(), 65_535);

        let packets = split(&bytes, gso);
        assert_eq!(packets.len(), 53);
        assert!(packets.iter().all(|packet| packet.len() <= MAX_IP_SIZE));
        assert!(
            parsed(&packets)
                .iter()
                .all(|packet| packet.has_valid_checksums())
        );
    }

    #[test]
    fn segments_shorter_than_their_header_do_not_destroy_each_other() {
        let first = Flow::v6(1).tcp(0, ACK, &[]);
        let payload = pattern(100);
        let (bytes, gso) = super_packet(&first, &payload, 3);
        let packets = split(&bytes, gso);

        let rejoined: Vec<_> = parsed(&packets)
            .iter()
            .flat_map(|packet| packet.l4_payload().to_vec())
            .collect();
        assert_eq!(rejoined, payload);
    }

    #[test]
    fn super_packet_of_one_short_segment_gets_its_checksum() {
        let (bytes, gso) = super_packet(&Flow::v4(1).udp(&[]), b"abc", 1200);
        let packets = split(&bytes, gso);
        assert_eq!(packets, [Flow::v4(1).udp(b"abc").as_slice()]);
    }

    #[test]
    fn translation_before_the_first_segment_reaches_all() {
        let (mut bytes, gso) = super_packet(&Flow::v4(1).tcp(0, ACK, &[]), &pattern(2500), 1000);
        let mut splitter = Splitter::new(TunPacket {
            buf: &mut bytes,
            gso,
        })
        .unwrap();
        assert_eq!(splitter.segments(), 3);
        splitter
            .packet_mut()
            .translate_source([192, 0, 2, 9].into(), 4711)
            .unwrap();

        let mut seen = 0;
        while let Some(packet) = splitter.next_packet() {
            let packet = PacketRef::parse(packet).unwrap();
            assert!(packet.has_valid_checksums());
            assert_eq!(packet.as_tcp().unwrap().source_port(), 4711);
            assert_eq!(packet.source().to_string(), "192.0.2.9");
            seen += 1;
        }
        assert_eq!(seen, 3);
    }

    // tunnel 78
    #[test]
    fn tunnel_78_what_exceeds_the_packet_size_is_refused() {
        let fits = Flow::v4(1).udp(&pattern(1252));
        assert_eq!(fits.as_slice().len(), 1280);
        assert_eq!(split(fits.as_slice(), GsoMeta::NONE).len(), 1);

        let (too_long, gso) = super_packet(&Flow::v4(1).udp(&[]), &pattern(1253), 1253);
        assert_eq!(
            error(too_long.clone(), gso),
            SplitError::SegmentTooLarge(1281)
        );
        assert!(matches!(
            error(too_long, GsoMeta::NONE),
            SplitError::Parse(ParseError::TooLong { .. })
        ));
    }

    #[test]
    fn contradictions_are_refused() {
        let (bytes, tcp) = super_packet(&Flow::v4(1).tcp(0, ACK, &[]), &pattern(3000), 1000);
        let gso = |kind, segment_size| GsoMeta {
            kind,
            segment_size,
            ..tcp
        };

        assert_eq!(
            error(bytes.clone(), gso(GsoKind::Udp, 1000)),
            SplitError::WrongProtocol
        );
        assert_eq!(
            error(bytes.clone(), gso(GsoKind::Tcp, 0)),
            SplitError::TooManySegments
        );
        assert_eq!(
            error(bytes.clone(), gso(GsoKind::Tcp, 1)),
            SplitError::TooManySegments
        );

        let packet = Flow::v4(1).udp(b"x").as_slice().to_vec();
        for (start, offset) in [(0, 6), (20, 8), (21, 5), (20, 2), (u16::MAX, u16::MAX)] {
            let checksum = ChecksumState::Partial { start, offset };
            let gso = GsoMeta {
                checksum,
                ..GsoMeta::NONE
            };
            assert_eq!(error(packet.clone(), gso), SplitError::ChecksumMisplaced);
        }
    }

    #[test]
    fn long_extension_headers_are_not_segmented() {
        let packet = Flow::v6(1).udp(&pattern(8));
        let mut bytes = packet.as_slice().to_vec();
        // A destination-options header of 264 bytes between IPv6 and UDP.
        let mut options = vec![17, 32];
        options.resize(264, 0);
        bytes[6] = 60;
        bytes.splice(40..40, options);
        let len = bytes.len() as u16 - 40;
        write_u16(&mut bytes, 4, len);
        let gso = GsoMeta {
            kind: GsoKind::Udp,
            segment_size: 4,
            ..GsoMeta::NONE
        };
        assert_eq!(error(bytes, gso), SplitError::HeaderTooLong(312));
    }

    fn any_gso() -> impl Strategy<Value = GsoMeta> {
        let kind = prop_oneof![Just(GsoKind::None), Just(GsoKind::Tcp), Just(GsoKind::Udp)];
        let checksum = prop_oneof![
            Just(ChecksumState::Complete),
            (any::<u16>(), any::<u16>())
                .prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
            (0u16..80, 0u16..20)
                .prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
        ];
        (kind, any::<u16>(), checksum).prop_map(|(kind, segment_size, checksum)| GsoMeta {
            kind,
            segment_size,
            checksum,
        })
    }

    fn exhaust(mut bytes: Vec<u8>, gso: GsoMeta) {
        let Ok(mut splitter) = Splitter::new(TunPacket {
            buf: &mut bytes,
            gso,
        }) else {
            return;
        };
        let mut count = 0;
        while let Some(packet) = splitter.next_packet() {
            assert!(IpPacket::from_slice(packet).is_ok());
            count += 1;
        }
        assert!(count <= MAX_SEGMENTS);
        assert!(splitter.next_packet().is_none());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3000), gso in any_gso()) {
            exhaust(bytes, gso);
        }

        #[test]
        fn damaged_super_packets_never_panic(
            v6: bool, udp: bool, len in 0usize..5000, at in 0usize..80, byte: u8, gso in any_gso(),
        ) {
            let flow = if v6 { Flow::v6(1) } else { Flow::v4(1) };
            let first = if udp { flow.udp(&[]) } else { flow.tcp(0, ACK, &[]) };
            let (mut bytes, _) = super_packet(&first, &pattern(len), 1000);
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
            exhaust(bytes, gso);
        }

        #[test]
        fn checksum_of_every_segment_is_right(
            v6: bool, udp: bool, tos: u8, payload in proptest::collection::vec(any::<u8>(), 0..9000), size in 7u16..1200,
        ) {
            let flow = if v6 { Flow::v6(1) } else { Flow::v4(1) };
            let first = if udp { flow.udp(&[]) } else { flow.tcp(5, ACK, &[]) };
            let first = with_bytes(first, |bytes| bytes[1] = if v6 { tos & 0xf0 } else { tos });
            let (bytes, gso) = super_packet(&first, &payload, size);
            let packets = split(&bytes, gso);
            prop_assert_eq!(packets.len(), payload.len().div_ceil(usize::from(size)).max(1));
            for packet in parsed(&packets) {
                prop_assert!(packet.has_valid_checksums());
            }
        }
    }
}
