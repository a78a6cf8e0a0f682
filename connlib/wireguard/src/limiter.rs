//! Limit on handshake messages per node (snownet §4.6, trap 6), in virtual time.
//!
//! A handshake costs five X25519 operations. Below the limit a message only needs a valid MAC1, i.e. its sender knows our public
//! key; above it the sender must also prove that it receives at its source address, by a cookie (whitepaper §5.3).

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use blake2::Blake2s256;
use hmac::{Mac, SimpleHmac};
use zeroize::Zeroizing;

use crate::macs::{Cookie, MacKeys, mac1_of};
use crate::message::{COOKIE_REPLY_LEN, Inbound, NONCE_LEN, classify, sender_index};
use crate::{PrivateKey, Role};

/// Handshake messages per second that are let through on their MAC1 alone. About 3 % of one core.
pub const HANDSHAKES_PER_SECOND: u32 = 100;

const WINDOW: Duration = Duration::from_secs(1);

/// Cookies are made from a secret that changes this often (whitepaper §5.4.7).
const COOKIE_SECRET_LIFETIME: Duration = Duration::from_secs(120);

/// Gate that every received handshake message passes before anything expensive is done with it. One per node key.
pub struct HandshakeLimiter {
    keys: MacKeys,
    role: Role,
    window: Window,
    secrets: CookieSecrets,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Option<Instant>,
    count: u32,
}

/// What cookies are made from. All secrets follow from the node's static key, so that no randomness is needed and nobody else
/// can tell them.
struct CookieSecrets {
    root: Zeroizing<[u8; 32]>,
    current: Zeroizing<[u8; 32]>,
    since: Option<Instant>,
    generation: u64,
    replies: u64,
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
        Self {
            keys: MacKeys::of(&private.public()),
            role,
            window: Window {
                since: None,
                count: 0,
            },
            secrets: CookieSecrets::new(private),
        }
    }

    /// Checks a handshake initiation or response that arrived from `from` (behind a relay: the peer's address, not the relay's).
    pub fn check(&mut self, datagram: &[u8], from: IpAddr, now: Instant) -> Result<(), LimitError> {
        let is_handshake = matches!(
            classify(datagram),
            Ok(Inbound::Init | Inbound::Response { .. })
        );
        if !is_handshake || !self.keys.has_mac1(datagram) {
            return Err(LimitError::Invalid);
        }

        match self.role {
            Role::Initiator => return Ok(()),
            Role::Responder if self.window.admits(now) => return Ok(()),
            Role::Responder => {}
        }

        let cookie = self.secrets.cookie(from, now);
        if cookie.proves(datagram) {
            return Ok(());
        }
        let (Some(receiver), Some(mac1)) = (sender_index(datagram), mac1_of(datagram)) else {
            return Err(LimitError::Invalid);
        };
        let nonce = self.secrets.nonce(mac1, &cookie);

        Err(LimitError::UnderLoad(CookieReply(
            self.keys.cookie_reply(receiver, mac1, &cookie, nonce),
        )))
    }
}

impl CookieSecrets {
    fn new(private: &PrivateKey) -> Self {
        let root = derive(private.secret().as_bytes(), &[b"cookie secrets"]);

        Self {
            current: derive(&root, &[b"secret", &0u64.to_le_bytes()]),
            root,
            since: None,
            generation: 0,
            replies: 0,
        }
    }

    /// The cookie of an address at `now`. Like the window, a secret's life begins with its first use: no timer.
    fn cookie(&mut self, from: IpAddr, now: Instant) -> Cookie {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= COOKIE_SECRET_LIFETIME {
            self.since = Some(now);
            self.generation += 1;
            self.current = derive(&self.root, &[b"secret", &self.generation.to_le_bytes()]);
        }

        match from {
            IpAddr::V4(address) => Cookie::of(&self.current, &address.octets()),
            IpAddr::V6(address) => Cookie::of(&self.current, &address.octets()),
        }
    }

