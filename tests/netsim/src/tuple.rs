//! What the network knows of a packet.

use std::net::{IpAddr, SocketAddr};

/// Transport protocol of a packet, as far as NATs and firewalls tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// UDP; ports are ports.
    Udp,
    /// TCP; ports are ports.
    Tcp,
    /// ICMP or ICMPv6 echo; both ports of the tuple hold the echo identifier.
    IcmpEcho,
    /// Anything else (ICMP errors, neighbour discovery, …); ports are 0. NATs drop it.
    Other,
}

/// Transport, source and destination of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Transport protocol.
    pub transport: Transport,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
}

impl Tuple {
    /// Makes a tuple of its parts.
    pub fn new(transport: Transport, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            transport,
            source,
            destination,
        }
    }

    /// The tuple with the source replaced. An echo identifier lives in both ports.
    pub(crate) fn with_source(mut self, source: SocketAddr) -> Self {
        self.source = source;
        if self.transport == Transport::IcmpEcho {
            self.destination.set_port(source.port());
        }
        self
    }

    /// The tuple with the destination replaced. An echo identifier lives in both ports.
    pub(crate) fn with_destination(mut self, destination: SocketAddr) -> Self {
        self.destination = destination;
        if self.transport == Transport::IcmpEcho {
            self.source.set_port(destination.port());
        }
        self
    }

    /// The remote end as a filter compares it: an echo identifier is no port of the remote.
    pub(crate) fn remote_of_outbound(&self) -> SocketAddr {
        remote(self.transport, self.destination)
    }

    /// As [`Self::remote_of_outbound`], for a packet that comes in.
    pub(crate) fn remote_of_inbound(&self) -> SocketAddr {
        remote(self.transport, self.source)
    }

    /// Whether both ends are of one address family.
    pub(crate) fn is_single_family(&self) -> bool {
        matches!(
            (self.source.ip(), self.destination.ip()),
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))
        )
    }
}

fn remote(transport: Transport, socket: SocketAddr) -> SocketAddr {
    match transport {
        Transport::Udp | Transport::Tcp => socket,
        Transport::IcmpEcho | Transport::Other => SocketAddr::new(socket.ip(), 0),
    }
}
