//! The header in front of packets that cross a TUN device with offload (`struct virtio_net_hdr`, virtio 1.2 §5.1.6).
//!
//! ```text
//! 0      1         2          4          6           8             10
//! flags  gso_type  hdr_len    gso_size   csum_start  csum_offset     all in the machine's byte order
//! ```

/// Length on the wire (bytes).
pub(crate) const LENGTH: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const NEEDS_CHECKSUM: u8 = 1;

/// `VIRTIO_NET_HDR_GSO_ECN`: a mark beside the type; the packet itself says the same.
const ECN: u8 = 0x80;

const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// What the kernel says about a packet, or is told about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnetHeader {
    /// How the packet is to be cut apart.
    pub gso: Gso,
    /// Transport payload of a segment (bytes); 0 without segmentation.
    pub segment_size: u16,
    /// Length of the headers up to the transport payload (bytes). On reading it is a hint that can be wrong for
    /// forwarded packets; on writing it must be right.
    pub header_len: u16,
    /// State of the transport checksum.
    pub checksum: Checksum,
}

/// How a super-packet is to be cut apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// An ordinary packet.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either, one datagram per segment.
    Udp,
}

/// State of a transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The packet carries the final value.
    Complete,
    /// The field holds the sum of the pseudo-header; the sum from `start` to the end is still to be added.
    Partial {
        /// Where the transport header starts in the packet (bytes).
        start: u16,
        /// Where the field is in the transport header (bytes).
        offset: u16,
    },
}

/// A header of a kind that was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown segmentation type {0}")]
pub struct InvalidHeader(pub u8);

impl VnetHeader {
    /// An ordinary packet with a final checksum.
    pub const PLAIN: Self = Self {
        gso: Gso::None,
        segment_size: 0,
        header_len: 0,
        checksum: Checksum::Complete,
    };

    /// Whether the packet stands for itself and is complete.
    pub fn is_plain(&self) -> bool {
        self.gso == Gso::None && self.checksum == Checksum::Complete
    }

    pub(crate) fn decode(bytes: [u8; LENGTH]) -> Result<Self, InvalidHeader> {
        let [flags, kind, a, b, c, d, e, f, g, h] = bytes;
        let gso = match kind & !ECN {
            GSO_NONE => Gso::None,
            GSO_TCP_V4 => Gso::TcpV4,
            GSO_TCP_V6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            other => return Err(InvalidHeader(other)),
        };
        let checksum = match flags & NEEDS_CHECKSUM {
            0 => Checksum::Complete,
            _ => Checksum::Partial {
                start: u16::from_ne_bytes([e, f]),
                offset: u16::from_ne_bytes([g, h]),
            },
        };
        Ok(Self {
            gso,
            segment_size: u16::from_ne_bytes([c, d]),
            header_len: u16::from_ne_bytes([a, b]),
            checksum,
        })
    }

    pub(crate) fn encode(&self) -> [u8; LENGTH] {
        let kind = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCP_V4,
            Gso::TcpV6 => GSO_TCP_V6,
            Gso::Udp => GSO_UDP_L4,
        };
        let (flags, start, offset) = match self.checksum {
            Checksum::Complete => (0, 0, 0),
            Checksum::Partial { start, offset } => (NEEDS_CHECKSUM, start, offset),
        };
        let [a, b] = self.header_len.to_ne_bytes();
        let [c, d] = self.segment_size.to_ne_bytes();
        let [e, f] = start.to_ne_bytes();
        let [g, h] = offset.to_ne_bytes();
        [flags, kind, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_is_all_zeros() {
        assert_eq!(VnetHeader::PLAIN.encode(), [0; LENGTH]);
        assert_eq!(VnetHeader::decode([0; LENGTH]), Ok(VnetHeader::PLAIN));
    }

    #[test]
    fn the_ecn_mark_is_not_part_of_the_type() {
        let header = VnetHeader::decode([0, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(header.gso, Gso::TcpV4);
    }

    #[test]
    fn data_that_the_kernel_vouches_for_is_complete() {
        let header = VnetHeader::decode([2, 0, 0, 0, 0, 0, 9, 9, 9, 9]).unwrap();
        assert_eq!(header.checksum, Checksum::Complete);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_written_back(bytes in any::<[u8; LENGTH]>()) {
            if let Ok(header) = VnetHeader::decode(bytes) {
                prop_assert_eq!(VnetHeader::decode(header.encode()), Ok(header));
            }
        }
    }
}
