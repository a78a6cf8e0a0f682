//! Packets of the TUN device between a gateway's workers.
//!
//! The kernel puts a packet into the queue from which its flow's other direction was written, which is that of the
//! client's worker. What it puts elsewhere (a flow that starts behind the gateway, or is older than its memory) is copied
//! into a parcel and handed to the client's worker. Parcels go through bounded lock-free queues and their memory is used
//! again; where the queue is full they are dropped and counted, as at any full device.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use connlib_tunnel::{TunAddresses, TunPacket, segment::GsoMeta};
use crossbeam_queue::ArrayQueue;
use ip_packet::PacketRef;
use mio::Waker;

/// Parcels that wait for a worker: each is what one turn of another worker brought.
const MAX_PARCELS: usize = 16;
/// A parcel of this size leaves at once. With the last packet it is at most 320 KB, so 5 MB can wait for a worker, and as
/// much lie empty at it.
const PARCEL_BYTES: usize = 256 * 1024;
/// Clients of other workers whose addresses are known. More than one gateway serves; the portal pays for each with an
/// authorization.
const MAX_FOREIGN_ADDRESSES: usize = 2 * 65_536;

/// Packets for clients of one worker.
#[derive(Debug, Default)]
struct Parcel {
    sender: usize,
    bytes: Vec<u8>,
    /// Where each packet ends, and what the device said about it.
    packets: Vec<(usize, GsoMeta)>,
}

/// Where one worker can be reached.
pub(crate) struct Mailbox {
    parcels: ArrayQueue<Parcel>,
    /// Emptied parcels of this worker on their way back.
    spares: ArrayQueue<Parcel>,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// An empty one; `waker` wakes its worker.
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self {
            parcels: ArrayQueue::new(MAX_PARCELS),
            spares: ArrayQueue::new(MAX_PARCELS),
            waker,
        }
    }
}

/// One worker's view of all.
pub(crate) struct Siblings {
    index: usize,
    /// By worker, the own one included.
    mailboxes: Vec<Arc<Mailbox>>,
    /// Being packed, by worker.
    outgoing: Vec<Parcel>,
    /// Being unpacked: which packet is next, and where it starts.
    incoming: Option<(Parcel, usize, usize)>,
    /// Clients of others.
    owners: HashMap<IpAddr, usize>,
    /// Packets handed to others.
    pub(crate) handed_over: u64,
    /// Packets lost because another worker was busy.
    pub(crate) dropped: u64,
}

impl Siblings {
    /// The worker `index` of those with these mailboxes.
    pub(crate) fn new(index: usize, mailboxes: Vec<Arc<Mailbox>>) -> Self {
        Self {
            index,
            outgoing: mailboxes.iter().map(|_| Parcel::default()).collect(),
            mailboxes,
            incoming: None,
            owners: HashMap::new(),
            handed_over: 0,
            dropped: 0,
        }
    }

    /// Another worker has the client with these addresses.
    pub(crate) fn set_owner(&mut self, addresses: TunAddresses, worker: usize) {
        for address in [IpAddr::V4(addresses.v4), IpAddr::V6(addresses.v6)] {
            if self.owners.len() < MAX_FOREIGN_ADDRESSES || self.owners.contains_key(&address) {
                self.owners.insert(address, worker);
            }
        }
    }

    /// This worker has the client with these addresses.
    pub(crate) fn set_own(&mut self, addresses: TunAddresses) {
        self.owners.remove(&IpAddr::V4(addresses.v4));
        self.owners.remove(&IpAddr::V6(addresses.v6));
    }

    /// Packs a packet for another worker's client. False: it is not for one.
    #[inline]
    pub(crate) fn pack(&mut self, packet: &TunPacket<'_>) -> bool {
        let Ok(view) = PacketRef::parse_super(packet.buf) else {
            return false;
        };
        let Some(&owner) = self.owners.get(&view.destination()) else {
            return false;
        };
        let parcel = &mut self.outgoing[owner];
        parcel.bytes.extend_from_slice(packet.buf);
        parcel.packets.push((parcel.bytes.len(), packet.gso));
        if parcel.bytes.len() >= PARCEL_BYTES {
            self.send(owner);
        }
        true
    }

    /// Sends what was packed.
    pub(crate) fn dispatch(&mut self) {
        for worker in 0..self.outgoing.len() {
            if !self.outgoing[worker].packets.is_empty() {
                self.send(worker);
            }
        }
    }

    fn send(&mut self, worker: usize) {
        let own = &self.mailboxes[self.index];
        let spare = own.spares.pop().unwrap_or_default();
        let mut parcel = std::mem::replace(&mut self.outgoing[worker], spare);
        parcel.sender = self.index;
        let packets = parcel.packets.len() as u64;
        let to = &self.mailboxes[worker];
        match to.parcels.push(parcel) {
            Ok(()) => {
                self.handed_over += packets;
                // A thread that cannot be woken has ended.
                let _ = to.waker.wake();
            }
            Err(mut parcel) => {
                self.dropped += packets;
                parcel.clear();
                // A worker with enough of them needs no more.
                let _ = own.spares.push(parcel);
            }
        }
    }

