//! Between bytes of an IP packet and the tuple that the model works with.

use std::net::{IpAddr, SocketAddr};

use ip_packet::{PacketMut, PacketRef, Protocol};
use netsim::{Transport, Tuple};

/// The tuple of a packet, or `None` for what the network does not carry (not IP, fragments, malformed).
pub(crate) fn classify(bytes: &[u8]) -> Option<Tuple> {
    let packet = PacketRef::parse_super(bytes).ok()?;
    let (source, destination) = (packet.source(), packet.destination());
    let transport = match packet.destination_protocol() {
        Ok(Protocol::Udp(_)) => Transport::Udp,
        Ok(Protocol::Tcp(_)) => Transport::Tcp,
        Ok(Protocol::IcmpEcho(_)) => Transport::IcmpEcho,
        Err(_) => Transport::Other,
    };
    let port = |protocol: Result<Protocol, _>| protocol.map_or(0, value);
    Some(Tuple::new(
        transport,
        SocketAddr::new(source, port(packet.source_protocol())),
        SocketAddr::new(destination, port(packet.destination_protocol())),
    ))
}

/// Writes the tuple that the model delivered into the packet that was sent as `sent`.
pub(crate) fn rewrite(bytes: &mut [u8], sent: &Tuple, delivered: &Tuple) {
    if sent == delivered {
        return;
    }
    let Ok(mut packet) = PacketMut::parse_super(bytes) else {
        return;
    };
    // The model keeps family and transport, so the mutators cannot refuse.
    let (source, destination) = (delivered.source, delivered.destination);
    if sent.source != source {
        let _ = packet.set_source(source.ip());
        if delivered.transport != Transport::Other {
            packet.set_source_protocol(source.port());
        }
    }
    if sent.destination != destination {
        let _ = packet.set_destination(destination.ip());
        if delivered.transport != Transport::Other {
            packet.set_destination_protocol(destination.port());
        }
    }
}

fn value(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Udp(port) | Protocol::Tcp(port) | Protocol::IcmpEcho(port) => port,
    }
}

/// Whether an address is of interest to a network between hosts.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified()
}
