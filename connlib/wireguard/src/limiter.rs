//! Limit on handshake messages per node (snownet §4.6, trap 6), in virtual time.
//!
//! A handshake costs five X25519 operations. Below the limit a message only needs a valid MAC1, i.e. its sender knows our public
//! key; above it the sender must also prove that it receives at its source address, by a cookie (whitepaper §5.3).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::TunnResult;
use boringtun::noise::rate_limiter::RateLimiter;

use crate::message::COOKIE_REPLY_LEN;
use crate::{PrivateKey, Role};

/// Handshake messages per second that are let through on their MAC1 alone. About 3 % of one core.
pub const HANDSHAKES_PER_SECOND: u32 = 100;

const WINDOW: Duration = Duration::from_secs(1);

/// Gate that every received handshake message passes before anything expensive is done with it. One per node key.
pub struct HandshakeLimiter {
    /// Checks MAC1 only; also handed to every engine, whose own count must never strike.
    open: Arc<RateLimiter>,
    /// Demands MAC2 of everything.
    shut: RateLimiter,
    role: Role,
    window: Window,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Option<Instant>,
    count: u32,
}

/// The cookie reply to send back to where the refused message came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CookieReply(pub [u8; COOKIE_REPLY_LEN]);

impl fmt::Debug for CookieReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieReply")
    }
}

/// Why a handshake message must not be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No handshake message, or its MAC1 does not fit our key: drop it.
    #[error("handshake message without valid MAC1")]
    Invalid,
    /// Too many handshakes: answer with this cookie on the path of arrival and drop the message.
    #[error("too many handshakes; sender must return a cookie")]
    UnderLoad(CookieReply),
}

impl HandshakeLimiter {
    /// A limiter for one key pair; make a new one whenever the key changes. Only a responder counts.
    pub fn new(private: &PrivateKey, role: Role) -> Self {
        let public = private.x25519_public();

        Self {
            open: Arc::new(RateLimiter::new(public, u64::MAX)),
            shut: RateLimiter::new(public, 0),
            role,
            window: Window {
                since: None,
                count: 0,
            },
        }
    }

    /// Checks a handshake initiation or response that arrived from `from` (behind a relay: the peer's address, not the relay's).
    pub fn check(&mut self, datagram: &[u8], from: IpAddr, now: Instant) -> Result<(), LimitError> {
        let mut cookie = [0; COOKIE_REPLY_LEN];

        self.open
            .verify_packet(Some(from), datagram, &mut cookie)
            .map_err(|_| LimitError::Invalid)?;

        match self.role {
            Role::Initiator => return Ok(()),
            Role::Responder if self.window.admits(now) => return Ok(()),
            Role::Responder => {}
        }

        match self.shut.verify_packet(Some(from), datagram, &mut cookie) {
            Ok(_) => Ok(()),
            Err(TunnResult::WriteToNetwork(_)) => Err(LimitError::UnderLoad(CookieReply(cookie))),
            Err(_) => Err(LimitError::Invalid),
        }
    }

    pub(crate) fn engine_limiter(&self) -> Arc<RateLimiter> {
        Arc::clone(&self.open)
    }
}

impl Window {
    /// Counts one message; `false` above the limit. A window opens with the first message after the last one ended: no timer.
    fn admits(&mut self, now: Instant) -> bool {
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= WINDOW)
        {
            *self = Window {
                since: Some(now),
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);

        self.count <= HANDSHAKES_PER_SECOND
    }
}

impl fmt::Debug for HandshakeLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeLimiter")
            .field("role", &self.role)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may start at any instant")]
mod tests {
    use super::*;

    #[test]
    fn window_is_opened_by_use() {
        let start = Instant::now();
        let mut window = Window {
            since: None,
            count: 0,
        };

        let admitted = (0..150).filter(|_| window.admits(start)).count();
        assert_eq!(admitted, 100);

        assert!(!window.admits(start + Duration::from_millis(999)));
        assert!(window.admits(start + WINDOW));
    }
}
