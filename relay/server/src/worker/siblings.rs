//! What crosses between workers: datagrams from one allocation of the relay to another, and who holds how many
//! allocations (relay spec §4.3, stage 2).
//!
//! Every worker has an inbox of bounded lock-free queues. Nothing else is shared on the data path. Notices about users
//! go to the worker that the name falls to; those that find its inbox full wait here. Datagrams that do are dropped, as
//! at any full socket.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use crossbeam_queue::ArrayQueue;
use mio::Waker;
use relay_core::{AllocationPort, ClientSocket, Holder, PeerSocket, Shard, Users};

use crate::platform::datagrams::Ecn;

/// Notices that wait in an inbox.
const MAX_NOTICES: usize = 1024;
/// Notices that wait for room in an inbox. Users pay for each with an allocation; one that is lost costs at most that an
/// allocation lives until it expires.
const MAX_BACKLOG: usize = 64 * 1024;
/// Parcels that wait in an inbox: each holds what one receive call brought.
pub(super) const MAX_PARCELS: usize = 16;

/// Something about a user.
#[derive(Debug)]
pub(super) enum Notice {
    Gained {
        username: String,
        holder: Holder,
    },
    Lost {
        username: String,
        holder: Holder,
    },
    Evict {
        username: String,
        client: ClientSocket,
    },
}

/// Datagrams for allocations of another worker. Its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    sender: u16,
    bytes: Vec<u8>,
    trains: Vec<ParcelTrain>,
}

/// Datagrams of one flow and one size within a parcel.
#[derive(Debug, Clone, Copy)]
struct ParcelTrain {
    port: AllocationPort,
    from: PeerSocket,
    ecn: Ecn,
    segment_size: usize,
    end: usize,
    /// Its last datagram is shorter than the others: none can follow.
    is_sealed: bool,
}

/// Where one worker can be reached.
#[derive(Debug)]
pub(crate) struct Inbox {
    notices: ArrayQueue<Notice>,
    parcels: ArrayQueue<Parcel>,
    /// Emptied parcels of this worker on their way back.
    spares: ArrayQueue<Parcel>,
    waker: Arc<Waker>,
}

impl Inbox {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self {
            notices: ArrayQueue::new(MAX_NOTICES),
            parcels: ArrayQueue::new(MAX_PARCELS),
            spares: ArrayQueue::new(MAX_PARCELS),
            waker,
        }
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "Cannot wake a worker");
        }
    }
}

/// One worker's view of all.
pub(crate) struct Siblings {
    shard: Shard,
    /// By shard, the own one included.
    inboxes: Vec<Arc<Inbox>>,
    /// Parcels that are being packed, by shard.
    outgoing: Vec<Parcel>,
    backlog: VecDeque<(usize, Notice)>,
    /// The users whose names fall to this worker.
    users: Users,
    /// Allocations of one user name.
    limit: usize,
    /// Datagrams dropped because a sibling was busy.
    pub(super) dropped: u64,
}

impl Siblings {
    pub(crate) fn new(shard: Shard, inboxes: Vec<Arc<Inbox>>, limit: usize) -> Self {
        Self {
            shard,
            outgoing: inboxes.iter().map(|_| Parcel::default()).collect(),
            inboxes,
            backlog: VecDeque::new(),
            users: Users::default(),
            limit,
            dropped: 0,
        }
    }

    fn own(&self) -> &Inbox {
        &self.inboxes[usize::from(self.shard.index())]
    }

    /// An allocation of this worker began.
    pub(super) fn user_gained(&mut self, username: String, client: ClientSocket) {
        let (to, holder) = (self.registrar(&username), self.holder(client));
        self.send(to, Notice::Gained { username, holder });
    }

    /// An allocation of this worker ended.
    pub(super) fn user_lost(&mut self, username: String, client: ClientSocket) {
        let (to, holder) = (self.registrar(&username), self.holder(client));
        self.send(to, Notice::Lost { username, holder });
    }

