//! Why a connection failed or ended, and which of these end the channel.
//!
//! Everything is retried except what a retry cannot mend: a refused login, a join refused for a reason that stays, and
//! an exhausted budget.

use std::time::Duration;

use crate::frame::Reason;

/// Why one attempt failed, or why an established connection ended. All of these are retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The host name has no address.
    #[error("no IP addresses available for the portal")]
    NoAddresses,
    /// The host name could not be looked up.
    #[error("failed to resolve the portal's host name: {0}")]
    Resolve(String),
    /// No address accepted a TCP connection.
    #[error("failed to connect to the portal: {0}")]
    Tcp(String),
    /// The TLS handshake failed.
    #[error("TLS handshake with the portal failed: {0}")]
    Tls(String),
    /// The portal answered the upgrade with something else than HTTP 101.
    #[error("the portal answered HTTP {status}{}", detail_suffix(.detail))]
    Http {
        /// HTTP status code.
        status: u16,
        /// What the body says, shortened.
        detail: String,
        /// Delay that the portal asks for before the next attempt.
        retry_after: Option<Duration>,
    },
    /// TCP, TLS and upgrade together took too long.
    #[error("connecting to the portal timed out")]
    ConnectTimeout,
    /// The join was not answered in time.
    #[error("the portal did not answer the join")]
    JoinTimeout,
    /// The join was refused for a reason that may pass.
    #[error("the portal refused the join: {0}")]
    JoinRefused(String),
    /// Too many heartbeats were not answered.
    #[error("the portal does not answer heartbeats")]
    MissedHeartbeats,
    /// The connection has taken no data for a long time.
    #[error("the connection to the portal takes no data")]
    Stalled,
    /// The portal stopped our topic.
    #[error("the portal closed the channel")]
    ChannelClosed,
    /// The portal closed the WebSocket.
    #[error("the portal closed the connection ({code}{})", detail_suffix(.reason))]
    Closed {
        /// WebSocket close code; 1005 when the portal sent none.
        code: u16,
        /// Text of the close frame.
        reason: String,
    },
    /// Reading or writing failed, or the other side does not speak WebSocket.
    #[error("connection to the portal lost: {0}")]
    Transport(String),
    /// The login was refused. Not retried: see [`FatalError`].
    #[error("{0}")]
    Refused(LoginRefused),
}

/// How the portal refused the login (HTTP 401).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// The portal says that the token itself is missing or invalid.
    #[error("the portal does not accept the token")]
    InvalidToken,
    /// Refused without naming the token, perhaps by a proxy in between.
    #[error("authentication failed{}", detail_suffix(.0))]
    AuthenticationFailed(String),
}

/// What ends the channel for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// The token is missing, invalid or expired; a new one is needed.
    #[error("the portal does not accept the token")]
    InvalidToken,
    /// The login was refused for another reason; the token may still be good.
    #[error("authentication failed{}", detail_suffix(.0))]
    AuthenticationFailed(String),
    /// The portal was unreachable for longer than the budget.
    #[error("the portal was unreachable for too long: {final_error}")]
    MaxRetriesReached {
        /// What the last attempt failed with.
        final_error: ConnectionError,
    },
    /// The portal refuses to let this component join.
    #[error("the portal refused the login: {0}")]
    LoginFailed(Reason),
}

impl FatalError {
    /// Whether the user must sign in again, so that a stored token should be thrown away.
    pub fn requires_sign_in(&self) -> bool {
        matches!(self, Self::InvalidToken)
    }
}

impl From<LoginRefused> for FatalError {
    fn from(refused: LoginRefused) -> Self {
        match refused {
            LoginRefused::InvalidToken => Self::InvalidToken,
            LoginRefused::AuthenticationFailed(detail) => Self::AuthenticationFailed(detail),
        }
    }
}

fn detail_suffix(detail: &str) -> String {
    match detail {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_invalid_token_requires_sign_in() {
        assert!(FatalError::InvalidToken.requires_sign_in());
        for other in [
            FatalError::AuthenticationFailed(String::new()),
            FatalError::LoginFailed(Reason::InvalidVersion),
            FatalError::MaxRetriesReached {
                final_error: ConnectionError::NoAddresses,
            },
        ] {
            assert!(!other.requires_sign_in(), "{other}");
        }
    }

    #[test]
    fn details_are_part_of_the_sentence() {
        let error = ConnectionError::Http {
            status: 503,
            detail: "slow down".to_owned(),
            retry_after: None,
        };
        assert_eq!(error.to_string(), "the portal answered HTTP 503: slow down");
    }
}
