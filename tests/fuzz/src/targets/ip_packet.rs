//! `ip-packet`: any bytes as a packet, then any mutators.
//!
//! Oracle: a mutator never changes whether a checksum is right (so right ones stay right, wrong ones are not repaired), what
//! it patches equals what a full computation gives, a translation and its inverse restore every byte, and each ICMP error
//! that is built here parses back to the flow that it is about.

use std::net::{IpAddr, SocketAddr};

use ip_packet::{
    Ecn, IcmpError, IpPacket, IpVersion, MAX_IP_SIZE, PacketMut, PacketRef, TcpFlags, Transport,
    make,
};

use crate::input::Input;

/// Most mutators of one run.
const MAX_ACTIONS: usize = 32;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mut bytes) = packet(&mut input) else {
        return;
    };
    let parsed = PacketRef::parse(&bytes).is_ok();
    assert_eq!(parsed, IpPacket::from_slice(&bytes).is_ok());
    if bytes.len() <= MAX_IP_SIZE {
        assert_eq!(parsed, PacketRef::parse_super(&bytes).is_ok());
    }
    let Ok(mut packet) = PacketMut::parse(&mut bytes) else {
        return;
    };
    inspect(packet.view());
    if input.flag() {
        packet.fill_checksums();
        assert!(packet.view().has_valid_checksums());
    }
    for _ in 0..MAX_ACTIONS {
        if input.is_empty() {
            break;
        }
        act(&mut input, &mut packet);
    }
    inspect(packet.view());
}

/// One packet of each kind, and a mutator of each kind behind it.
pub fn seeds() -> Vec<Vec<u8>> {
    let payload = [0, 4, 1, 2, 3, 4];
    let kinds = 0..8u8;
    let actions: Vec<u8> = (0..8u8).flat_map(|kind| [kind, 0, 1, 0, 9]).collect();
    kinds
        .map(|kind| [&[kind][..], &[0; 12], &payload, &[1], &actions].concat())
        .collect()
}

/// Bytes that are more or less a packet.
fn packet(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let kind = input.below(8);
    if kind == 0 {
        return Some(input.bytes(2 * MAX_IP_SIZE).to_vec());
    }
    if kind <= 2 {
        let mut bytes = input.bytes(MAX_IP_SIZE + 8).to_vec();
        repair(&mut bytes, kind == 1);
        return Some(bytes);
    }
    built(input, kind).map(|packet| packet.as_slice().to_vec())
}

/// Makes version and lengths right, so that the rest of the header is looked at.
fn repair(bytes: &mut [u8], is_v4: bool) {
    let len = bytes.len() as u16;
    match is_v4 {
        true if len >= 20 => {
            bytes[0] = 0x40 | (bytes[0] & 0x0f).max(5);
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[6..8].fill(0);
        }
        false if len >= 40 => {
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        }
        _ => {}
    }
}

fn built(input: &mut Input<'_>, kind: usize) -> Option<IpPacket> {
    let (from, to) = (input.socket(), input.socket());
    let (a, b) = (input.u16(), input.u16());
    let rest = input.array::<4>();
    let payload = input.bytes(MAX_IP_SIZE);
    let packet = match kind {
        3 => make::udp_packet(from, to, payload),
        4 => {
            let header = make::TcpHeader {
                sequence: u32::from(a),
                flags: TcpFlags::from_bits(rest[0]),
                options: &rest[..usize::from(rest[1] & 4)],
                ..make::TcpHeader::default()
            };
            make::tcp_packet(from, to, header, payload)
        }
        5 => make::icmp_echo_request(from.ip(), to.ip(), a, b, payload),
        6 if from.is_ipv4() => {
            make::icmpv4_message(from.ip(), to.ip(), 9, (a as u8, b as u8, rest), payload)
        }
        6 => make::icmpv6_message(from.ip(), to.ip(), 9, (a as u8, b as u8, rest), payload),
        _ => make::control_packet(a as u8, payload),
    };
    let packet = packet.ok()?;
    assert!(packet.has_valid_checksums());
    assert!(PacketRef::parse(packet.as_slice()).is_ok());
    Some(packet)
}

