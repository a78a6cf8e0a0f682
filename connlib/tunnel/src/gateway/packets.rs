//! The packet paths of the gateway: TUN device to clients, and clients to TUN device.

use std::net::SocketAddr;
use std::time::Instant;

use connlib_model::ClientId;
use connlib_snownet::{DatagramSink, Decapsulated, Train};
use ip_packet::make;
use ip_packet::{Ecn, IpPacket, PacketMut, PacketRef, Single};

use super::flow_cache::Flow;
use super::peer::{Passage, Refusal, ToClient};
use super::state::Gateway;
use crate::segment::{Coalescer, Commit, FlowTag, Run, Slot, Splitter, TunPacket};

impl Gateway {
    /// Takes one packet or super-packet from the TUN device and seals it for its client, straight into `sink`.
    pub fn handle_tun(
        &mut self,
        packet: TunPacket<'_>,
        now: Instant,
        sink: &mut impl DatagramSink,
    ) {
        let Ok(mut packets) = Splitter::new(packet) else {
            self.stats.malformed += 1;
            return;
        };
        let view = packets.packet();
        let Some(client) = self.peers.client_at(view.destination()) else {
            self.stats.not_a_peer += 1;
            return;
        };
        let decision = self
            .peers
            .with(client, self.clock, |peer| {
                peer.judge_to_client(view, self.tun, now)
            })
            .unwrap_or(Err(Refusal::Unsupported));
        let result = match decision {
            Err(refusal) => return self.count_refusal_to_client(refusal),
            Ok(ToClient::Replace(error)) => {
                let ecn = error.ecn();
                self.node
                    .encapsulate(client, &mut Single::from(&error), ecn, now, sink)
            }
            Ok(ToClient::Pass(passage)) => {
                let mut header = packets.packet_mut();
                if passage.apply_to_client(&mut header).is_err() {
                    self.stats.unsupported += 1;
                    return;
                }
                let ecn = header.ecn();
                self.node.encapsulate(client, &mut packets, ecn, now, sink)
            }
        };
        match result {
            Ok(sealed) if sealed.sent > 0 => self.stats.to_clients += 1,
            Ok(_) | Err(_) => self.stats.not_connected += 1,
        }
    }

    /// Takes one datagram that arrived on the socket `local` from `from` with the outer codepoint `ecn`.
    ///
    /// What is for the TUN device is opened straight into `out`; the caller drains it once per batch, and whenever it is
    /// full.
    pub fn handle_network(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &[u8],
        now: Instant,
        out: &mut Coalescer,
    ) {
        self.handle_run(local, from, ecn, &mut Train::single(datagram), now, out);
    }

    /// Takes datagrams that arrived together on the socket `local` from `from` with the outer codepoint `ecn`, like
    /// [`handle_network`](Self::handle_network) one after the other: all of `train`, or less when `out` is full
    /// before.
    pub fn handle_train(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        train: &mut Train<'_>,
        now: Instant,
        out: &mut Coalescer,
    ) {
        while !train.is_empty() {
            self.handle_run(local, from, ecn, train, now, out);
            if out.is_full() {
                break;
            }
        }
    }

    /// Takes the packets at the front of a train up to the first that must be decided about, and decides.
    fn handle_run(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        train: &mut Train<'_>,
        now: Instant,
        out: &mut Coalescer,
    ) {
        let mut run = Run::new(out, self.flows.epoch(now), ecn);
        let opened = self
            .node
            .decapsulate_train(local, from, train, now, &mut run);
        self.stats.from_clients += run.taken();
        match opened {
            Ok(Decapsulated::Packet { peer, len }) => {
                let tag = run.tag(peer.as_u128());
                self.take_packet(peer, run.into_slot(), len, tag, now);
            }
            Ok(Decapsulated::Consumed) => {}
            Err(error) => {
                tracing::trace!(%from, %error, "Dropping datagram");
                self.stats.rejected_datagrams += 1;
            }
        }
    }

