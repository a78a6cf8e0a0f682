//! Local ports of look-ups through the tunnel: random and unique, from the dynamic range (RFC 6335 §6).

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use std::ops::RangeInclusive;

/// The dynamic ports.
const LOCAL_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// A random port for which `is_taken` is false.
///
/// Ends because no table of look-ups is nearly as large as the range.
pub(crate) fn free_port(rng: &mut ChaCha20Rng, is_taken: impl Fn(u16) -> bool) -> u16 {
    loop {
        let port = rng.random_range(LOCAL_PORTS);
        if !is_taken(port) {
            return port;
        }
    }
}
