//! Mutators against full recomputation.

use crate::testing::{Mutation, packet};
use crate::{Ecn, IpPacket, PacketMut, PacketRef, Transport, make};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn udp_v4() -> IpPacket {
    let (source, destination): (SocketAddr, SocketAddr) =
        ("10.0.0.1:7".parse().unwrap(), "10.0.0.2:9".parse().unwrap());
    make::udp_packet(source, destination, b"x").unwrap()
}

#[test]
fn tunnel_75_absent_udp_checksum_stays_absent() {
    let mut bytes = udp_v4().as_slice().to_vec();
    bytes[26..28].fill(0);
    let mut packet = PacketMut::parse(&mut bytes).unwrap();
    packet
        .translate_source(address("192.0.2.1"), 65_535)
        .unwrap();
    packet
        .translate_destination(address("192.0.2.2"), 1)
        .unwrap();
    assert_eq!(packet.as_udp().unwrap().checksum(), 0);
    assert!(packet.has_valid_checksums());
}

#[test]
fn tunnel_75_udp_sum_of_zero_is_sent_as_all_ones() {
    // Some port makes the sum zero; walk through all of them.
    let mut packet = udp_v4();
    let mut all_ones = 0;
    for port in 0..=u16::MAX {
        packet.view_mut().set_source_protocol(port);
        let checksum = packet.as_udp().unwrap().checksum();
        assert_ne!(checksum, 0, "port {port}");
        all_ones += usize::from(checksum == 0xffff);
        assert!(packet.has_valid_checksums(), "port {port}");
    }
    assert!(all_ones >= 1);
}

#[test]
fn tunnel_75_icmp_echo_identifier_fixes_the_sum() {
    let (a, b) = (address("10.0.0.1"), address("10.0.0.2"));
    let mut packet = make::icmp_echo_reply(a, b, 1, 0, &[0; 4]).unwrap();
    for id in [0, 1, 0xffff, 0, 0x1234] {
        packet.view_mut().set_destination_protocol(id);
        assert!(packet.has_valid_checksums(), "identifier {id}");
        let mut fresh = packet.clone();
        fresh.view_mut().fill_checksums();
        assert_eq!(packet, fresh);
    }
}

#[test]
fn ports_of_an_icmp_error_are_left_alone() {
    let error = make::icmp_unreachable(udp_v4().view(), make::Unreachable::Prohibited).unwrap();
    let mut translated = error.clone();
    translated.view_mut().set_source_protocol(77);
    translated.view_mut().set_destination_protocol(77);
    assert_eq!(translated, error);
}

#[test]
fn ecn_keeps_dscp_and_flow_label() {
    let (a, b) = (address("fd00::1"), address("fd00::2"));
    let mut bytes = make::icmp_echo_request(a, b, 1, 1, b"")
        .unwrap()
        .as_slice()
        .to_vec();
    bytes[0..4].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf0]);
    PacketMut::parse(&mut bytes).unwrap().set_ecn(Ecn::Ect0);
    assert_eq!(bytes[0..4], [0x6a, 0xac, 0xde, 0xf0]);
    let mut packet = udp_v4();
    packet.view_mut().set_ecn(Ecn::Ce);
    assert_eq!(packet.as_slice()[1], 0b11);
    assert!(packet.has_valid_checksums());
}

/// Where the transport's checksum is.
fn checksum_field(packet: PacketRef<'_>) -> Option<usize> {
    let offset = packet.layout().transport_offset();
    match packet.layout().transport() {
        Transport::Tcp => Some(offset + 16),
        Transport::Udp => Some(offset + 6),
        Transport::Icmpv4 | Transport::Icmpv6 => Some(offset + 2),
        Transport::Other => None,
    }
}

proptest! {
    #[test]
    fn tunnel_75_mutators_equal_full_recomputation(
        mut packet in packet(),
        mutations in proptest::collection::vec(Mutation::any(), 0..10),
    ) {
        for mutation in mutations {
            mutation.apply(&mut packet.view_mut());
        }
        prop_assert!(packet.has_valid_checksums());
        let mut fresh = packet.clone();
        fresh.view_mut().fill_checksums();
        prop_assert_eq!(packet.as_slice(), fresh.as_slice());
    }

    #[test]
    fn tunnel_75_wrong_checksum_stays_wrong(
        packet in packet(),
        wrong in 1..=0xffffu16,
        mutations in proptest::collection::vec(Mutation::any(), 0..10),
    ) {
        let Some(field) = checksum_field(packet.view()) else {
            return Ok(());
        };
        let mut bytes = packet.as_slice().to_vec();
        let broken = u16::from_be_bytes([bytes[field], bytes[field + 1]]) ^ wrong;
        bytes[field..field + 2].copy_from_slice(&broken.to_be_bytes());
        let mut packet = PacketMut::parse(&mut bytes).unwrap();
        // The other zero, and "absent".
        prop_assume!(!packet.view().has_valid_transport_checksum() && broken != 0 && broken != 0xffff);
        for mutation in mutations {
            mutation.apply(&mut packet);
            prop_assert!(!packet.view().has_valid_transport_checksum());
        }
    }

    #[test]
    fn tunnel_75_wrong_ip_checksum_stays_wrong(wrong in 1..0xffffu16, to: std::net::Ipv4Addr) {
        let mut bytes = udp_v4().as_slice().to_vec();
        let broken = u16::from_be_bytes([bytes[10], bytes[11]]).wrapping_add(wrong);
        bytes[10..12].copy_from_slice(&broken.to_be_bytes());
        let mut packet = PacketMut::parse(&mut bytes).unwrap();
        prop_assume!(!packet.view().has_valid_ip_checksum());
        packet.set_destination(to.into()).unwrap();
        packet.set_ecn(Ecn::Ect1);
        prop_assert!(!packet.view().has_valid_ip_checksum());
    }
}