    /// Decides about the packet in `slot`, authentic from `client`.
    fn take_packet(
        &mut self,
        client: ClientId,
        mut slot: Slot<'_>,
        len: usize,
        tag: FlowTag,
        now: Instant,
    ) {
        let stream = slot.stream(len, tag);
        let Some(Ok(mut packet)) = slot.buffer().get_mut(..len).map(PacketMut::parse) else {
            self.stats.malformed += 1;
            return;
        };
        if !self.admit(client, &mut packet, tag.ecn, now) {
            return;
        }
        match slot.commit_stream(len, stream) {
            Commit::New | Commit::Merged => self.stats.from_clients += 1,
            Commit::Dropped => self.stats.overflow += 1,
        }
    }

    /// Decides about a packet of a client and prepares it for the TUN device. Returns whether it goes there.
    pub(super) fn admit(
        &mut self,
        client: ClientId,
        packet: &mut PacketMut<'_>,
        ecn: Ecn,
        now: Instant,
    ) -> bool {
        if let Some(control) = packet.view().as_control() {
            self.handle_control(client, control, now);
            return false;
        }
        let passage = match self.judge_from_client(client, packet.view(), now) {
            Ok(passage) => passage,
            Err(refusal) => {
                self.refuse(client, packet.view(), refusal, now);
                return false;
            }
        };
        if passage.apply_from_client(packet).is_err() {
            self.stats.unsupported += 1;
            return false;
        }
        let inner = packet.ecn();
        let merged = Ecn::merge(inner, ecn);
        if merged != inner {
            packet.set_ecn(merged);
        }
        true
    }

    fn judge_from_client(
        &mut self,
        client: ClientId,
        packet: PacketRef<'_>,
        now: Instant,
    ) -> Result<Passage, Refusal> {
        let flow = Flow::of(client, packet);
        if let Some(flow) = &flow
            && let Some(passage) = self.flows.get(flow, now)
        {
            return Ok(passage);
        }
        let passage = self
            .peers
            .with(client, self.clock, |peer| {
                peer.judge_from_client(packet, self.tun, now)
            })
            // Its last authorization has just ended.
            .unwrap_or(Err(Refusal::Unsupported))?;
        if let Some(flow) = flow {
            self.flows.insert(flow, now, passage);
        }
        Ok(passage)
    }

    /// Tells a client why its packet went no further.
    fn refuse(&mut self, client: ClientId, packet: PacketRef<'_>, refusal: Refusal, now: Instant) {
        tracing::trace!(%client, ?packet, ?refusal, "Refusing packet of client");
        let counter = match refusal {
            Refusal::Spoofed => &mut self.stats.spoofed,
            Refusal::Prohibited => &mut self.stats.prohibited,
            Refusal::Unreachable => &mut self.stats.unreachable,
            Refusal::Exhausted => &mut self.stats.nat_exhausted,
            Refusal::Unsupported | Refusal::Expired => &mut self.stats.unsupported,
        };
        *counter += 1;
        if let Some(reason) = refusal.answer()
            && let Ok(answer) = make::icmp_unreachable(packet, reason)
        {
            self.send(client, &answer, now);
        }
    }

    fn count_refusal_to_client(&mut self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Expired => &mut self.stats.expired_sessions,
            Refusal::Prohibited | Refusal::Spoofed | Refusal::Unreachable => {
                &mut self.stats.filtered
            }
            Refusal::Unsupported | Refusal::Exhausted => &mut self.stats.unsupported,
        };
        *counter += 1;
    }

    /// Seals a packet that was made here. What the node has queued before leaves before.
    pub(super) fn send(&mut self, client: ClientId, packet: &IpPacket, now: Instant) {
        while let Some(transmit) = self.node.poll_transmit() {
            self.transmits.push_back(transmit);
        }
        self.output_at = now;
        let sealed = self.node.encapsulate(
            client,
            &mut Single::from(packet),
            packet.ecn(),
            now,
            &mut self.transmits,
        );
        if sealed.is_err() {
            self.stats.not_connected += 1;
        }
    }
}
