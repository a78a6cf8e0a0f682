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
        number::ICMPV4 if transport[0] != Icmpv4::ECHO_REQUEST => {
            Err(UnsupportedProtocol::Icmpv4Type(transport[0]))
        }
        number::ICMPV6 if transport[0] != Icmpv6::ECHO_REQUEST => {
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
mod tests {
    use super::IcmpErrorKind;
    use crate::make::{self, Unreachable};
    use crate::testing::with_extras;
    use crate::{EmbeddedError, IpPacket, Protocol, UnsupportedProtocol};
    use std::net::{IpAddr, SocketAddr};

    const V4: (&str, &str) = ("100.64.0.5", "203.0.113.9");
    const V6: (&str, &str) = ("fd00:2021:1111::5", "2001:db8::9");

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tcp((source, destination): (&str, &str)) -> IpPacket {
        let (source, destination) = (
            SocketAddr::new(ip(source), 4000),
            SocketAddr::new(ip(destination), 443),
        );
        make::tcp_packet(source, destination, make::TcpHeader::default(), &[7; 100]).unwrap()
    }

    /// A router's error about `embedded`.
    fn v4_error(icmp_type: u8, code: u8, rest: [u8; 4], embedded: &[u8]) -> IpPacket {
        make::icmpv4_message(
            ip("192.0.2.1"),
            ip(V4.0),
            60,
            (icmp_type, code, rest),
            embedded,
        )
        .unwrap()
    }

    fn v6_error(icmp_type: u8, code: u8, rest: [u8; 4], embedded: &[u8]) -> IpPacket {
        make::icmpv6_message(
            ip("2001:db8::1"),
            ip(V6.0),
            60,
            (icmp_type, code, rest),
            embedded,
        )
        .unwrap()
    }

    #[test]
    fn tunnel_63_kinds() {
        let v4 = |icmp_type, code, rest| {
            v4_error(icmp_type, code, rest, &[])
                .icmp_error()
                .map(|error| error.kind())
        };
        assert_eq!(
            v4(3, 1, [0; 4]),
            Some(IcmpErrorKind::V4Unreachable { code: 1 })
        );
        for mtu in [0, 1, 19, 1279] {
            let [high, low] = u16::to_be_bytes(mtu);
            assert_eq!(
                v4(3, 4, [9, 9, high, low]),
                Some(IcmpErrorKind::V4FragmentationNeeded { mtu })
            );
        }
        assert_eq!(
            v4(11, 1, [0; 4]),
            Some(IcmpErrorKind::V4TimeExceeded { code: 1 })
        );
        for other in [0, 4, 5, 8, 12, 13, 255] {
            assert_eq!(v4(other, 0, [0; 4]), None);
        }
        let v6 = |icmp_type, code, rest| {
            v6_error(icmp_type, code, rest, &[])
                .icmp_error()
                .map(|error| error.kind())
        };
        assert_eq!(
            v6(1, 4, [0; 4]),
            Some(IcmpErrorKind::V6Unreachable { code: 4 })
        );
        assert_eq!(
            v6(2, 0, [0xff; 4]),
            Some(IcmpErrorKind::V6PacketTooBig { mtu: u32::MAX })
        );
        assert_eq!(
            v6(3, 0, [0; 4]),
            Some(IcmpErrorKind::V6TimeExceeded { code: 0 })
        );
        for other in [0, 4, 128, 129, 135] {
            assert_eq!(v6(other, 0, [0; 4]), None);
        }
    }

    #[test]
    fn tunnel_63_eight_bytes_behind_the_embedded_header_are_enough() {
        for (packet, header) in [(tcp(V4), 20), (with_extras(&tcp(V4), 2), 36)] {
            let bytes = packet.as_slice();
            let error = v4_error(3, 3, [0; 4], &bytes[..header + 8]);
            let failed = error.icmp_error().unwrap().failed_packet().unwrap();
            assert_eq!(
                (failed.source(), failed.destination()),
                (ip(V4.0), ip(V4.1))
            );
            assert_eq!(failed.source_protocol(), Protocol::Tcp(4000));
            assert_eq!(failed.destination_protocol(), Protocol::Tcp(443));
            let short = v4_error(3, 3, [0; 4], &bytes[..header + 7]);
            assert_eq!(
                short.icmp_error().unwrap().failed_packet(),
                Err(EmbeddedError::Malformed)
            );
        }
        for (packet, header) in [(tcp(V6), 40), (with_extras(&tcp(V6), 2), 56)] {
            let error = v6_error(1, 0, [0; 4], &packet.as_slice()[..header + 8]);
            let failed = error.icmp_error().unwrap().failed_packet().unwrap();
            assert_eq!(
                (failed.source(), failed.destination()),
                (ip(V6.0), ip(V6.1))
            );
            assert_eq!(failed.source_protocol(), Protocol::Tcp(4000));
        }
    }

    #[test]
    fn embedded_packets_without_flow_are_errors() {
        let failed = |embedded: &[u8]| {
            v4_error(3, 1, [0; 4], embedded)
                .icmp_error()
                .unwrap()
                .failed_packet()
                .unwrap_err()
        };
        let reply = make::icmp_echo_reply(ip(V4.0), ip(V4.1), 1, 1, b"").unwrap();
        assert_eq!(
            failed(reply.as_slice()),
            EmbeddedError::Unsupported(UnsupportedProtocol::Icmpv4Type(0))
        );
        assert_eq!(failed(tcp(V6).as_slice()), EmbeddedError::VersionMismatch);
        assert_eq!(failed(&[]), EmbeddedError::Malformed);
        assert_eq!(failed(&[0x44; 40]), EmbeddedError::Malformed);
        let mut fragment = tcp(V4).as_slice().to_vec();
        fragment[7] = 1;
        assert_eq!(failed(&fragment), EmbeddedError::Fragment);
        let mut gre = tcp(V4).as_slice().to_vec();
        gre[9] = 47;
        assert_eq!(
            failed(&gre),
            EmbeddedError::Unsupported(UnsupportedProtocol::IpPayload(47))
        );
    }

    #[test]
    fn only_administratively_prohibited_is_prohibited() {
        let kind = |reason, packet: IpPacket| {
            let error = make::icmp_unreachable(packet.view(), reason).unwrap();
            error.icmp_error().unwrap().kind().is_prohibited()
        };
        for packet in [tcp(V4), tcp(V6)] {
            assert!(kind(Unreachable::Prohibited, packet.clone()));
            assert!(!kind(Unreachable::Network, packet));
        }
    }

    #[test]
    fn tunnel_63_translation_keeps_kind_and_rewrites_the_embedded_tuple() {
        let (proxy4, proxy6) = (ip("100.96.0.1"), ip("fd00:2021:1111:8000::"));
        let echo4 = make::icmp_echo_request(ip(V4.0), ip(V4.1), 9, 3, b"ping").unwrap();
        let echo6 = make::icmp_echo_request(ip(V6.0), ip(V6.1), 9, 3, b"ping").unwrap();
        let errors = [
            (
                v4_error(3, 4, [0, 0, 5, 0], &tcp(V4).as_slice()[..28]),
                proxy4,
                Protocol::Tcp(1234),
            ),
            (
                v4_error(11, 0, [0; 4], echo4.as_slice()),
                proxy4,
                Protocol::IcmpEcho(1234),
            ),
            (
                v6_error(2, 0, [0, 0, 5, 1], tcp(V6).as_slice()),
                proxy6,
                Protocol::Tcp(1234),
            ),
            (
                v6_error(3, 0, [0; 4], echo6.as_slice()),
                proxy6,
                Protocol::IcmpEcho(1234),
            ),
        ];
        for (original, proxy, expected) in errors {
            let error = original.icmp_error().unwrap();
            let client = original.destination();
            let translated = make::translated_icmp_error(&error, proxy, client, 1234).unwrap();
            assert_eq!(
                (translated.source(), translated.destination()),
                (proxy, client)
            );
            assert_eq!(translated.hop_limit(), 20);
            assert!(translated.has_valid_checksums());
            let translated = translated.icmp_error().unwrap();
            assert_eq!(translated.kind(), error.kind());
            assert_eq!(translated.embedded().len(), error.embedded().len());
            let failed = translated.failed_packet().unwrap();
            assert_eq!((failed.source(), failed.destination()), (client, proxy));
            assert_eq!(failed.source_protocol(), expected);
        }
    }

    #[test]
    fn translation_to_the_other_version_is_an_error() {
        let original = v4_error(3, 1, [0; 4], tcp(V4).as_slice());
        let error = original.icmp_error().unwrap();
        assert!(make::translated_icmp_error(&error, ip(V6.0), ip(V6.1), 1).is_err());
        assert!(make::translated_icmp_error(&error, ip(V4.0), ip(V6.1), 1).is_err());
    }
}
