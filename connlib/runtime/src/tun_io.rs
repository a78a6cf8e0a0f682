//! The TUN device, as the state machine sees it: its packets with what the device says about them.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use connlib_tun::{Checksum, Gso, Offload, READ_BUFFER_BYTES, Tun, VnetHeader};
use connlib_tunnel::{
    TunPacket,
    segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta, Splitter},
};
use ip_packet::{PacketBatch as _, PacketRef};

/// The device and its read buffer.
pub(crate) struct TunIo {
    tun: Tun,
    buffer: Vec<u8>,
    /// Packets that the device did not take.
    lost: u64,
}

impl TunIo {
    pub(crate) fn new(tun: Tun) -> Self {
        Self {
            tun,
            buffer: vec![0; READ_BUFFER_BYTES],
            lost: 0,
        }
    }

    /// What may be merged for this device.
    pub(crate) fn coalescing(&self) -> Coalescing {
        match self.tun.write_offload() {
            Offload::None => Coalescing::OFF,
            Offload::Tcp => Coalescing {
                tcp: true,
                udp: false,
            },
            Offload::TcpAndUdp => Coalescing::ON,
        }
    }

    /// The next packet or super-packet; `None` when nothing waits. An error means that the device is gone.
    pub(crate) fn read(&mut self) -> io::Result<Option<TunPacket<'_>>> {
        let (header, length) = loop {
            match self.tun.read(&mut self.buffer) {
                Ok(Some(read)) => break read,
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::debug!(%error, "Passing over a packet of the TUN device");
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Some(TunPacket {
            buf: &mut self.buffer[..length],
            gso: meta(header),
        }))
    }

    /// Writes everything that is collected.
    pub(crate) fn write(&mut self, coalescer: &mut Coalescer) {
        if coalescer.is_empty() {
            return;
        }
        let mut refused = false;
        for (gso, packet) in coalescer.drain() {
            match self.tun.write(header(gso, packet), packet) {
                Ok(()) => {}
                Err(error)
                    if error.kind() == io::ErrorKind::InvalidInput && gso.kind != GsoKind::None =>
                {
                    refused = true;
                    self.write_split(TunPacket { buf: packet, gso });
                }
                Err(error) => self.count_loss(&error),
            }
        }
        if refused {
            tracing::info!(
                "The kernel takes no super-packets on the TUN device; writing packet by packet"
            );
            coalescer.set_coalescing(self.coalescing());
        }
    }

    /// Writes a super-packet that the kernel refused as the packets it was made of.
    fn write_split(&mut self, packet: TunPacket<'_>) {
        let Ok(mut packets) = Splitter::new(packet) else {
            self.lost += 1;
            return;
        };
        while let Some(packet) = packets.next_packet() {
            if let Err(error) = self.tun.write(VnetHeader::PLAIN, packet) {
                self.count_loss(&error);
            }
        }
    }

    /// A device that is down or full loses packets, as any network does.
    fn count_loss(&mut self, error: &io::Error) {
        self.lost += 1;
        if self.lost.is_power_of_two() {
            tracing::debug!(%error, lost = self.lost, "The TUN device did not take a packet");
        }
    }
}

impl AsRawFd for TunIo {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.as_raw_fd()
    }
}

fn meta(header: VnetHeader) -> GsoMeta {
    GsoMeta {
        kind: match header.gso {
            Gso::None => GsoKind::None,
            Gso::TcpV4 | Gso::TcpV6 => GsoKind::Tcp,
            Gso::Udp => GsoKind::Udp,
        },
        segment_size: header.segment_size,
        checksum: match header.checksum {
            Checksum::Complete => ChecksumState::Complete,
            Checksum::Partial { start, offset } => ChecksumState::Partial { start, offset },
        },
    }
}

fn header(gso: GsoMeta, packet: &[u8]) -> VnetHeader {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let kind = match (gso.kind, is_v4) {
        (GsoKind::None, _) => Gso::None,
        (GsoKind::Tcp, true) => Gso::TcpV4,
        (GsoKind::Tcp, false) => Gso::TcpV6,
        (GsoKind::Udp, _) => Gso::Udp,
    };
    let header_len = match gso.kind {
        GsoKind::None => 0,
        // The kernel wants the headers' length of a super-packet; the coalescer makes only valid ones.
        GsoKind::Tcp | GsoKind::Udp => PacketRef::parse_super(packet)
            .ok()
            .and_then(|packet| u16::try_from(packet.header_len()).ok())
            .unwrap_or_default(),
    };
    VnetHeader {
        gso: kind,
        segment_size: match gso.kind {
            GsoKind::None => 0,
            GsoKind::Tcp | GsoKind::Udp => gso.segment_size,
        },
        header_len,
        checksum: match gso.checksum {
            ChecksumState::Complete => Checksum::Complete,
            ChecksumState::Partial { start, offset } => Checksum::Partial { start, offset },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: GsoMeta = GsoMeta {
        kind: GsoKind::Tcp,
        segment_size: 1228,
        checksum: ChecksumState::Partial {
            start: 20,
            offset: 16,
        },
    };

    #[test]
    fn plain_packets_need_no_header() {
        let packet = ip_packet::make::udp_packet(
            "192.0.2.1:1".parse().unwrap(),
            "192.0.2.2:2".parse().unwrap(),
            b"x",
        )
        .unwrap();

        assert_eq!(header(GsoMeta::NONE, packet.as_slice()), VnetHeader::PLAIN);
        assert_eq!(meta(VnetHeader::PLAIN), GsoMeta::NONE);
    }

    #[test]
    fn super_packets_tell_the_kernel_family_and_headers() {
        let mut packet = vec![0; 20 + 20 + 3000];
        packet[0] = 0x45;
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[8] = 64;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        packet[32] = 5 << 4;

        let header = header(TCP, &packet);

        assert_eq!(header.gso, Gso::TcpV4);
        assert_eq!((header.segment_size, header.header_len), (1228, 40));
        assert_eq!(meta(header), TCP);
    }
}