    /// Handles notices for this worker; returns those allocations of its own that have to go.
    pub(super) fn read_notices(&mut self) -> Vec<(String, ClientSocket)> {
        while let Some((to, notice)) = self.backlog.pop_front() {
            if let Err(notice) = self.inboxes[to].notices.push(notice) {
                self.backlog.push_front((to, notice));
                break;
            }
            self.inboxes[to].wake();
        }
        let mut evicted = Vec::new();
        for _ in 0..MAX_NOTICES {
            match self.own().notices.pop() {
                Some(Notice::Gained { username, holder }) => {
                    if let Some(oldest) = self.users.gained(&username, holder, self.limit) {
                        let client = oldest.client;
                        self.send(
                            usize::from(oldest.shard),
                            Notice::Evict { username, client },
                        );
                    }
                }
                Some(Notice::Lost { username, holder }) => self.users.lost(&username, holder),
                Some(Notice::Evict { username, client }) => evicted.push((username, client)),
                None => break,
            }
        }
        evicted
    }

    /// Packs a datagram for an allocation of a sibling.
    pub(super) fn pack(
        &mut self,
        port: AllocationPort,
        from: PeerSocket,
        ecn: Ecn,
        payload: &[u8],
    ) {
        let to = usize::from(self.shard.owner_of(port.get()));
        let parcel = &mut self.outgoing[to];
        match parcel.trains.last_mut() {
            Some(train)
                if (train.port, train.from, train.ecn) == (port, from, ecn)
                    && !train.is_sealed
                    && (1..=train.segment_size).contains(&payload.len()) =>
            {
                train.is_sealed = payload.len() < train.segment_size;
                train.end += payload.len();
            }
            Some(_) | None => parcel.trains.push(ParcelTrain {
                port,
                from,
                ecn,
                segment_size: payload.len(),
                end: parcel.bytes.len() + payload.len(),
                is_sealed: payload.is_empty(),
            }),
        }
        parcel.bytes.extend_from_slice(payload);
    }

    /// Sends what was packed.
    pub(super) fn dispatch(&mut self) {
        for (to, outgoing) in self.outgoing.iter_mut().enumerate() {
            if outgoing.trains.is_empty() {
                continue;
            }
            let own = &self.inboxes[usize::from(self.shard.index())];
            let spare = own.spares.pop().unwrap_or_default();
            let mut parcel = std::mem::replace(outgoing, spare);
            parcel.sender = self.shard.index();
            match self.inboxes[to].parcels.push(parcel) {
                Ok(()) => self.inboxes[to].wake(),
                Err(mut parcel) => {
                    self.dropped += parcel.datagrams();
                    parcel.clear();
                    // Room for as many as there can be under way.
                    let _ = own.spares.push(parcel);
                }
            }
        }
    }

    /// The next parcel for this worker; give it back with [`Self::unpacked`].
    pub(super) fn next_parcel(&mut self) -> Option<Parcel> {
        self.own().parcels.pop()
    }

    /// The parcel was handled; its memory goes back to its sender.
    pub(super) fn unpacked(&mut self, mut parcel: Parcel) {
        parcel.clear();
        if let Some(sender) = self.inboxes.get(usize::from(parcel.sender)) {
            // A sender with enough of them needs no more.
            let _ = sender.spares.push(parcel);
        }
    }

    /// Whether something waits to be handled by this worker.
    pub(super) fn is_waiting(&self) -> bool {
        let own = self.own();
        !(own.notices.is_empty() && own.parcels.is_empty() && self.backlog.is_empty())
    }

    fn holder(&self, client: ClientSocket) -> Holder {
        let shard = self.shard.index();
        Holder { shard, client }
    }

    /// The worker that counts this user's allocations.
    fn registrar(&self, username: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        username.hash(&mut hasher);
        (hasher.finish() % self.inboxes.len() as u64) as usize
    }

    fn send(&mut self, to: usize, notice: Notice) {
        if self.backlog.is_empty() {
            match self.inboxes[to].notices.push(notice) {
                Ok(()) => self.inboxes[to].wake(),
                Err(notice) => self.backlog.push_back((to, notice)),
            }
        } else if self.backlog.len() < MAX_BACKLOG {
            self.backlog.push_back((to, notice));
        }
    }
}

