//! Everything that is computed instead of stored or drawn: ICE credentials, preshared keys, TURN credentials, relay ids
//! and the ids of configured things (portal protocol §7.2–§7.4).
//!
//! Deriving makes repeated requests give equal answers: a reply that is lost, or a portal that restarts, never leaves
//! the two ends of a live connection with different secrets.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use connlib_messages::{IceCredentials, Key, PresharedKey, Secret};
use connlib_model::{ClientId, GatewayId, RelayId};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// 2038-01-01T00:00:00Z: the end of credentials and authorizations that have none of their own. It fits the signed
/// 32-bit time of old components.
pub const FAR_FUTURE: u64 = 2_145_916_800;

/// ICE credentials of both ends, stable while both keep their WireGuard keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IcePair {
    /// Of the client.
    pub client: IceCredentials,
    /// Of the gateway.
    pub gateway: IceCredentials,
}

/// ICE credentials of a client and a gateway (§7.2).
pub fn ice_credentials(
    client: ClientId,
    client_key: Key,
    gateway: GatewayId,
    gateway_key: Key,
) -> IcePair {
    let digest = Sha256::digest(format!("{client}:{client_key}:{gateway}:{gateway_key}"));
    let text = base32(&digest);
    let credentials = |at: usize| IceCredentials {
        username: text[at..at + 4].to_owned(),
        password: Secret::new(&text[at + 4..at + 26]),
    };
    IcePair {
        client: credentials(0),
        gateway: credentials(26),
    }
}

/// Preshared key of a client and a gateway (§7.2): PBKDF2-HMAC-SHA256 with one iteration.
pub fn preshared_key(
    (client, client_key, client_base): (ClientId, Key, &[u8; 32]),
    (gateway, gateway_key, gateway_base): (GatewayId, Key, &[u8; 32]),
) -> PresharedKey {
    let password = [&client_base[..], &gateway_base[..]].concat();
    let salt = format!("WG_PSK|C_ID:{client}|G_ID:{gateway}|C_PK:{client_key}|G_PK:{gateway_key}");
    // One iteration and one block of output make PBKDF2 a single HMAC over salt and block number (RFC 8018 §5.2).
    PresharedKey(hmac_sha256(
        &password,
        &[salt.as_bytes(), &1u32.to_be_bytes()],
    ))
}

/// TURN user name and password for the holder of a WireGuard key (§7.3), stable over its reconnects.
pub fn turn_credentials(stamp_secret: &str, key: Key, expires_at: u64) -> (String, Secret) {
    salted(stamp_secret, &key.to_string(), expires_at)
}

/// The same for its further user with this number, at least 1.
pub(crate) fn further_turn_credentials(
    stamp_secret: &str,
    key: Key,
    expires_at: u64,
    user: usize,
) -> (String, Secret) {
    salted(stamp_secret, &format!("{key}|{user}"), expires_at)
}

fn salted(stamp_secret: &str, identity: &str, expires_at: u64) -> (String, Secret) {
    let salt = STANDARD_NO_PAD.encode(Sha256::digest(identity));
    let password = turn_password(expires_at, stamp_secret, &salt);
    (format!("{expires_at}:{salt}"), password)
}

fn turn_password(expires_at: u64, stamp_secret: &str, salt: &str) -> Secret {
    let digest = Sha256::digest(format!("{expires_at}:{stamp_secret}:{salt}"));
    Secret::from(STANDARD_NO_PAD.encode(digest))
}

/// A relay's id from its stamp secret (§7.4): new with each of its processes, equal on each of its joins.
pub fn relay_id(stamp_secret: &str) -> RelayId {
    let digest = Sha256::digest(stamp_secret);
    let bits = u128::from_be_bytes(first_16(&digest));
    // The version takes the place of four bits; the twelve bits behind it and the 62 bits behind the variant follow the
    // digest in place.
    let version_and_variant = (0xf << 76) | (0b11 << 62);
    RelayId::from_u128((bits & !version_and_variant) | (4 << 76) | (0b10 << 62))
}

/// The id of something that the configuration names and gives no id: equal for equal names, so that restarts and
/// reloads keep it.
pub fn id_from_name(kind: &str, name: &str) -> Uuid {
    let digest = Sha256::digest(format!("firezone-portal:{kind}:{name}"));
    uuid::Builder::from_custom_bytes(first_16(&digest)).into_uuid()
}