/// Calls every accessor, and builds what can be built from the packet.
fn inspect(packet: PacketRef<'_>) {
    let _ = format!("{packet:?}");
    let layout = packet.layout();
    assert!(layout.transport_offset() <= layout.payload_offset());
    assert!(layout.payload_offset() <= packet.as_slice().len());
    assert_eq!(packet.source().is_ipv4(), packet.destination().is_ipv4());
    let _ = (
        packet.ecn(),
        packet.hop_limit(),
        packet.has_valid_checksums(),
    );
    match layout.transport() {
        Transport::Tcp => {
            let tcp = packet.as_tcp().expect("it is TCP");
            assert!(tcp.options().len() <= 40 && tcp.options().len().is_multiple_of(4));
            let _ = (tcp.is_initial_syn(), tcp.flags(), tcp.window());
        }
        Transport::Udp => {
            let udp = packet.as_udp().expect("it is UDP");
            assert_eq!(usize::from(udp.length()), packet.payload().len());
        }
        Transport::Icmpv4 => assert!(packet.as_icmpv4().is_some()),
        Transport::Icmpv6 => assert!(packet.as_icmpv6().is_some()),
        Transport::Other => assert!(packet.source_protocol().is_err()),
    }
    if let Some(control) = packet.as_control() {
        let rebuilt = make::control_packet(control.event_type, control.payload);
        let again = rebuilt.expect("it is no longer than it was");
        assert_eq!(again.as_control(), Some(control));
    }
    for reason in [make::Unreachable::Prohibited, make::Unreachable::Network] {
        refuse(packet, reason);
    }
    if let Some(error) = packet.icmp_error() {
        translate_error(packet, error);
    }
}

/// The ICMP error about the packet leads back to the packet's flow.
fn refuse(packet: PacketRef<'_>, reason: make::Unreachable) {
    let Ok(refusal) = make::icmp_unreachable(packet, reason) else {
        return;
    };
    assert!(refusal.has_valid_checksums());
    assert!(packet.icmp_error().is_none(), "an error about an error");
    assert_eq!(refusal.source(), packet.destination());
    assert_eq!(refusal.destination(), packet.source());
    let error = refusal.icmp_error().expect("it is an ICMP error");
    assert_eq!(
        error.kind().is_prohibited(),
        reason == make::Unreachable::Prohibited
    );
    assert!(packet.as_slice().starts_with(error.embedded()));
    let Ok(failed) = error.failed_packet() else {
        return;
    };
    assert_eq!(failed.source(), packet.source());
    assert_eq!(failed.destination(), packet.destination());
    assert_eq!(Ok(failed.source_protocol()), packet.source_protocol());
    assert_eq!(
        Ok(failed.destination_protocol()),
        packet.destination_protocol()
    );
}

/// An ICMP error that crosses a NAT tells of the other side's flow, and of nothing else new.
fn translate_error(packet: PacketRef<'_>, error: IcmpError<'_>) {
    let (proxy, client): (IpAddr, IpAddr) = match packet.version() {
        IpVersion::V4 => ([100, 96, 0, 1].into(), [100, 64, 0, 1].into()),
        IpVersion::V6 => ([0xfd; 16].into(), [0xfc; 16].into()),
    };
    let Ok(translated) = make::translated_icmp_error(&error, proxy, client, 4711) else {
        return;
    };
    assert!(translated.has_valid_checksums());
    assert_eq!(
        (translated.source(), translated.destination()),
        (proxy, client)
    );
    let again = translated.icmp_error().expect("it is an ICMP error");
    assert_eq!(again.kind(), error.kind());
    let (before, after) = (
        error.failed_packet().expect("it was translated"),
        again.failed_packet().expect("it was made here"),
    );
    assert_eq!(after.destination(), proxy);
    assert_eq!(after.source(), before.source());
    assert_eq!(after.source_protocol().value(), 4711);
}

