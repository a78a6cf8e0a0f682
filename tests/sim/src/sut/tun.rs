//! The TUN device of a simulated host: single packets, as from a device without offload.

use std::collections::VecDeque;

use connlib_tunnel::{
    Transmit, TunPacket,
    segment::{Coalescer, Coalescing, GsoMeta},
};
use ip_packet::IpPacket;

/// A TUN device.
pub(crate) struct Tun(Coalescer);

impl Tun {
    pub(crate) fn new() -> Self {
        Self(Coalescer::new(Coalescing::OFF))
    }

    /// Gives a packet from the host to a tunnel; returns the datagrams that it makes of it.
    pub(crate) fn read(
        packet: &IpPacket,
        handle: impl FnOnce(TunPacket<'_>, &mut VecDeque<Transmit>),
    ) -> VecDeque<Transmit> {
        let mut bytes = packet.as_slice().to_vec();
        let packet = TunPacket {
            buf: &mut bytes,
            gso: GsoMeta::NONE,
        };
        let mut sent = VecDeque::new();
        handle(packet, &mut sent);
        sent
    }

    /// Lets a tunnel write; returns the packets for the host.
    pub(crate) fn write(&mut self, handle: impl FnOnce(&mut Coalescer)) -> Vec<IpPacket> {
        handle(&mut self.0);
        if self.0.is_empty() {
            return Vec::new();
        }
        let packets = self.0.drain();
        packets
            .filter_map(|(_, bytes)| IpPacket::from_slice(bytes).ok())
            .collect()
    }
}
