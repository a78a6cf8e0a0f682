//! What a caller tells the node: its role, its relays, and the credentials of a connection.

use std::fmt;
use std::net::{SocketAddrV4, SocketAddrV6};

/// Longest accepted ICE user fragment (bytes).
///
/// Both fragments and a colon form a STUN USERNAME, which the ICE agent limits to 128 bytes.
const MAX_UFRAG_LEN: usize = 60;

/// Longest accepted ICE password (bytes), RFC 8839 §5.4.
const MAX_PASSWORD_LEN: usize = 256;

/// Which end of its connections a node is. Fixed for the life of the node, never negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Controls ICE and alone initiates WireGuard handshakes.
    Client,
    /// Is controlled and alone answers WireGuard handshakes.
    Gateway,
}

/// Short-term credentials of one end of a connection (RFC 8445 §5.3), made by the portal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IceCredentials {
    ufrag: String,
    password: String,
}

/// Credentials that cannot be put into a STUN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ICE credentials are empty, too long or contain a colon")]
pub struct InvalidCredentials;

impl IceCredentials {
    /// Checks and wraps a user fragment (1..=60 bytes, no colon) and a password (1..=256 bytes).
    ///
    /// # Errors
    ///
    /// [`InvalidCredentials`] if either does not fit.
    pub fn new(
        ufrag: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Self, InvalidCredentials> {
        let (ufrag, password) = (ufrag.into(), password.into());
        let ufrag_fits = (1..=MAX_UFRAG_LEN).contains(&ufrag.len()) && !ufrag.contains(':');
        if !ufrag_fits || !(1..=MAX_PASSWORD_LEN).contains(&password.len()) {
            return Err(InvalidCredentials);
        }
        Ok(Self { ufrag, password })
    }

    /// The user fragment.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The password: the key of MESSAGE-INTEGRITY for requests sent to this end.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

/// A TURN relay as listed by the portal, its addresses grouped by relay.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayConfig<R> {
    /// Identity of the relay; survives restarts of the relay.
    pub id: R,
    /// IPv4 socket of the TURN server.
    pub v4: Option<SocketAddrV4>,
    /// IPv6 socket of the TURN server.
    pub v6: Option<SocketAddrV6>,
    /// TURN user name.
    pub username: String,
    /// TURN password.
    pub password: String,
    /// TURN realm; credentials are never offered to a relay that names another one.
    pub realm: String,
}

impl<R: fmt::Debug> fmt::Debug for RelayConfig<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig")
            .field("id", &self.id)
            .field("v4", &self.v4)
            .field("v6", &self.v6)
            .field("username", &self.username)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_break_stun_are_refused() {
        assert!(IceCredentials::new("abcd", "0123456789012345678901").is_ok());
        assert!(IceCredentials::new("", "x").is_err());
        assert!(IceCredentials::new("a:b", "x").is_err());
        assert!(IceCredentials::new("a".repeat(61), "x").is_err());
        assert!(IceCredentials::new("abcd", "").is_err());
        assert!(IceCredentials::new("abcd", "p".repeat(257)).is_err());
    }

    #[test]
    fn debug_output_hides_secrets() {
        let credentials = IceCredentials::new("abcd", "secret").expect("valid");
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
