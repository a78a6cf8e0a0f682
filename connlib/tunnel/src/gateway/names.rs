//! Look-ups on behalf of clients that are in flight (tunnel spec §5.7).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use connlib_model::{ClientId, DomainName, ResourceId};

use super::ResolveId;
use crate::AssignedIps;

/// Look-ups in flight; a request beyond is dropped and sent again by its client.
const MAX_LOOKUPS: usize = 1_000;

/// Look-ups in flight for one client, so that one client cannot take all.
const MAX_LOOKUPS_PER_CLIENT: usize = 500;

/// Longest wait for a name server. Stays below the client's patience with the connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Look-ups in flight.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// In order of their deadlines, since all wait equally long.
    pending: BTreeMap<ResolveId, Lookup>,
    next_id: u64,
}

/// A look-up and what its answer is for.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) client: ClientId,
    pub(super) resource: ResourceId,
    pub(super) domain: DomainName,
    pub(super) proxies: Vec<IpAddr>,
    deadline: Instant,
}

impl Lookups {
    /// Begins a look-up. `None` if too many are in flight.
    pub(super) fn begin(
        &mut self,
        client: ClientId,
        request: AssignedIps,
        now: Instant,
    ) -> Option<ResolveId> {
        let of_client = self
            .pending
            .values()
            .filter(|lookup| lookup.client == client)
            .count();
        if self.pending.len() >= MAX_LOOKUPS || of_client >= MAX_LOOKUPS_PER_CLIENT {
            return None;
        }
        let id = ResolveId(self.next_id);
        self.next_id += 1;
        let lookup = Lookup {
            client,
            resource: request.resource,
            domain: request.domain,
            proxies: request.proxy_ips,
            deadline: now + TIMEOUT,
        };
        self.pending.insert(id, lookup);
        Some(id)
    }

    /// Ends a look-up. `None` if it has timed out.
    pub(super) fn finish(&mut self, id: ResolveId) -> Option<Lookup> {
        self.pending.remove(&id)
    }

    /// Drops the look-ups of a client whose connection has been replaced: nobody waits for the answers, and a process that
    /// has started again may have handed out their proxy addresses to other names.
    pub(super) fn forget(&mut self, client: ClientId) {
        self.pending.retain(|_, lookup| lookup.client != client);
    }

    /// The next look-up whose time is over at `now`.
    pub(super) fn next_timed_out(&mut self, now: Instant) -> Option<Lookup> {
        let first = self.pending.first_entry()?;
        (first.get().deadline <= now).then(|| first.remove())
    }

    /// When [`next_timed_out`](Self::next_timed_out) must be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pending
            .first_key_value()
            .map(|(_, lookup)| lookup.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> AssignedIps {
        AssignedIps {
            resource: ResourceId::from_u128(1),
            domain: "www.example.com".parse().unwrap(),
            proxy_ips: vec!["100.96.0.1".parse().unwrap()],
        }
    }

    fn begin(lookups: &mut Lookups, client: u128, now: Instant) -> Option<ResolveId> {
        lookups.begin(ClientId::from_u128(client), request(), now)
    }

    // tunnel 65
    #[test]
    fn tunnel_65_look_ups_time_out_after_ten_seconds() {
        let mut lookups = Lookups::default();
        let now = Instant::now();
        let id = begin(&mut lookups, 1, now).unwrap();

        assert_eq!(lookups.poll_timeout(), Some(now + TIMEOUT));
        assert!(
            lookups
                .next_timed_out(now + TIMEOUT - Duration::from_nanos(1))
                .is_none()
        );
        assert!(lookups.next_timed_out(now + TIMEOUT).is_some());
        assert!(lookups.finish(id).is_none());
        assert_eq!(lookups.poll_timeout(), None);
    }

    #[test]
    fn look_ups_of_one_client_are_forgotten() {
        let mut lookups = Lookups::default();
        let now = Instant::now();
        let ids = [1, 2].map(|client| begin(&mut lookups, client, now).unwrap());
        lookups.forget(ClientId::from_u128(1));
        assert_eq!(ids.map(|id| lookups.finish(id).is_some()), [false, true]);
    }

    // tunnel 65
    #[test]
    fn tunnel_65_number_of_look_ups_is_bounded() {
        let mut lookups = Lookups::default();
        let now = Instant::now();
        let first = begin(&mut lookups, 1, now).unwrap();
        for _ in 1..MAX_LOOKUPS_PER_CLIENT {
            assert!(begin(&mut lookups, 1, now).is_some());
        }
        assert!(begin(&mut lookups, 1, now).is_none());
        for _ in 0..MAX_LOOKUPS - MAX_LOOKUPS_PER_CLIENT {
            assert!(begin(&mut lookups, 2, now).is_some());
        }
        assert!(begin(&mut lookups, 3, now).is_none());

        assert!(lookups.finish(first).is_some());
        assert!(begin(&mut lookups, 3, now).is_some());
    }
}