/// One mutator.
fn act(input: &mut Input<'_>, packet: &mut PacketMut<'_>) {
    let before = packet.as_slice().to_vec();
    let was_right = rightness(packet.view());
    let kind = input.below(8);
    let socket = input.socket();
    let (ip, value) = (socket.ip(), socket.port());
    let fits = ip.is_ipv4() == packet.source().is_ipv4();
    let done = match kind {
        0 => packet.set_source(ip).is_ok(),
        1 => packet.set_destination(ip).is_ok(),
        2 => packet.translate_source(ip, value).is_ok(),
        3 => packet.translate_destination(ip, value).is_ok(),
        4 => {
            packet.set_source_protocol(value);
            fits
        }
        5 => {
            packet.set_destination_protocol(value);
            fits
        }
        6 => {
            let ecn = Ecn::from_bits(value as u8);
            packet.set_ecn(ecn);
            assert_eq!(packet.ecn(), ecn);
            fits
        }
        _ => {
            there_and_back(packet, socket);
            fits
        }
    };
    assert_eq!(done, fits);
    if !fits && kind < 4 {
        assert_eq!(packet.as_slice(), before, "refused, so unchanged");
    }
    // One's complement has two zeros. A message of nothing but zeros needs the other one, and no patch can know.
    let was_zero = before[packet.view().layout().transport_offset()..]
        .iter()
        .all(|byte| *byte == 0);
    assert!(was_zero || rightness(packet.view()) == was_right);
    if was_right == (true, true) {
        assert_incremental_equals_full(packet.view());
    }
}

fn rightness(packet: PacketRef<'_>) -> (bool, bool) {
    (
        packet.has_valid_ip_checksum(),
        packet.has_valid_transport_checksum(),
    )
}

/// A NAT's two translations restore every byte, but for the two zeros of one's complement.
fn there_and_back(packet: &mut PacketMut<'_>, other: SocketAddr) {
    let (source, destination) = (packet.source(), packet.destination());
    let before = packet.as_slice().to_vec();
    let value = packet.source_protocol().map_or(0, |it| it.value());
    let moved = packet.translate_source(other.ip(), other.port()).is_ok()
        && packet.set_destination(other.ip()).is_ok();
    if moved {
        packet
            .translate_source(source, value)
            .expect("the version fits");
        packet
            .set_destination(destination)
            .expect("the version fits");
    }
    assert_eq!(without_zeros(packet.view()), {
        let view = PacketRef::with_layout(&before, packet.layout());
        without_zeros(view)
    });
}

fn assert_incremental_equals_full(packet: PacketRef<'_>) {
    let mut full = packet.as_slice().to_vec();
    let layout = packet.layout();
    if layout.transport() == Transport::Udp && packet.payload()[6..8] == [0, 0] {
        return; // No checksum to compare.
    }
    PacketMut::with_layout(&mut full, layout).fill_checksums();
    let full = PacketRef::with_layout(&full, layout);
    assert_eq!(without_zeros(packet), without_zeros(full));
}

/// The bytes, with checksums of 0xffff written as 0.
fn without_zeros(packet: PacketRef<'_>) -> Vec<u8> {
    let mut bytes = packet.as_slice().to_vec();
    let transport = packet.layout().transport_offset();
    let field = match packet.layout().transport() {
        Transport::Tcp => Some(16),
        Transport::Udp => Some(6),
        Transport::Icmpv4 | Transport::Icmpv6 => Some(2),
        Transport::Other => None,
    };
    let ip = (packet.version() == IpVersion::V4).then_some(10);
    for at in ip.into_iter().chain(field.map(|field| transport + field)) {
        if bytes[at..at + 2] == [0xff, 0xff] {
            bytes[at..at + 2].fill(0);
        }
    }
    bytes
}