    /// Whether other workers have sent something.
    pub(crate) fn is_waiting(&self) -> bool {
        self.incoming.is_some() || !self.mailboxes[self.index].parcels.is_empty()
    }

    /// Shows the next packet from other workers to `take`. False: there is none.
    pub(crate) fn unpack(&mut self, take: impl FnOnce(TunPacket<'_>)) -> bool {
        let waiting = self.incoming.take();
        let next = || Some((self.mailboxes[self.index].parcels.pop()?, 0, 0));
        let Some((mut parcel, number, start)) = waiting.or_else(next) else {
            return false;
        };
        if let Some(&(end, gso)) = parcel.packets.get(number)
            && let Some(buf) = parcel.bytes.get_mut(start..end)
        {
            take(TunPacket { buf, gso });
            if number + 1 < parcel.packets.len() {
                self.incoming = Some((parcel, number + 1, end));
                return true;
            }
        }
        parcel.clear();
        if let Some(sender) = self.mailboxes.get(parcel.sender) {
            let _ = sender.spares.push(parcel);
        }
        true
    }
}

impl Parcel {
    fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Poll, Token};

    fn group(workers: usize) -> (Vec<Poll>, Vec<Siblings>) {
        let polls: Vec<_> = (0..workers).map(|_| Poll::new().unwrap()).collect();
        let mailbox = |poll: &Poll| {
            let waker = Waker::new(poll.registry(), Token(0)).unwrap();
            Arc::new(Mailbox::new(Arc::new(waker)))
        };
        let mailboxes: Vec<_> = polls.iter().map(mailbox).collect();
        let siblings = (0..workers).map(|index| Siblings::new(index, mailboxes.clone()));
        (polls, siblings.collect())
    }

    fn client(last: u8) -> TunAddresses {
        TunAddresses {
            v4: [100, 64, 0, last].into(),
            v6: format!("fd00:2021:1111::{last}").parse().unwrap(),
        }
    }

    fn packet_to(destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let source = match destination {
            IpAddr::V4(_) => "192.0.2.1:7".parse().unwrap(),
            IpAddr::V6(_) => "[2001:db8::1]:7".parse().unwrap(),
        };
        let packet = ip_packet::make::udp_packet(source, (destination, 9).into(), payload);
        packet.unwrap().as_slice().to_vec()
    }

    fn pack(worker: &mut Siblings, packet: &[u8]) -> bool {
        let mut packet = packet.to_vec();
        worker.pack(&TunPacket {
            buf: &mut packet,
            gso: GsoMeta::NONE,
        })
    }

    fn unpack_all(worker: &mut Siblings) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while worker.unpack(|packet| packets.push(packet.buf.to_vec())) {}
        packets
    }

    #[test]
    fn packets_reach_the_owner_unchanged_and_in_order() {
        let (_polls, mut workers) = group(3);
        workers[0].set_owner(client(1), 2);
        let packets = [
            packet_to(client(1).v4.into(), b"first"),
            packet_to(client(1).v6.into(), b"second"),
            packet_to(client(1).v4.into(), &[7; 1200]),
        ];
        for packet in &packets {
            assert!(pack(&mut workers[0], packet));
        }
        assert!(!workers[2].is_waiting(), "not before the end of the turn");
        workers[0].dispatch();

        assert!(!workers[1].is_waiting());
        assert!(workers[2].is_waiting());
        assert_eq!(unpack_all(&mut workers[2]), packets);
        assert!(!workers[2].is_waiting());
        assert_eq!(workers[0].handed_over, 3);
        assert_eq!(
            workers[0].mailboxes[0].spares.len(),
            1,
            "the memory is back"
        );
    }

    #[test]
    fn own_unknown_and_broken_packets_stay() {
        let (_polls, mut workers) = group(2);
        workers[0].set_owner(client(1), 1);
        workers[0].set_own(client(1));
        assert!(!pack(
            &mut workers[0],
            &packet_to(client(1).v4.into(), b"own")
        ));
        assert!(!pack(
            &mut workers[0],
            &packet_to(client(9).v4.into(), b"unknown")
        ));
        assert!(!pack(&mut workers[0], &[0x45, 0, 0]));
        workers[0].dispatch();
        assert!(!workers[1].is_waiting());
    }

    #[test]
    fn a_busy_worker_costs_packets_not_memory() {
        let (_polls, mut workers) = group(2);
        workers[0].set_owner(client(1), 1);
        let packet = packet_to(client(1).v4.into(), &[1; 1000]);
        for _ in 0..MAX_PARCELS + 5 {
            assert!(pack(&mut workers[0], &packet));
            workers[0].dispatch();
        }
        assert_eq!(workers[0].dropped, 5);
        assert_eq!(unpack_all(&mut workers[1]).len(), MAX_PARCELS);
    }

    #[test]
    fn a_full_parcel_leaves_at_once() {
        let (_polls, mut workers) = group(2);
        workers[0].set_owner(client(1), 1);
        let packet = packet_to(client(1).v4.into(), &[1; 1200]);
        for _ in 0..PARCEL_BYTES / packet.len() + 1 {
            pack(&mut workers[0], &packet);
        }
        assert!(workers[1].is_waiting());
    }
}
