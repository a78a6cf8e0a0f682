//! Long-term credentials of one relay, and the nonce that goes with them (RFC 8489 §9.2; snownet spec §2.3, §2.5).

use connlib_stun::{AuthAttributes, Key};

/// User name, password and realm as the portal handed them out.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name, `<expiry>:<salt>` for our relays.
    pub username: String,
    /// Password.
    pub password: String,
    /// Realm in which the password is valid; a relay that names another one is not authenticated to.
    pub realm: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// Counts the nonces received so far; a request remembers under which one it was sent. 0 = without nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct NonceGeneration(u32);

impl NonceGeneration {
    /// Whether a request of this generation carried a NONCE.
    pub(crate) fn has_nonce(self) -> bool {
        self.0 > 0
    }
}

/// Signs requests and checks responses.
#[derive(Debug)]
pub(crate) struct Authenticator {
    credentials: Credentials,
    key: Key,
    nonce: Option<String>,
    generation: NonceGeneration,
}

impl Authenticator {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let Credentials {
            username,
            password,
            realm,
        } = &credentials;
        Self {
            key: Key::long_term(username, realm, password),
            credentials,
            nonce: None,
            generation: NonceGeneration::default(),
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn generation(&self) -> NonceGeneration {
        self.generation
    }

    /// What identifies us in the next request.
    pub(crate) fn attributes(&self) -> AuthAttributes {
        AuthAttributes {
            username: Some(self.credentials.username.clone()),
            realm: Some(self.credentials.realm.clone()),
            nonce: self.nonce.clone(),
        }
    }

    /// Uses this nonce from now on.
    pub(crate) fn set_nonce(&mut self, nonce: String) {
        self.nonce = Some(nonce);
        self.generation.0 = self.generation.0.saturating_add(1);
    }

    /// Starts over without nonce, as after a change of network.
    pub(crate) fn forget_nonce(&mut self) {
        self.nonce = None;
        self.generation = NonceGeneration::default();
    }
}
