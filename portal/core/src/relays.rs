//! Relays: who is there, and which two a component gets (portal protocol §7.4).
//!
//! The choice is stable: every component ranks the relays by a hash of its own id and theirs, so that reconnects and
//! portal restarts hand out the same relays as long as they are there. Where both places are known, the nearer relay
//! comes first.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
};

use connlib_messages::{Key, Relay, RelayUser, Secret};
use connlib_model::RelayId;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    derive,
    location::{Coordinates, distance},
    portal::ConnectionId,
};

/// Relays per component: one to use and one to fall back to.
pub(crate) const RELAYS_PER_COMPONENT: usize = 2;

/// Where a relay listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) port: u16,
}

/// A relay that is joined.
#[derive(Debug, Clone)]
pub(crate) struct OnlineRelay {
    pub(crate) connection: ConnectionId,
    pub(crate) listen: Listen,
    pub(crate) stamp_secret: Secret,
    pub(crate) coordinates: Option<Coordinates>,
}

/// All joined relays.
#[derive(Debug, Default)]
pub(crate) struct Relays(BTreeMap<RelayId, OnlineRelay>);

/// Who asks for relays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) device: Uuid,
    pub(crate) key: Key,
    pub(crate) expires_at: u64,
    pub(crate) coordinates: Option<Coordinates>,
    /// Changes the ranking; raised when the component says that its relays are of no use.
    pub(crate) attempt: u32,
    /// As how many users it wants to use each relay, at least 1.
    pub(crate) users: usize,
}

/// What was handed out: a relay whose secret or address differs is another relay.
pub(crate) type HandedOut = BTreeMap<RelayId, Listen>;

impl Relays {
    /// A relay joined. Gives back the connection that had the same id before.
    pub(crate) fn join(&mut self, relay: OnlineRelay) -> (RelayId, Option<ConnectionId>) {
        let id = derive::relay_id(relay.stamp_secret.expose());
        let connection = relay.connection;
        let before = self.0.insert(id, relay).map(|relay| relay.connection);
        (id, before.filter(|before| *before != connection))
    }

