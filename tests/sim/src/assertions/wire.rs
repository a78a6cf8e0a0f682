//! Rules that every single datagram obeys.

use crate::{trace::Wire, transition::Component};

/// Largest datagram: 1280 bytes of IP, 32 of WireGuard, 4 of channel data.
const MAX_DATAGRAM: usize = 1280 + 32 + 4;
/// WireGuard's handshake initiation.
const INITIATION: u8 = 1;

/// The numbers of the assertions that a datagram breaks, and how.
pub fn check(wire: &Wire) -> Vec<(u8, String)> {
    let mut broken = Vec::new();
    if matches!(wire.from, Component::Gateway(_)) && wire.class.wireguard() == Some(INITIATION) {
        broken.push((16, format!("{:?} initiates a handshake", wire.from)));
    }
    if wire.len > MAX_DATAGRAM {
        broken.push((17, format!("{:?} sends {} bytes", wire.from, wire.len)));
    }
    broken
}
