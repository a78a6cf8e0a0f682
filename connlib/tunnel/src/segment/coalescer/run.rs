//! Packets that need no decision of their own, one behind the other.

use connlib_model::{ClientId, GatewayId};
use connlib_snownet::PacketSink;
use ip_packet::Ecn;

use super::{Coalescer, FlowTag, Slot};

/// Takes packets as long as they [continue](Slot::try_continue) what was decided before; the first other one ends the run
/// and is left in the slot, to be decided about.
pub(crate) struct Run<'a> {
    slot: Slot<'a>,
    epoch: u64,
    ecn: Ecn,
    taken: u64,
}

impl<'a> Run<'a> {
    /// For packets that were carried by datagrams with the mark `ecn`, under decisions of `epoch`.
    pub(crate) fn new(coalescer: &'a mut Coalescer, epoch: u64, ecn: Ecn) -> Self {
        Self {
            slot: coalescer.slot(),
            epoch,
            ecn,
            taken: 0,
        }
    }

    /// Packets that were taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The tag of packets of `peer` in this run.
    pub(crate) fn tag(&self, peer: u128) -> FlowTag {
        FlowTag {
            peer,
            epoch: self.epoch,
            ecn: self.ecn,
        }
    }

    /// The slot that holds the packet that was not taken.
    pub(crate) fn into_slot(self) -> Slot<'a> {
        self.slot
    }

    #[inline]
    fn take_from(&mut self, peer: u128, len: usize) -> bool {
        let is_taken = self.slot.try_continue(len, self.tag(peer));
        if is_taken {
            self.taken += 1;
            self.slot.renew();
        }
        is_taken
    }
}

impl PacketSink<ClientId> for Run<'_> {
    #[inline]
    fn room(&mut self) -> &mut [u8] {
        self.slot.buffer()
    }

    #[inline]
    fn take(&mut self, peer: ClientId, len: usize) -> bool {
        self.take_from(peer.as_u128(), len)
    }
}

impl PacketSink<GatewayId> for Run<'_> {
    #[inline]
    fn room(&mut self) -> &mut [u8] {
        self.slot.buffer()
    }

    #[inline]
    fn take(&mut self, peer: GatewayId, len: usize) -> bool {
        self.take_from(peer.as_u128(), len)
    }
}
