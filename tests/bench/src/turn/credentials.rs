//! How the clients of a load authenticate.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use connlib_stun::{Key, relay_password};

/// How long minted credentials are valid: longer than any load.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// What is known before the server is asked.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// USERNAME.
    pub(crate) username: String,
    /// The password behind the key.
    pub(crate) password: String,
    /// The realm that the first request is signed for; a server may name another one in its challenge.
    pub(crate) realm: String,
}

/// Where the clients' credentials come from.
#[derive(Debug, Clone)]
pub(crate) enum Accounts {
    /// All clients are the same user.
    One(Credentials),
    /// Each client is a user of its own, minted from a relay's secret as a portal does (relay spec §2.3). A relay of a
    /// portal gives each user one allocation.
    Minted {
        /// The secret, as text.
        secret: String,
        /// The relay's realm.
        realm: String,
    },
}

impl Credentials {
    /// The long-term key in a realm.
    pub(crate) fn key(&self, realm: &str) -> Key {
        Key::long_term(&self.username, realm, &self.password)
    }
}

impl Accounts {
    /// Of a client.
    ///
    /// # Errors
    ///
    /// If the system's clock stands before 1970.
    pub(crate) fn of(&self, client: usize) -> Result<Credentials> {
        let (secret, realm) = match self {
            Self::One(credentials) => return Ok(credentials.clone()),
            Self::Minted { secret, realm } => (secret, realm),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let expiry = (now + VALIDITY).as_secs();
        let salt = format!("load-{client}");
        Ok(Credentials {
            password: relay_password(expiry, secret, &salt),
            username: format!("{expiry}:{salt}"),
            realm: realm.clone(),
        })
    }
}
