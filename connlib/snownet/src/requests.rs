//! Which connection sent a check: transaction id to peer, so that answers need no search.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long an answer to a check is expected. Longer than any round trip, shorter than a memory leak.
const LIFETIME: Duration = Duration::from_secs(10);

/// Most remembered checks per connection: 10 s of checks on eight pairs, should all start at once.
const PER_CONNECTION: usize = 64;
/// What is remembered of few connections.
const MIN_CAPACITY: usize = 1 << 16;

/// A STUN transaction id.
pub(crate) type TransactionId = [u8; 12];

/// Checks in flight.
///
/// Entries leave by age when new ones arrive, so the table needs no timer of its own.
pub(crate) struct Requests<P> {
    senders: BTreeMap<TransactionId, P>,
    by_age: VecDeque<(Instant, TransactionId)>,
    capacity: usize,
}

impl<P: Copy> Requests<P> {
    pub(crate) fn new() -> Self {
        Self {
            senders: BTreeMap::new(),
            by_age: VecDeque::new(),
            capacity: MIN_CAPACITY,
        }
    }

    /// Makes room for the checks of so many connections.
    pub(crate) fn make_room(&mut self, connections: usize) {
        self.capacity = MIN_CAPACITY.max(connections * PER_CONNECTION);
    }

    /// Notes that `peer`'s agent sends `message`, if it is a request. Returns whether it is.
    pub(crate) fn record(&mut self, peer: P, message: &[u8], now: Instant) -> bool {
        let Some(id) = request_id(message) else {
            return false;
        };
        self.expire(now);
        self.senders.insert(id, peer);
        self.by_age.push_back((now + LIFETIME, id));
        true
    }

    /// Who sent the request that is answered under `id`.
    pub(crate) fn sender(&self, id: &TransactionId) -> Option<P> {
        self.senders.get(id).copied()
    }

    /// Forgets everything (reset).
    pub(crate) fn clear(&mut self) {
        self.senders.clear();
        self.by_age.clear();
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(expiry, id)) = self.by_age.front() {
            if now < expiry && self.by_age.len() < self.capacity {
                return;
            }
            self.senders.remove(&id);
            self.by_age.pop_front();
        }
    }
}

/// Transaction id of a binding request (RFC 8489 §5).
fn request_id(message: &[u8]) -> Option<TransactionId> {
    const BINDING_REQUEST: [u8; 2] = [0, 1];
    let header = message.first_chunk::<20>()?;
    if header[..2] != BINDING_REQUEST {
        return None;
    }
    header[8..].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, id: u8) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[1] = kind;
        bytes[8..].fill(id);
        bytes
    }

    #[test]
    fn answers_find_their_sender_for_ten_seconds() {
        let start = Instant::now();
        let mut requests = Requests::new();
        requests.record('a', &message(1, 7), start);
        requests.record('b', &message(1, 8), start + Duration::from_secs(9));
        assert_eq!(requests.sender(&[7; 12]), Some('a'));
        requests.record('c', &message(1, 9), start + LIFETIME);
        assert_eq!(requests.sender(&[7; 12]), None);
        assert_eq!(requests.sender(&[8; 12]), Some('b'));
    }

    /// Found with 100 000 clients at one gateway: some never got a path, their checks were pushed out by the others'.
    #[test]
    fn a_crowd_that_starts_at_once_does_not_push_out_its_own_checks() {
        const CONNECTIONS: u32 = 3000;
        let mut requests = Requests::new();
        requests.make_room(CONNECTIONS as usize);
        let now = Instant::now();
        let checks = (0..CONNECTIONS * 64).map(|number| {
            let mut bytes = message(1, 0);
            bytes[8..12].copy_from_slice(&number.to_be_bytes());
            (number % CONNECTIONS, bytes)
        });
        for (peer, check) in checks.clone() {
            requests.record(peer, &check, now);
        }
        for (peer, check) in checks {
            let id = request_id(&check).unwrap();
            assert_eq!(requests.sender(&id), Some(peer));
        }
    }

    #[test]
    fn only_requests_are_remembered() {
        let mut requests = Requests::new();
        let success = {
            let mut bytes = message(1, 7);
            bytes[0] = 1;
            bytes
        };
        requests.record('a', &success, Instant::now());
        requests.record('a', &[0, 1, 2], Instant::now());
        assert_eq!(requests.sender(&[7; 12]), None);
    }
}