impl Parcel {
    /// Destination, relayed source, mark, bytes and segment size of each train.
    pub(super) fn trains(
        &self,
    ) -> impl Iterator<Item = (AllocationPort, PeerSocket, Ecn, &[u8], usize)> {
        let mut start = 0;
        self.trains.iter().map(move |train| {
            let bytes = self.bytes.get(start..train.end).unwrap_or_default();
            start = train.end;
            (train.port, train.from, train.ecn, bytes, train.segment_size)
        })
    }

    fn datagrams(&self) -> u64 {
        let count = |(_, _, _, bytes, size): (_, _, _, &[u8], usize)| {
            bytes.len().div_ceil(size.max(1)).max(1) as u64
        };
        self.trains().map(count).sum()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.trains.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Poll, Token};

    fn group(workers: u16) -> (Vec<Poll>, Vec<Siblings>) {
        let polls: Vec<_> = (0..workers).map(|_| Poll::new().unwrap()).collect();
        let inboxes = polls.iter().map(|poll| {
            let waker = Waker::new(poll.registry(), Token(0)).unwrap();
            Arc::new(Inbox::new(Arc::new(waker)))
        });
        let inboxes: Vec<_> = inboxes.collect();
        let siblings = (0..workers).map(|index| {
            let shard = Shard::new(index, workers).unwrap();
            Siblings::new(shard, inboxes.clone(), 1)
        });
        (polls, siblings.collect())
    }

    fn client(port: u16) -> ClientSocket {
        ClientSocket::new(([192, 0, 2, 1], port).into())
    }

    fn settle(siblings: &mut [Siblings]) -> Vec<(u16, ClientSocket)> {
        let mut evicted = Vec::new();
        while siblings.iter().any(Siblings::is_waiting) {
            for worker in siblings.iter_mut() {
                let index = worker.shard.index();
                let gone = worker.read_notices().into_iter();
                evicted.extend(gone.map(|(_, client)| (index, client)));
            }
        }
        evicted
    }

    #[test]
    fn relay_60_one_allocation_per_user_over_all_workers() {
        let (_polls, mut siblings) = group(3);
        siblings[0].user_gained("a".to_owned(), client(1));
        siblings[1].user_gained("b".to_owned(), client(2));
        assert_eq!(settle(&mut siblings), []);
        siblings[2].user_gained("a".to_owned(), client(3));
        assert_eq!(settle(&mut siblings), [(0, client(1))]);
        siblings[0].user_lost("a".to_owned(), client(1));
        siblings[2].user_lost("a".to_owned(), client(3));
        siblings[1].user_gained("a".to_owned(), client(4));
        assert_eq!(settle(&mut siblings), []);
    }

    #[test]
    fn parcels_keep_flows_sizes_and_order() {
        let (_polls, mut siblings) = group(2);
        let (port, from) = (
            AllocationPort::new(50_002),
            PeerSocket::new(([198, 51, 100, 7], 50_000).into()),
        );
        assert_eq!(siblings[0].shard.owner_of(port.get()), 1);
        for len in [9, 9, 4, 9, 0, 3] {
            siblings[0].pack(port, from, Ecn::default(), &vec![7; len]);
        }
        siblings[0].dispatch();
        let parcel = siblings[1].next_parcel().unwrap();
        let trains: Vec<_> = parcel.trains().map(|it| (it.3.len(), it.4)).collect();
        assert_eq!(trains, [(22, 9), (9, 9), (0, 0), (3, 3)]);
        assert_eq!(parcel.datagrams(), 6);
        siblings[1].unpacked(parcel);
        assert_eq!(siblings[0].own().spares.len(), 1);
    }

    #[test]
    fn a_busy_sibling_costs_datagrams_not_memory() {
        let (_polls, mut siblings) = group(2);
        let port = AllocationPort::new(50_002);
        let from = PeerSocket::new(([198, 51, 100, 7], 50_000).into());
        for _ in 0..MAX_PARCELS + 5 {
            siblings[0].pack(port, from, Ecn::default(), &[1; 100]);
            siblings[0].dispatch();
        }
        assert_eq!(siblings[0].dropped, 5);
        assert_eq!(siblings[1].own().parcels.len(), MAX_PARCELS);
    }
}
