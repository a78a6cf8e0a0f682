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
mod tests;
