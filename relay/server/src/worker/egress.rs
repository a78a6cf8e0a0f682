//! Collects what the state machine sends on and hands it to the kernel in batches (GSO).
//!
//! Payloads of several flows may be mixed; each flow has a run of its own, so that interleaved senders do not break each
//! other's batches. Order within a flow is kept: its run is sent before a new one is begun. The copy into the run is the
//! only one; a scatter list per segment measures no better.

use std::net::SocketAddr;

use connlib_stun::channel;
use relay_core::{Family, Forwarder, Route, family_of};

use super::{
    siblings::Siblings,
    socket::Batch,
    sockets::{SocketId, Sockets},
};
use crate::platform::datagrams::{Ecn, MAX_DEPARTURES};

/// Datagrams of one batch: what the kernel takes.
const MAX_SEGMENTS: usize = 64;
/// Bytes of one batch: one UDP datagram over IPv4 as far as the kernel is concerned; more is lost without an error.
const MAX_BATCH_BYTES: usize = 65_507;
/// Flows collected at the same time: as many as one call sends.
pub(crate) const MAX_RUNS: usize = MAX_DEPARTURES;

/// Runs that are being collected.
#[derive(Default)]
pub(crate) struct Egress {
    runs: Vec<Run>,
    /// Memory of runs that were sent.
    spare: Vec<Vec<u8>>,
    /// Congestion mark of the train that is being forwarded; passed on.
    pub(crate) ecn: Ecn,
}

/// Datagrams of one flow.
struct Run {
    key: Key,
    segment_size: usize,
    segments: usize,
    /// Its last datagram is shorter than the others: none can follow.
    is_sealed: bool,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    socket: SocketId,
    to: SocketAddr,
    ecn: Ecn,
}

/// The forwarder that the state machine sees.
pub(crate) struct Outgoing<'a> {
    pub(crate) egress: &'a mut Egress,
    pub(crate) sockets: &'a mut Sockets,
    pub(crate) siblings: &'a mut Siblings,
}

impl Forwarder for Outgoing<'_> {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        let ecn = self.egress.ecn;
        match route {
            Route::ToPeer { port, peer } => {
                let socket = SocketId::Allocation(port, peer.family());
                let to = peer.address();
                self.egress
                    .push(Key { socket, to, ecn }, &[], payload, self.sockets);
            }
            Route::ToClient { client, number } => {
                let socket = SocketId::Listen(family_of(client.ip()));
                let to = client.address();
                // The state machine passes nothing on that does not fit into a framed datagram.
                let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
                let header = channel::encode_header(number, length);
                self.egress
                    .push(Key { socket, to, ecn }, &header, payload, self.sockets);
            }
            Route::ToSibling { port, from } => {
                self.siblings.pack(port, from, self.egress.ecn, payload);
            }
        }
    }
}

impl Egress {
    /// Sends everything that was collected. Runs of one socket, which lie beside each other when they come from many
    /// allocations, share a call.
    pub(crate) fn flush(&mut self, sockets: &mut Sockets) {
        let of_one_socket = |a: &Run, b: &Run| a.key.socket == b.key.socket;
        for runs in self.runs.chunk_by(of_one_socket) {
            match runs {
                [run] => sockets.send(run.key.socket, run.batch()),
                runs => {
                    let last = runs.len() - 1;
                    let batches: [Batch<'_>; MAX_RUNS] =
                        std::array::from_fn(|index| runs[index.min(last)].batch());
                    sockets.send_many(runs[0].key.socket, &batches[..runs.len()]);
                }
            }
        }
        for mut run in self.runs.drain(..) {
            run.bytes.clear();
            self.spare.push(run.bytes);
        }
    }

    fn push(&mut self, key: Key, header: &[u8], payload: &[u8], sockets: &mut Sockets) {
        let len = header.len() + payload.len();
        let run = match self.runs.iter().position(|run| run.key == key) {
            Some(index) => &mut self.runs[index],
            None => {
                if self.runs.len() == MAX_RUNS {
                    self.flush(sockets);
                }
                let bytes = self.spare.pop().unwrap_or_default();
                self.runs.push(Run::new(key, bytes));
                self.runs.last_mut().expect("a run was pushed")
            }
        };
        if !run.takes(len) {
            run.send(sockets);
        }
        run.push(header, payload);
    }
}

impl Run {
    fn new(key: Key, bytes: Vec<u8>) -> Self {
        Self {
            key,
            segment_size: 0,
            segments: 0,
            is_sealed: false,
            bytes,
        }
    }

    fn takes(&self, len: usize) -> bool {
        self.segments == 0
            || (!self.is_sealed
                && (1..=self.segment_size).contains(&len)
                && self.segments < MAX_SEGMENTS
                && self.bytes.len() + len <= MAX_BATCH_BYTES)
    }

    fn push(&mut self, header: &[u8], payload: &[u8]) {
        let len = header.len() + payload.len();
        if self.segments == 0 {
            self.segment_size = len;
        }
        // An empty datagram cannot be told apart from the end of a batch, so it stays alone.
        self.is_sealed = len < self.segment_size || len == 0;
        self.segments += 1;
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(payload);
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            to: self.key.to,
            ecn: self.key.ecn,
            bytes: &self.bytes,
            segment_size: self.segment_size,
        }
    }

    fn send(&mut self, sockets: &mut Sockets) {
        sockets.send(self.key.socket, self.batch());
        self.bytes.clear();
        self.segments = 0;
        self.is_sealed = false;
    }
}

/// The listen socket that reaches a client.
pub(crate) fn listen_socket(to: SocketAddr) -> SocketId {
    let family: Family = family_of(to.ip());
    SocketId::Listen(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the datagrams of all batches that `sizes` are sent in.
    fn batches(sizes: &[usize]) -> Vec<Vec<usize>> {
        let key = Key {
            socket: SocketId::Listen(Family::V4),
            to: ([192, 0, 2, 1], 1).into(),
            ecn: Ecn::default(),
        };
        let mut run = Run::new(key, Vec::new());
        let mut batches = Vec::new();
        for size in sizes {
            if !run.takes(*size) {
                batches.push(cut(&run));
                run = Run::new(key, Vec::new());
            }
            run.push(&[], &vec![0; *size]);
        }
        batches.push(cut(&run));
        batches
    }

    fn cut(run: &Run) -> Vec<usize> {
        match run.bytes.is_empty() {
            true => vec![0],
            false => run
                .bytes
                .chunks(run.segment_size)
                .map(<[u8]>::len)
                .collect(),
        }
    }

    // relay C-57
    #[test]
    fn relay_57_batches_keep_sizes_and_order() {
        assert_eq!(batches(&[9, 9, 4, 9]), [vec![9, 9, 4], vec![9]]);
        assert_eq!(batches(&[4, 9, 0, 9]), [vec![4], vec![9], vec![0], vec![9]]);
        let many: Vec<usize> = batches(&[1000; 150]).iter().map(Vec::len).collect();
        assert_eq!(many, [64, 64, 22]);
        let large: Vec<usize> = batches(&[1400; 100]).iter().map(Vec::len).collect();
        assert_eq!(large, [46, 46, 8]);
    }
}
