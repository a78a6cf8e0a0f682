//! Relays as the portal hands them out (portal protocol §2.2).
//!
//! On the wire a relay with both families is two entries with one id; here it is one [`Relay`].

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use connlib_model::RelayId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Secret, lenient};

/// The realm of all TURN credentials.
pub const REALM: &str = "firezone";

/// Parameter of a gateway's login: as how many users it wants to use each relay. Left out it means one.
pub const RELAY_USERS_PARAMETER: &str = "relay_users";

/// Most users of one gateway at a relay. More workers than this have no network adapter to feed them, and each costs the
/// relay a port.
pub const MAX_RELAY_USERS: usize = 32;

/// A relay with credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Identity.
    pub id: RelayId,
    /// STUN/TURN address, IPv4.
    pub v4: Option<SocketAddrV4>,
    /// STUN/TURN address, IPv6.
    pub v6: Option<SocketAddrV6>,
    /// TURN user name, `<unix expiry>:<salt>`.
    pub username: String,
    /// TURN password.
    pub password: Secret,
    /// When the credentials end, Unix seconds.
    pub expires_at: u64,
    /// Credentials of further users, for a gateway whose workers hold an allocation each: relays grant one per user.
    /// Our portal's own member, given to those that ask for it by [`RELAY_USERS_PARAMETER`]; others pass over it.
    pub further_users: Vec<RelayUser>,
}

/// Credentials of one further user of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayUser {
    /// TURN user name.
    pub username: String,
    /// TURN password.
    pub password: Secret,
}

/// Relays that went and relays to use instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaysPresence {
    /// Stop using these.
    #[serde(deserialize_with = "lenient::list")]
    pub disconnected_ids: Vec<RelayId>,
    /// Add or refresh these, after the removals.
    #[serde(with = "list")]
    pub connected: Vec<Relay>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Entry {
    Stun {},
    Turn {
        id: RelayId,
        addr: SocketAddr,
        username: String,
        password: Secret,
        #[serde(default)]
        expires_at: u64,
        #[serde(
            default,
            deserialize_with = "lenient::list",
            skip_serializing_if = "Vec::is_empty"
        )]
        further_users: Vec<RelayUser>,
    },
}

/// Serde for lists of relays: `#[serde(with = "relays::list")]`.
pub(crate) mod list {
    use super::{Deserializer, Entry, Relay, Serialize, Serializer, entries, lenient, merge};

    pub(crate) fn serialize<S: Serializer>(
        relays: &[Relay],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let entries: Vec<Entry> = relays.iter().flat_map(entries).collect();
        entries.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Relay>, D::Error> {
        lenient::list(deserializer).map(merge)
    }
}

fn entries(relay: &Relay) -> impl Iterator<Item = Entry> {
    let v4 = relay.v4.map(SocketAddr::V4);
    let v6 = relay.v6.map(SocketAddr::V6);
    v4.into_iter().chain(v6).map(|addr| Entry::Turn {
        id: relay.id,
        addr,
        username: relay.username.clone(),
        password: relay.password.clone(),
        expires_at: relay.expires_at,
        further_users: relay.further_users.clone(),
    })
}

/// Merges the entries of one id: one address per family, the first; the credentials of the last entry.
fn merge(entries: Vec<Entry>) -> Vec<Relay> {
    let mut relays: Vec<Relay> = Vec::new();
    for entry in entries {
        let Entry::Turn {
            id,
            addr,
            username,
            password,
            expires_at,
            further_users,
        } = entry
        else {
            continue;
        };
        let index = relays.iter().position(|relay| relay.id == id);
        let index = index.unwrap_or_else(|| {
            relays.push(Relay {
                id,
                v4: None,
                v6: None,
                username: String::new(),
                password: Secret::new(""),
                expires_at,
                further_users: Vec::new(),
            });
            relays.len() - 1
        });
        let relay = &mut relays[index];
        let kept = match addr {
            SocketAddr::V4(addr) => *relay.v4.get_or_insert(addr) == addr,
            SocketAddr::V6(addr) => *relay.v6.get_or_insert(addr) == addr,
        };
        if !kept {
            tracing::warn!(%id, "relay has two addresses of one family; keeping the first");
        }
        relay.username = username;
        relay.password = password;
        relay.expires_at = expires_at;
        relay.further_users = further_users;
        relay.further_users.truncate(MAX_RELAY_USERS - 1);
    }
    relays
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7a3c5e91-0b4d-4c68-a1f2-53d9e07b6c55";

    fn turn(addr: &str, username: &str) -> serde_json::Value {
        serde_json::json!({"id": ID, "type": "turn", "addr": addr, "username": username,
            "password": "secret", "expires_at": 1_767_225_600})
    }

    fn read(entries: serde_json::Value) -> Vec<Relay> {
        #[derive(Deserialize)]
        struct Relays(#[serde(with = "list")] Vec<Relay>);
        serde_json::from_value::<Relays>(entries).unwrap().0
    }

    // portal 47
    #[test]
    fn portal_47_families_merge_and_stun_is_ignored() {
        let relays = read(serde_json::json!([
            turn("198.51.100.40:3478", "1:first"),
            turn("[2001:db8:40::1]:3478", "1:last"),
            {"id": "c18e4b07-92d6-4f3a-b75e-0d61f8a24e66", "type": "stun", "addr": "203.0.113.9:3478"},
        ]));
        assert_eq!(relays.len(), 1);
        assert_eq!(relays[0].v4, Some("198.51.100.40:3478".parse().unwrap()));
        assert_eq!(relays[0].v6, Some("[2001:db8:40::1]:3478".parse().unwrap()));
        assert_eq!(relays[0].username, "1:last");
    }

    // portal 47
    #[test]
    fn portal_47_duplicate_family_keeps_the_first_address() {
        let relays = read(serde_json::json!([
            turn("198.51.100.40:3478", "1:a"),
            turn("198.51.100.41:3478", "1:b"),
        ]));
        assert_eq!(relays.len(), 1);
        assert_eq!(relays[0].v4, Some("198.51.100.40:3478".parse().unwrap()));
        assert_eq!(relays[0].username, "1:b");
    }

    #[test]
    fn further_users_are_optional_bounded_and_survive_the_wire() {
        let users = |count: usize| {
            let user = |i| serde_json::json!({"username": format!("1:{i}"), "password": "p"});
            (0..count).map(user).collect::<serde_json::Value>()
        };
        let mut entry = turn("198.51.100.40:3478", "1:a");
        assert_eq!(read(serde_json::json!([entry]))[0].further_users, []);

        entry["further_users"] = users(2);
        let relays = read(serde_json::json!([entry]));
        assert_eq!(relays[0].further_users[1].username, "1:1");
        let presence = RelaysPresence {
            disconnected_ids: vec![],
            connected: relays.clone(),
        };
        let written = serde_json::to_value(&presence).unwrap();
        let back: RelaysPresence = serde_json::from_value(written).unwrap();
        assert_eq!(back.connected, relays);

        entry["further_users"] = users(1000);
        let relays = read(serde_json::json!([entry]));
        assert_eq!(relays[0].further_users.len(), MAX_RELAY_USERS - 1);
    }

    #[test]
    fn unknown_types_and_bad_addresses_are_skipped() {
        let relays = read(serde_json::json!([
            {"id": ID, "type": "quic", "addr": "198.51.100.40:3478"},
            turn("relay.example:3478", "1:a"),
            17,
            turn("198.51.100.42:3478", "1:a"),
        ]));
        assert_eq!(relays.len(), 1);
        assert_eq!(relays[0].v4, Some("198.51.100.42:3478".parse().unwrap()));
    }
}