    /// A nonce for this reply only. Other limiters of the same key count on their own, so the content is part of it.
    fn nonce(&mut self, mac1: &[u8], cookie: &Cookie) -> [u8; NONCE_LEN] {
        self.replies += 1;
        let hash = derive(
            &self.root,
            &[
                b"nonce",
                &self.replies.to_le_bytes(),
                mac1,
                cookie.as_bytes(),
            ],
        );

        std::array::from_fn(|i| hash[i])
    }
}

/// A pseudorandom function of the key.
fn derive(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hmac =
        <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        hmac.update(part);
    }

    Zeroizing::new(hmac.finalize().into_bytes().into())
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
    use crate::message::INIT_LEN;

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

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A limiter that is over its limit, and a message that it would let through otherwise.
    fn loaded(now: Instant) -> (HandshakeLimiter, [u8; INIT_LEN]) {
        let mut limiter = HandshakeLimiter::new(&PrivateKey::from_seed([1; 32]), Role::Responder);
        let mut init = [0; INIT_LEN];
        init[0] = 1;
        limiter.keys.sign(&mut init, None);
        for _ in 0..HANDSHAKES_PER_SECOND {
            assert_eq!(limiter.check(&init, FROM, now), Ok(()));
        }

        (limiter, init)
    }

    fn cookie(limiter: &mut HandshakeLimiter, init: &[u8], from: IpAddr, now: Instant) -> Cookie {
        match limiter.check(init, from, now) {
            Err(LimitError::UnderLoad(CookieReply(reply))) => limiter
                .keys
                .open_cookie_reply(&reply, mac1_of(init).unwrap())
                .unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Keeps the limiter over its limit at a later time.
    fn load(limiter: &mut HandshakeLimiter, init: &[u8], now: Instant) {
        while limiter.check(init, FROM, now) == Ok(()) {}
    }

    #[test]
    fn snownet_55_a_cookie_is_good_for_120_s_of_virtual_time() {
        let start = Instant::now();
        let (mut limiter, mut init) = loaded(start);
        let first = cookie(&mut limiter, &init, FROM, start);
        limiter.keys.sign(&mut init, Some(&first));
        let mut unproven = init;
        limiter.keys.sign(&mut unproven, None);

        let last = start + COOKIE_SECRET_LIFETIME - Duration::from_nanos(1);
        load(&mut limiter, &unproven, last);
        assert_eq!(limiter.check(&init, FROM, last), Ok(()));

        let over = start + COOKIE_SECRET_LIFETIME;
        load(&mut limiter, &unproven, over);
        let second = cookie(&mut limiter, &init, FROM, over);
        assert_ne!(second.as_bytes(), first.as_bytes());
    }

    #[test]
    fn cookies_differ_by_address_and_key() {
        let now = Instant::now();
        let (mut limiter, init) = loaded(now);
        let here = cookie(&mut limiter, &init, FROM, now);
        let there = cookie(&mut limiter, &init, IpAddr::from([127, 0, 0, 2]), now);
        assert_ne!(here.as_bytes(), there.as_bytes());

        let mut other = CookieSecrets::new(&PrivateKey::from_seed([2; 32]));
        assert_ne!(other.cookie(FROM, now).as_bytes(), here.as_bytes());
        let mut same = CookieSecrets::new(&PrivateKey::from_seed([1; 32]));
        assert_eq!(same.cookie(FROM, now).as_bytes(), here.as_bytes());
    }

    /// Two limiters of one key count on their own, so equal counts must not give equal nonces to different messages.
    #[test]
    fn no_nonce_is_used_twice() {
        let now = Instant::now();
        let [mut one, mut two] =
            [(); 2].map(|()| CookieSecrets::new(&PrivateKey::from_seed([1; 32])));
        let cookie = one.cookie(FROM, now);
        let first = one.nonce(&[1; 16], &cookie);

        assert_ne!(two.nonce(&[2; 16], &cookie), first);
        assert_ne!(one.nonce(&[1; 16], &cookie), first);
    }

    #[test]
    fn data_messages_and_stubs_are_no_handshakes() {
        let now = Instant::now();
        let (mut limiter, init) = loaded(now);
        let mut data = init;
        data[0] = 4;
        for datagram in [&data[..], &init[..147], &[]] {
            assert_eq!(limiter.check(datagram, FROM, now), Err(LimitError::Invalid));
        }
    }
}
