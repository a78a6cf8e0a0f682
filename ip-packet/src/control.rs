//! Control packets: messages between the two ends of a tunnel, sent as IP packets through it.
//!
//! An IPv6 packet from `::` to `::` with next header 255 and hop limit 0; its payload is one byte event type, seven
//! reserved bytes, and the event's own payload. It is never forwarded to a TUN device.

/// Bytes of the control header behind the IPv6 header.
pub(crate) const CONTROL_HEADER_LEN: usize = 8;

/// A control packet's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control<'a> {
    /// What the payload means: 0 assigned IPs, 1 domain status, 2 goodbye; others are for later versions.
    pub event_type: u8,
    /// The event's payload, JSON for the types known so far.
    pub payload: &'a [u8],
}