/// HMAC-SHA256 over the parts.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn first_16(digest: &[u8]) -> [u8; 16] {
    digest[..16]
        .try_into()
        .expect("a SHA-256 digest has 32 bytes")
}

/// RFC 4648 §6 in lower case without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// A public key as its base64 text would be read from a query.
pub(crate) fn key_from_query(text: &str) -> Option<Key> {
    // A `+` that was not percent-encoded arrives as a space.
    let bytes = STANDARD.decode(text.replace(' ', "+")).ok()?;
    bytes.try_into().ok().map(Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "0c6f1a52-7c1e-4a53-9a6b-3d0a6d6f2b11";
    const GATEWAY: &str = "5b1f7e0a-2f0d-4d92-8a55-6f2f9f1c4e20";

    // portal 87
    #[test]
    fn portal_87_turn_password_vectors() {
        for (expiry, secret, salt, password) in [
            (
                1_685_984_278,
                "1cab293a-4032-46f4-862a-40e5d174b0d2".to_owned(),
                "uvdgKvS9GXYZ_vmv",
                "6xUIoZ+QvxKhRasLifwfRkMXl+ETLJUsFkHlXjlHAkg",
            ),
            (
                1_892_160_000,
                "4c98bf59c99b3e467ecd7cf9d6b3e5279645fca59be67bc5bb4af3cf653761ab".to_owned(),
                "n23JJ2wKKtt30oXi",
                "00hqldgk5xLeKKOB+xls9mHMVtgqzie9DulfgQwMv68",
            ),
            (
                1_767_225_600,
                "7d".repeat(32),
                "k3Zr9vQ2TtYw0aLh8sJm1A",
                "vcr4su/27b6d9SQeIFiS2ZZxc0iRVeKXNDnautNGhTM",
            ),
        ] {
            assert_eq!(turn_password(expiry, &secret, salt).expose(), password);
        }
    }

    // portal 98
    #[test]
    fn portal_98_turn_credentials_depend_on_the_key_alone() {
        let (username, password) = turn_credentials(&"7d".repeat(32), Key([1; 32]), FAR_FUTURE);
        assert_eq!(
            username,
            "2145916800:xXzDtV05+ab3cvUI44IeCigIIjUsDQ8NJZ+6Y7dNqaA"
        );
        assert_eq!(
            password.expose(),
            "I3pciqIwY5+9gi5/FjZBuDvFV2M8Kxpd96dZHNhCIvI"
        );
    }

    #[test]
    fn relay_id_vector() {
        assert_eq!(
            relay_id(&"7d".repeat(32)).to_string(),
            "6d98bf17-b045-4f12-8e42-b9c49596c11f"
        );
    }

    // portal 90
    #[test]
    fn portal_90_ice_credentials_vector() {
        let pair = ice_credentials(
            CLIENT.parse().unwrap(),
            Key([1; 32]),
            GATEWAY.parse().unwrap(),
            Key([2; 32]),
        );
        assert_eq!(pair.client.username, "vg4n");
        assert_eq!(pair.client.password.expose(), "shp57j6gltbmrljfbix5uk");
        assert_eq!(pair.gateway.username, "mmal");
        assert_eq!(pair.gateway.password.expose(), "ck7iru2pt5hgmjp4nvij7a");
    }

    #[test]
    fn preshared_key_vector() {
        let client_base: [u8; 32] = std::array::from_fn(|i| i as u8);
        let gateway_base: [u8; 32] = std::array::from_fn(|i| 32 + i as u8);
        let key = preshared_key(
            (CLIENT.parse().unwrap(), Key([1; 32]), &client_base),
            (GATEWAY.parse().unwrap(), Key([2; 32]), &gateway_base),
        );
        assert_eq!(key.expose(), "FN/5aHrOj2IPteNZQSMqSSAF/McgewztE2ILfaUlWV8=");
    }

    #[test]
    fn ids_from_names_are_stable_and_differ_by_kind() {
        assert_eq!(
            id_from_name("site", "Berlin"),
            id_from_name("site", "Berlin")
        );
        assert_ne!(
            id_from_name("site", "Berlin"),
            id_from_name("group", "Berlin")
        );
    }

    #[test]
    fn keys_survive_a_plus_that_became_a_space() {
        let key = Key([0xfb; 32]);
        let text = key.to_string();
        assert!(text.contains('+'));
        assert_eq!(key_from_query(&text.replace('+', " ")), Some(key));
        assert_eq!(key_from_query("AQEB"), None);
    }
}
