//! Who is asking: the long-term credential mechanism (RFC 8489 §9.2) in the order of relay spec §2.4.
//!
//! Every reply that can be signed is signed with the key of the *claimed* user, also the first challenge: published
//! clients ignore anything else. A nonce that is not right is answered 438, never 401: they take a 401 to a request
//! with a nonce as "credentials are invalid" and give the relay up.

use std::time::{Duration, Instant};

use connlib_cover::cover;
use connlib_stun::{
    AuthAttributes, Envelope, ErrorCode, ErrorResponse, Integrity, Key, RelayUsername,
};

use crate::{address::ClientSocket, secret::StampSecret, server::Server};

/// An authenticated user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) key: Key,
    /// How long the credential stays valid; absent when for ever.
    pub(super) remaining: Option<Duration>,
}

/// A request that is refused before anything is looked up.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: ErrorResponse,
    /// Signs the refusal; absent when the user name is absent or malformed.
    pub(super) key: Option<Key>,
    /// Whether the request was signed correctly, so that the reply is not for the asking.
    pub(super) is_authentic: bool,
}

/// What a well-formed user name stands for.
struct Claim {
    key: Key,
    /// Unix seconds; absent for long-term users.
    expiry: Option<u64>,
}

impl Server {
    /// Authenticates a request.
    pub(super) fn authenticate(
        &self,
        envelope: &Envelope<'_>,
        auth: &AuthAttributes,
        client: ClientSocket,
        now: Instant,
    ) -> Result<User, Box<Refusal>> {
        let (claim, is_authentic) = self.verify(envelope, auth.username.as_deref());
        let unix_now = self.clock.now(now);
        let refused = match (&auth.username, &auth.nonce, &claim) {
            _ if !envelope.has_integrity() => Some(ErrorCode::UNAUTHORIZED),
            (None, _, _) | (_, None, _) => Some(ErrorCode::UNAUTHORIZED),
            (_, Some(nonce), _) if !self.nonces.is_valid(nonce, client, now) => {
                cover!("relay/stale-nonce");
                Some(ErrorCode::STALE_NONCE)
            }
            (_, _, None) => Some(ErrorCode::UNAUTHORIZED),
            (_, _, Some(claim)) if claim.expiry.is_some_and(|expiry| expiry < unix_now) => {
                Some(ErrorCode::UNAUTHORIZED)
            }
            _ if !is_authentic => Some(ErrorCode::UNAUTHORIZED),
            _ => None,
        };
        match (refused, claim, &auth.username) {
            (None, Some(claim), Some(name)) => Ok(User {
                name: name.clone(),
                remaining: claim
                    .expiry
                    .map(|expiry| Duration::from_secs(expiry.saturating_sub(unix_now))),
                key: claim.key,
            }),
            (code, claim, _) => Err(Box::new(Refusal {
                error: self.challenge(code.unwrap_or(ErrorCode::UNAUTHORIZED), client, now),
                key: claim.map(|claim| claim.key),
                is_authentic,
            })),
        }
    }

    /// What the user name stands for, and whether the request is signed accordingly. A key of the previous secret counts
    /// only if it fits; refusals are signed with the present one otherwise.
    fn verify(&self, envelope: &Envelope<'_>, name: Option<&str>) -> (Option<Claim>, bool) {
        let fits = |claim: &Claim| envelope.verify_integrity(&claim.key) == Integrity::Valid;
        let present = name.and_then(|name| self.claim(name, &self.stamp_secret));
        if present.as_ref().is_some_and(fits) {
            return (present, true);
        }
        let previous = self.config.previous_stamp_secret.as_ref();
        match previous.and_then(|secret| self.claim(name?, secret)) {
            Some(previous) if fits(&previous) => (Some(previous), true),
            Some(_) | None => (present, false),
        }
    }

    /// The key that a well-formed user name calls for. Unknown and wrong users cannot be told apart: every well-formed
    /// name has a key.
    fn claim(&self, name: &str, secret: &StampSecret) -> Option<Claim> {
        let realm = &self.config.realm;
        if let Some(password) = self.config.static_users.get(name) {
            return Some(Claim {
                key: Key::long_term(name, realm, password),
                expiry: None,
            });
        }
        let user = RelayUsername::parse(name).ok()?;
        let password = user.password(secret.expose());
        Some(Claim {
            key: Key::long_term(name, realm, &password),
            expiry: Some(user.expiry),
        })
    }

    fn challenge(&self, code: ErrorCode, client: ClientSocket, now: Instant) -> ErrorResponse {
        ErrorResponse {
            realm: Some(self.config.realm.clone()),
            nonce: Some(self.nonces.issue(client, now)),
            ..ErrorResponse::new(code)
        }
    }
}