    /// A connection ended; true if its relay is gone with it.
    pub(crate) fn leave(&mut self, connection: ConnectionId) -> bool {
        let before = self.0.len();
        self.0.retain(|_, relay| relay.connection != connection);
        self.0.len() != before
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether what was handed out is still what is there.
    pub(crate) fn is_online(&self, id: &RelayId, listen: &Listen) -> bool {
        self.0.get(id).is_some_and(|relay| relay.listen == *listen)
    }

    /// The relays for a component, best first, with credentials.
    pub(crate) fn choose(&self, asker: &Asker) -> Vec<(Relay, Listen)> {
        let mut ranked: Vec<_> = self.0.iter().collect();
        ranked.sort_by_cached_key(|(id, relay)| rank(asker, **id, relay));
        ranked.truncate(RELAYS_PER_COMPONENT);
        let entries = ranked.into_iter();
        entries
            .map(|(id, relay)| (entry(asker, *id, relay), relay.listen))
            .collect()
    }
}

fn rank(asker: &Asker, id: RelayId, relay: &OnlineRelay) -> (u32, [u8; 32]) {
    let distance = asker
        .coordinates
        .map_or(0, |place| distance(place, relay.coordinates));
    let hash = Sha256::new()
        .chain_update(asker.device.as_bytes())
        .chain_update(asker.attempt.to_be_bytes())
        .chain_update(id.uuid().as_bytes());
    (distance, hash.finalize().into())
}

fn entry(asker: &Asker, id: RelayId, relay: &OnlineRelay) -> Relay {
    let secret = relay.stamp_secret.expose();
    let (username, password) = derive::turn_credentials(secret, asker.key, asker.expires_at);
    let further_users = (1..asker.users).map(|user| {
        let (username, password) =
            derive::further_turn_credentials(secret, asker.key, asker.expires_at, user);
        RelayUser { username, password }
    });
    let port = relay.listen.port;
    Relay {
        id,
        v4: relay.listen.ipv4.map(|ip| SocketAddrV4::new(ip, port)),
        v6: relay
            .listen
            .ipv6
            .map(|ip| SocketAddrV6::new(ip, port, 0, 0)),
        username,
        password,
        expires_at: asker.expires_at,
        further_users: further_users.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relays(count: u8) -> Relays {
        let mut relays = Relays::default();
        for index in 0..count {
            relays.join(relay(index, None));
        }
        relays
    }

    fn relay(index: u8, place: Option<&str>) -> OnlineRelay {
        OnlineRelay {
            connection: ConnectionId(index.into()),
            listen: Listen {
                ipv4: Some(Ipv4Addr::new(203, 0, 113, index)),
                ipv6: Some(Ipv6Addr::LOCALHOST),
                port: 3478,
            },
            stamp_secret: Secret::from(format!("{index:02x}").repeat(32)),
            coordinates: place.and_then(Coordinates::parse),
        }
    }

    fn asker(device: u128) -> Asker {
        Asker {
            device: Uuid::from_u128(device),
            key: Key([1; 32]),
            expires_at: derive::FAR_FUTURE,
            coordinates: None,
            attempt: 0,
            users: 1,
        }
    }

    // portal 93
    #[test]
    fn portal_93_at_most_two_relays_and_the_same_each_time() {
        let relays = relays(5);
        assert_eq!(relays.choose(&asker(1)).len(), 2);
        assert_eq!(relays.choose(&asker(1)), relays.choose(&asker(1)));
        let chosen: std::collections::BTreeSet<_> = (0..50)
            .flat_map(|device| relays.choose(&asker(device)))
            .map(|(relay, _)| relay.id)
            .collect();
        assert_eq!(chosen.len(), 5, "the load is spread");
        assert!(Relays::default().choose(&asker(1)).is_empty());
    }

    // portal 92
    #[test]
    fn portal_92_both_families_and_port() {
        let chosen = relays(1).choose(&asker(1));
        assert_eq!(chosen[0].0.v4, Some("203.0.113.0:3478".parse().unwrap()));
        assert_eq!(chosen[0].0.v6, Some("[::1]:3478".parse().unwrap()));
    }

    #[test]
    fn each_user_of_a_gateway_has_credentials_of_its_own() {
        let three = Asker {
            users: 3,
            ..asker(1)
        };
        let (relay, _) = relays(1).choose(&three).remove(0);
        let (alone, _) = relays(1).choose(&asker(1)).remove(0);
        assert_eq!(relay.username, alone.username);
        assert_eq!(alone.further_users, []);
        let names = relay.further_users.iter().map(|user| &user.username);
        let names: std::collections::BTreeSet<_> = names.chain([&relay.username]).collect();
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn nearest_first_and_unknown_last() {
        let mut relays = Relays::default();
        relays.join(relay(1, None));
        let (sydney, _) = relays.join(relay(2, Some("-33.9,151.2")));
        let (paris, _) = relays.join(relay(3, Some("48.9,2.4")));
        let near_berlin = Asker {
            coordinates: Coordinates::parse("52.5,13.4"),
            ..asker(1)
        };
        let chosen: Vec<_> = relays
            .choose(&near_berlin)
            .into_iter()
            .map(|r| r.0.id)
            .collect();
        assert_eq!(chosen, [paris, sydney]);
    }

    #[test]
    fn another_attempt_ranks_anew() {
        let relays = relays(8);
        let first: Vec<_> = relays
            .choose(&asker(1))
            .into_iter()
            .map(|r| r.0.id)
            .collect();
        let differs = (1..10).any(|attempt| {
            let again = Asker {
                attempt,
                ..asker(1)
            };
            relays
                .choose(&again)
                .into_iter()
                .map(|r| r.0.id)
                .collect::<Vec<_>>()
                != first
        });
        assert!(differs);
    }

    #[test]
    fn rejoin_over_a_new_connection_replaces_the_old_one() {
        let mut relays = Relays::default();
        let (id, before) = relays.join(relay(1, None));
        assert_eq!(before, None);
        let again = OnlineRelay {
            connection: ConnectionId(99),
            ..relay(1, None)
        };
        assert_eq!(relays.join(again), (id, Some(ConnectionId(1))));
        assert!(!relays.leave(ConnectionId(1)));
        assert_eq!(relays.len(), 1);
        assert!(relays.leave(ConnectionId(99)));
    }
}
