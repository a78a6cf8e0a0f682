//! Nonces without memory (relay spec §2.4): `window ‖ truncated HMAC-SHA256(process key, window ‖ client address)`.
//!
//! A nonce is bound to a client socket and to a window of ten minutes; the previous window is accepted too. One client
//! gets the same nonce within a window, and a flood of challenges costs no memory. Nonces begin with a hexadecimal
//! digit, hence never with the security-feature cookie of RFC 8489 §9.2.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::address::ClientSocket;

/// How long one nonce is handed out.
const WINDOW: Duration = Duration::from_secs(600);
/// Hexadecimal digits of the window's number.
const WINDOW_DIGITS: usize = 8;
/// Bytes of the MAC that are kept: 96 bits cannot be guessed within a window.
const MAC_LEN: usize = 12;

/// Makes and checks nonces.
#[derive(Debug)]
pub(crate) struct Nonces {
    key: Hmac<Sha256>,
    epoch: Instant,
}

impl Nonces {
    /// `epoch` is the beginning of the first window.
    pub(crate) fn new(key: [u8; 32], epoch: Instant) -> Self {
        let key = Hmac::new_from_slice(&key).expect("HMAC accepts keys of any length");
        Self { key, epoch }
    }

    /// The nonce of a client at this time.
    pub(crate) fn issue(&self, client: ClientSocket, now: Instant) -> String {
        let window = self.window(now);
        let mac = self.mac(client, window).finalize().into_bytes();
        let mac = URL_SAFE_NO_PAD.encode(&mac[..MAC_LEN]);
        format!("{window:0WINDOW_DIGITS$x}{mac}")
    }

    /// Whether this client was given the nonce in this window or the one before. Compares in constant time.
    pub(crate) fn is_valid(&self, nonce: &str, client: ClientSocket, now: Instant) -> bool {
        let current = self.window(now);
        let Some((digits, mac)) = nonce.split_at_checked(WINDOW_DIGITS) else {
            return false;
        };
        let Ok(window) = u32::from_str_radix(digits, 16) else {
            return false;
        };
        let Ok(mac) = URL_SAFE_NO_PAD.decode(mac) else {
            return false;
        };
        (window == current || window.checked_add(1) == Some(current))
            && mac.len() == MAC_LEN
            && self.mac(client, window).verify_truncated_left(&mac).is_ok()
    }

    fn window(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.epoch);
        // 2^32 windows are 80 000 years.
        (elapsed.as_secs() / WINDOW.as_secs()) as u32
    }

    fn mac(&self, client: ClientSocket, window: u32) -> Hmac<Sha256> {
        let ip = match client.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.key
            .clone()
            .chain_update(window.to_be_bytes())
            .chain_update(ip.octets())
            .chain_update(client.port().to_be_bytes())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
mod tests {
    use super::*;

    fn client(port: u16) -> ClientSocket {
        ClientSocket::new(([192, 0, 2, 1], port).into())
    }

    // relay C-11
    #[test]
    fn relay_11_bound_to_client_and_window() {
        let start = Instant::now();
        let nonces = Nonces::new([7; 32], start);
        let nonce = nonces.issue(client(1), start);

        assert!(nonce.len() <= 32, "{nonce}");
        assert_eq!(nonces.issue(client(1), start + WINDOW / 2), nonce);
        assert_ne!(nonces.issue(client(2), start), nonce);
        assert!(nonces.is_valid(&nonce, client(1), start));
        assert!(!nonces.is_valid(&nonce, client(2), start));
        assert!(nonces.is_valid(
            &nonce,
            client(1),
            start + 2 * WINDOW - Duration::from_secs(1)
        ));
        assert!(!nonces.is_valid(&nonce, client(1), start + 2 * WINDOW));
        assert!(!Nonces::new([8; 32], start).is_valid(&nonce, client(1), start));
    }

    #[test]
    fn garbage_is_not_a_nonce() {
        let start = Instant::now();
        let nonces = Nonces::new([7; 32], start);
        for text in [
            "",
            "0",
            "00000000",
            "zzzzzzzzAAAA",
            "ffffffffAAAAAAAAAAAAAAAA",
            "0000000é",
        ] {
            assert!(!nonces.is_valid(text, client(1), start), "{text}");
        }
        let nonce = nonces.issue(client(1), start);
        for cut in 0..nonce.len() {
            assert!(!nonces.is_valid(&nonce[..cut], client(1), start), "{cut}");
        }
    }
}
