//! Relays: which ones the portal listed, and what to do when there are none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use connlib_messages::{REALM, Relay, RelaysPresence};
use connlib_model::RelayId;
use connlib_tunnel::RelayConfig;

/// How long after `no_relays` the portal may take to send some.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Shortest time between two reconnects for want of relays.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(30);

/// Relays as the portal listed them.
///
/// A new `init` is the full set: a relay that is missing from it goes at once if no connection uses it, and otherwise as
/// soon as none does. An empty list changes nothing, since it says more about the portal than about the relays.
#[derive(Debug, Default)]
pub(crate) struct ListedRelays {
    listed: BTreeSet<RelayId>,
    /// No longer listed, but still in use.
    retiring: BTreeSet<RelayId>,
}

/// A change of the tunnel's set of relays.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RelayUpdate {
    pub(crate) remove: BTreeSet<RelayId>,
    pub(crate) add: Vec<RelayConfig<RelayId>>,
}

impl ListedRelays {
    /// Takes the list of an `init`; `in_use` are the relays that connections use.
    pub(crate) fn on_init(&mut self, relays: &[Relay], in_use: &BTreeSet<RelayId>) -> RelayUpdate {
        if relays.is_empty() {
            return RelayUpdate {
                remove: BTreeSet::new(),
                add: vec![],
            };
        }

        let new = relays.iter().map(|relay| relay.id).collect::<BTreeSet<_>>();
        self.retiring.extend(self.listed.difference(&new));
        self.retiring.retain(|id| !new.contains(id));
        self.listed = new;

        RelayUpdate {
            remove: self.retire(in_use),
            add: relays.iter().map(config).collect(),
        }
    }

    /// Takes a change.
    pub(crate) fn on_presence(&mut self, presence: &RelaysPresence) -> RelayUpdate {
        for id in &presence.disconnected_ids {
            self.listed.remove(id);
            self.retiring.remove(id);
        }
        for relay in &presence.connected {
            self.listed.insert(relay.id);
            self.retiring.remove(&relay.id);
        }

        RelayUpdate {
            remove: presence.disconnected_ids.iter().copied().collect(),
            add: presence.connected.iter().map(config).collect(),
        }
    }

    /// Relays that are neither listed nor in use any more.
    pub(crate) fn retire(&mut self, in_use: &BTreeSet<RelayId>) -> BTreeSet<RelayId> {
        let unused = self.retiring.difference(in_use).copied().collect();
        self.retiring.retain(|id| in_use.contains(id));

        unused
    }

    pub(crate) fn is_retiring_any(&self) -> bool {
        !self.retiring.is_empty()
    }
}

/// Asks for relays when one is needed and none is known (design row 24).
///
/// `no_relays` goes out at once; a portal that does not understand it is reconnected after [`ANSWER_TIMEOUT`], because
/// every portal lists relays in its `init`.
#[derive(Debug, Default)]
pub(crate) struct RelayWatch {
    /// When to reconnect, while relays are awaited.
    deadline: Option<Instant>,
    last_reconnect: Option<Instant>,
}

impl RelayWatch {
    /// A relay is needed and none is known. Returns whether `no_relays` has to be sent.
    #[must_use]
    pub(crate) fn on_needed(&mut self, now: Instant) -> bool {
        if self.deadline.is_some() {
            return false;
        }
        let earliest = self.last_reconnect.map(|last| last + RECONNECT_INTERVAL);
        let answer_due = now + ANSWER_TIMEOUT;
        self.deadline = Some(earliest.map_or(answer_due, |earliest| earliest.max(answer_due)));

        true
    }

    /// Relays are known again, or nothing is awaited any more.
    pub(crate) fn clear(&mut self) {
        self.deadline = None;
    }

    /// Returns whether the portal has to be reconnected now.
    #[must_use]
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return false;
        }
        self.deadline = None;
        self.last_reconnect = Some(now);

        true
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}

fn config(relay: &Relay) -> RelayConfig<RelayId> {
    RelayConfig {
        id: relay.id,
        v4: relay.v4,
        v6: relay.v6,
        username: relay.username.clone(),
        password: relay.password.expose().to_owned(),
        realm: REALM.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use connlib_messages::Secret;

    // portal 68
    #[test]
    fn portal_68_no_relays_then_reconnect_five_seconds_later() {
        let (mut watch, now) = (RelayWatch::default(), Instant::now());
        assert!(watch.on_needed(now));
        assert!(!watch.on_needed(now + Duration::from_secs(1)));
        let deadline = watch.poll_timeout().expect("armed");
        assert_eq!(deadline, now + ANSWER_TIMEOUT);

        assert!(!watch.handle_timeout(deadline - Duration::from_nanos(1)));
        assert!(watch.handle_timeout(deadline));
        assert!(!watch.handle_timeout(deadline));
        assert_eq!(watch.poll_timeout(), None);
    }

    // portal 68
    #[test]
    fn portal_68_at_most_one_reconnect_in_thirty_seconds() {
        let (mut watch, now) = (RelayWatch::default(), Instant::now());
        assert!(watch.on_needed(now));
        let first = now + ANSWER_TIMEOUT;
        assert!(watch.handle_timeout(first));

        assert!(watch.on_needed(first + Duration::from_secs(1)));
        assert_eq!(watch.poll_timeout(), Some(first + RECONNECT_INTERVAL));
    }

    #[test]
    fn relays_that_arrive_in_time_prevent_the_reconnect() {
        let (mut watch, now) = (RelayWatch::default(), Instant::now());
        assert!(watch.on_needed(now));
        watch.clear();
        assert!(!watch.handle_timeout(now + 10 * ANSWER_TIMEOUT));
    }

    #[test]
    fn init_is_the_full_set() {
        let mut relays = ListedRelays::default();
        relays.on_init(&[relay(1), relay(2), relay(3)], &BTreeSet::new());
        let in_use = BTreeSet::from([id(2)]);

        let update = relays.on_init(&[relay(1)], &in_use);
        assert_eq!(update.remove, BTreeSet::from([id(3)]));
        assert_eq!(update.add.len(), 1);
        assert!(relays.is_retiring_any());

        assert!(relays.retire(&in_use).is_empty());
        assert_eq!(relays.retire(&BTreeSet::new()), in_use);
        assert!(!relays.is_retiring_any());
    }

    #[test]
    fn empty_init_changes_nothing() {
        let mut relays = ListedRelays::default();
        relays.on_init(&[relay(1)], &BTreeSet::new());
        let update = relays.on_init(&[], &BTreeSet::new());
        assert!(update.remove.is_empty() && update.add.is_empty());
    }

    #[test]
    fn relay_that_is_listed_again_stays() {
        let mut relays = ListedRelays::default();
        relays.on_init(&[relay(1), relay(2)], &BTreeSet::new());
        let in_use = BTreeSet::from([id(2)]);
        relays.on_init(&[relay(1)], &in_use);
        relays.on_presence(&RelaysPresence {
            disconnected_ids: vec![],
            connected: vec![relay(2)],
        });
        assert!(relays.retire(&BTreeSet::new()).is_empty());
    }

    pub(crate) fn relay(number: u128) -> Relay {
        Relay {
            id: id(number),
            v4: Some("198.51.100.40:3478".parse().expect("valid")),
            v6: None,
            username: "1767225600:salt".to_owned(),
            password: Secret::new("secret"),
            expires_at: 1_767_225_600,
            further_users: vec![],
        }
    }

    fn id(number: u128) -> RelayId {
        RelayId::from_u128(number)
    }
}
