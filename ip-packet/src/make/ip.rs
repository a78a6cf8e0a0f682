//! The IP header that every builder puts in front.

use crate::layout::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::{BuildError, IpPacket, MAX_IP_SIZE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP header without options.
pub(super) struct Header {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
}

impl Header {
    /// Lets `write` fill the `transport_len` bytes behind the header, then fills in all checksums.
    pub(super) fn build(
        &self,
        transport_len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<IpPacket, BuildError> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => build(
                IPV4_HEADER_LEN,
                transport_len,
                |header, len| {
                    self.write_v4(header, len, source, destination);
                },
                write,
            ),
            (IpAddr::V6(source), IpAddr::V6(destination)) => build(
                IPV6_HEADER_LEN,
                transport_len,
                |header, len| {
                    self.write_v6(header, len, source, destination);
                },
                write,
            ),
            (source_addr, destination) => Err(BuildError::MixedFamilies {
                source_addr,
                destination,
            }),
        }
    }

    fn write_v4(&self, header: &mut [u8], len: u16, source: Ipv4Addr, destination: Ipv4Addr) {
        header.fill(0);
        header[0] = 0x45;
        header[2..4].copy_from_slice(&len.to_be_bytes());
        // Don't fragment: fragments are unsupported end to end, and identification 0 is fine then (RFC 6864 §4).
        header[6] = 0x40;
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&destination.octets());
    }

    fn write_v6(&self, header: &mut [u8], len: u16, source: Ipv6Addr, destination: Ipv6Addr) {
        header.fill(0);
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(len - IPV6_HEADER_LEN as u16).to_be_bytes());
        header[6] = self.protocol;
        header[7] = self.ttl;
        header[8..24].copy_from_slice(&source.octets());
        header[24..40].copy_from_slice(&destination.octets());
    }
}

fn build(
    header_len: usize,
    transport_len: usize,
    write_header: impl FnOnce(&mut [u8], u16),
    write_transport: impl FnOnce(&mut [u8]),
) -> Result<IpPacket, BuildError> {
    let len = header_len + transport_len;
    if len > MAX_IP_SIZE {
        return Err(BuildError::TooLong(len));
    }
    let mut packet = IpPacket::from_fn(len, |bytes| {
        let (header, transport) = bytes.split_at_mut(header_len);
        write_header(header, len as u16);
        write_transport(transport);
    })
    .expect("builders write well-formed packets");
    packet.view_mut().fill_checksums();
    Ok(packet)
}
