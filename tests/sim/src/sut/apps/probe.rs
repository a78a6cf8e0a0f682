//! Probes: packets that are told apart by the number in their payload, never by order or ports (testing A7).

use std::net::{IpAddr, SocketAddr};

use ip_packet::{IpPacket, PacketRef, make};

use crate::transition::Protocol;

/// Source ports and echo identifiers come from a pool this small, so that flows to names that share an address meet at
/// the gateway with equal ports.
const PORTS: u64 = 8;
const FIRST_PORT: u16 = 2_000;

/// The packet of probe `number`.
pub(crate) fn packet(number: u64, source: IpAddr, to: IpAddr, how: Protocol) -> Option<IpPacket> {
    let payload = number.to_be_bytes();
    let port = source_port(number);
    match how {
        Protocol::Icmp => {
            let sequence = sequence(number);
            make::icmp_echo_request(source, to, port, sequence, &payload).ok()
        }
        Protocol::Udp(destination) => make::udp_packet(
            SocketAddr::new(source, port),
            SocketAddr::new(to, destination),
            &payload,
        )
        .ok(),
    }
}

/// Source port, or echo identifier, of probe `number`.
pub(crate) fn source_port(number: u64) -> u16 {
    FIRST_PORT + (number % PORTS) as u16
}

/// Echo sequence number of probe `number`.
pub(crate) fn sequence(number: u64) -> u16 {
    number as u16
}

/// The number in a packet's payload, if it is a probe or the answer to one.
pub(crate) fn number_of(packet: PacketRef<'_>) -> Option<u64> {
    let payload: &[u8] = if let Some(udp) = packet.as_udp() {
        udp.payload()
    } else if let Some(icmp) = packet.as_icmpv4() {
        icmp.payload()
    } else {
        packet.as_icmpv6()?.payload()
    };
    Some(u64::from_be_bytes(payload.try_into().ok()?))
}
