//! Translation in place, with incremental checksums (RFC 1624).
//!
//! * IPv4 header checksum: follows addresses and ECN.
//! * TCP, UDP, ICMPv6: follow addresses through the pseudo-header, and ports or identifiers.
//! * ICMPv4: follows identifiers only.
//! * A UDP checksum of zero means "absent" and stays; a computed zero is sent as 0xffff (RFC 768).

use super::PacketMut;
use crate::checksum::{self, Sum, udp_nonzero};
use crate::transport::read_u16;
use crate::{Ecn, FamilyMismatch, Icmpv4, Icmpv6, IpVersion, Transport};
use std::net::IpAddr;

/// Which end of the packet a mutator writes.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// Mutators.
impl PacketMut<'_> {
    /// Writes the source address.
    ///
    /// # Errors
    /// The address is of the other IP version; the packet is unchanged.
    pub fn set_source(&mut self, address: IpAddr) -> Result<(), FamilyMismatch> {
        self.set_address(End::Source, address)
    }

    /// Writes the destination address.
    ///
    /// # Errors
    /// The address is of the other IP version; the packet is unchanged.
    pub fn set_destination(&mut self, address: IpAddr) -> Result<(), FamilyMismatch> {
        self.set_address(End::Destination, address)
    }

    /// Writes the source port or echo identifier; does nothing to a packet that has neither.
    pub fn set_source_protocol(&mut self, value: u16) {
        self.set_protocol(End::Source, value);
    }

    /// Writes the destination port or echo identifier; does nothing to a packet that has neither.
    pub fn set_destination_protocol(&mut self, value: u16) {
        self.set_protocol(End::Destination, value);
    }

    /// Writes the source address and the source port or echo identifier.
    ///
    /// # Errors
    /// The address is of the other IP version; the packet is unchanged.
    pub fn translate_source(&mut self, address: IpAddr, value: u16) -> Result<(), FamilyMismatch> {
        self.set_source(address)?;
        self.set_source_protocol(value);
        Ok(())
    }

    /// Writes the destination address and the destination port or echo identifier.
    ///
    /// # Errors
    /// The address is of the other IP version; the packet is unchanged.
    pub fn translate_destination(
        &mut self,
        address: IpAddr,
        value: u16,
    ) -> Result<(), FamilyMismatch> {
        self.set_destination(address)?;
        self.set_destination_protocol(value);
        Ok(())
    }

    /// Writes the ECN codepoint.
    pub fn set_ecn(&mut self, ecn: Ecn) {
        match self.layout.version() {
            IpVersion::V4 => {
                let old = read_u16(self.bytes, 0);
                self.bytes[1] = self.bytes[1] & !0b11 | ecn.to_bits();
                let delta = Sum::new().sub_u16(old).add_u16(read_u16(self.bytes, 0));
                self.patch_ip_checksum(delta);
            }
            IpVersion::V6 => self.bytes[1] = self.bytes[1] & !0b11_0000 | ecn.to_bits() << 4,
        }
    }

    /// Computes all checksums anew: for a packet that was just made, never for one that came from somewhere.
    pub fn fill_checksums(&mut self) {
        if self.layout.version() == IpVersion::V4 {
            let header_len = usize::from(self.bytes[0] & 0x0f) * 4;
            self.write_u16(10, 0);
            let sum = checksum::of(&self.bytes[..header_len]);
            self.write_u16(10, sum);
        }
        self.fill_transport_checksum();
    }

    fn fill_transport_checksum(&mut self) {
        let Some(field) = self.transport_checksum_offset() else {
            return;
        };
        self.write_u16(field, 0);
        let (source, destination) = (self.source(), self.destination());
        let transport = &self.bytes[self.layout.transport_offset()..];
        let sum = match self.layout.transport() {
            Transport::Icmpv4 => checksum::of(transport),
            Transport::Udp => udp_nonzero(checksum::of_transport(
                source,
                destination,
                self.layout.next_header(),
                transport,
            )),
            Transport::Tcp | Transport::Icmpv6 | Transport::Other => {
                checksum::of_transport(source, destination, self.layout.next_header(), transport)
            }
        };
        self.write_u16(field, sum);
    }

    fn set_address(&mut self, end: End, address: IpAddr) -> Result<(), FamilyMismatch> {
        match (self.layout.version(), address) {
            (IpVersion::V4, IpAddr::V4(v4)) => {
                let at = match end {
                    End::Source => 12,
                    End::Destination => 16,
                };
                let delta = self.replace(at, v4.octets());
                self.patch_ip_checksum(delta);
                self.patch_pseudo_header(delta);
            }
            (IpVersion::V6, IpAddr::V6(v6)) => {
                let at = match end {
                    End::Source => 8,
                    End::Destination => 24,
                };
                let delta = self.replace(at, v6.octets());
                self.patch_pseudo_header(delta);
            }
            (_, address) => return Err(FamilyMismatch(address)),
        }
        Ok(())
    }

    fn set_protocol(&mut self, end: End, value: u16) {
        let transport = self.layout.transport_offset();
        let at = match (self.layout.transport(), end) {
            (Transport::Tcp | Transport::Udp, End::Source) => transport,
            (Transport::Tcp | Transport::Udp, End::Destination) => transport + 2,
            (Transport::Icmpv4 | Transport::Icmpv6, _) if self.is_echo() => transport + 4,
            (Transport::Icmpv4 | Transport::Icmpv6 | Transport::Other, _) => return,
        };
        let delta = self.replace(at, value.to_be_bytes());
        self.patch_transport_checksum(delta);
    }

    fn is_echo(&self) -> bool {
        let view = self.view();
        view.as_icmpv4()
            .is_some_and(|icmp: Icmpv4<'_>| icmp.is_echo())
            || view
                .as_icmpv6()
                .is_some_and(|icmp: Icmpv6<'_>| icmp.is_echo())
    }

    /// Writes bytes at an even offset of what a checksum covers; returns new words − old words.
    fn replace<const N: usize>(&mut self, at: usize, new: [u8; N]) -> Sum {
        let field = &mut self.bytes[at..at + N];
        let delta = Sum::new().sub_bytes(field).add_bytes(&new);
        field.copy_from_slice(&new);
        delta
    }

    fn patch_ip_checksum(&mut self, delta: Sum) {
        let patched = checksum::update(read_u16(self.bytes, 10), delta);
        self.write_u16(10, patched);
    }

    /// After a change of an address.
    fn patch_pseudo_header(&mut self, delta: Sum) {
        match self.layout.transport() {
            Transport::Tcp | Transport::Udp | Transport::Icmpv6 => {
                self.patch_transport_checksum(delta)
            }
            Transport::Icmpv4 | Transport::Other => {}
        }
    }

    fn patch_transport_checksum(&mut self, delta: Sum) {
        let Some(field) = self.transport_checksum_offset() else {
            return;
        };
        let old = read_u16(self.bytes, field);
        let new = checksum::update(old, delta);
        let new = match self.layout.transport() {
            Transport::Udp if old == 0 => return,
            Transport::Udp => udp_nonzero(new),
            Transport::Icmpv4 if new == 0 => self.icmpv4_zero(field),
            Transport::Icmpv4 | Transport::Icmpv6 | Transport::Tcp | Transport::Other => new,
        };
        self.write_u16(field, new);
    }

    /// RFC 1624 §3: an incremental update cannot tell the two zeros of one's complement apart. All other sums cover
    /// a byte that is never zero; an ICMPv4 echo reply may be zero throughout, and then only 0xffff is right.
    fn icmpv4_zero(&self, field: usize) -> u16 {
        let (before, after) = (
            &self.bytes[self.layout.transport_offset()..field],
            &self.bytes[field + 2..],
        );
        if before.iter().chain(after).all(|byte| *byte == 0) {
            0xffff
        } else {
            0
        }
    }

    fn transport_checksum_offset(&self) -> Option<usize> {
        let offset = match self.layout.transport() {
            Transport::Tcp => 16,
            Transport::Udp => 6,
            Transport::Icmpv4 | Transport::Icmpv6 => 2,
            Transport::Other => return None,
        };
        Some(self.layout.transport_offset() + offset)
    }

    fn write_u16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
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
}
