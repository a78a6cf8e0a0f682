//! What was seen during a transition: the evidence that assertions judge.

use std::{fmt, net::SocketAddr, time::Duration};

use connlib_model::{ResourceView, TunConfig};
use ip_packet::IpPacket;

use crate::{logs, transition::Component};

/// Everything that was seen, in order, with the time since the start of the case.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Since the last check.
    pub entries: Vec<(Duration, Entry)>,
}

/// Something that was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An application put a packet into the client's TUN device.
    Request {
        /// Which client.
        client: usize,
        /// Which probe.
        probe: u64,
        /// The packet.
        packet: IpPacket,
    },
    /// A gateway wrote a packet to its TUN device.
    Arrival {
        /// Which gateway.
        gateway: usize,
        /// The packet.
        packet: IpPacket,
    },
    /// A client's TUN device delivered a packet that is not TCP and no DNS response.
    Return {
        /// Which client.
        client: usize,
        /// The packet.
        packet: IpPacket,
    },
    /// A DNS response reached the application.
    DnsResponse {
        /// Which client.
        client: usize,
        /// Number of the query over the whole case, if it belongs to one.
        query: Option<u64>,
        /// The message.
        message: Vec<u8>,
        /// Where it came from.
        from: SocketAddr,
    },
    /// A query over TCP failed.
    DnsFailure {
        /// Which client.
        client: usize,
        /// Number of the query.
        query: u64,
    },
    /// The client wants its TUN device set up.
    TunConfig {
        /// Which client.
        client: usize,
        /// How.
        config: TunConfig,
    },
    /// The client announced its list of resources.
    Resources {
        /// Which client.
        client: usize,
        /// The list.
        list: Vec<ResourceView>,
    },
    /// A client looked a name up outside the tunnel.
    HostLookup {
        /// Which client.
        client: usize,
        /// The server that was asked.
        server: SocketAddr,
        /// Name and type.
        question: (String, u16),
    },
    /// A client's process started again.
    Restarted {
        /// Which client.
        client: usize,
    },
    /// A client or gateway opened a new channel to the portal by itself.
    ChannelOpened {
        /// Who.
        by: Component,
    },
    /// A component learns that its channel to the portal is gone; a new one is under way.
    ChannelLost {
        /// Whose.
        of: Component,
    },
    /// A component sent a message to the portal.
    ToPortal {
        /// Who.
        from: Component,
        /// The message's name.
        event: String,
        /// For requests for access: the resource's index.
        resource: Option<usize>,
        /// For candidates: whether the sender has a connection to the one they are for.
        connected: bool,
    },
    /// A TCP connection of an application changed.
    Tcp {
        /// Which connection.
        connection: usize,
        /// How.
        event: TcpEvent,
    },
    /// A node's host wrote a datagram to the network.
    Wire(Wire),
    /// A rule that holds everywhere and always was broken.
    Violation {
        /// Number of the assertion.
        assertion: u8,
        /// What happened.
        text: String,
    },
}

/// What happened to a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpEvent {
    /// It is established.
    Established,
    /// Bytes came back from the server, or from it first.
    Received(Vec<u8>),
    /// It ended.
    Closed,
}

/// A datagram as its sender put it on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// Since the start of the case.
    pub at: Duration,
    /// Who sent it.
    pub from: Component,
    /// Source address.
    pub source: SocketAddr,
    /// Destination address.
    pub destination: SocketAddr,
    /// UDP payload in bytes.
    pub len: usize,
    /// What it is.
    pub class: Class,
}

/// Classes of datagrams that an observer can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// STUN or TURN control.
    Stun,
    /// WireGuard, by message type.
    WireGuard(u8),
    /// WireGuard in channel data, by message type.
    Channel(u8),
    /// STUN in channel data: connectivity checks through a relay.
    ChannelStun,
    /// Anything else.
    Other,
}

impl Class {
    /// The class of a datagram.
    pub fn of(payload: &[u8]) -> Self {
        match payload {
            [0..=3, _, ..] if is_stun(payload) => Self::Stun,
            [64..=79, _, _, _, inner @ ..] => match wireguard_type(inner) {
                Some(kind) => Self::Channel(kind),
                None => Self::ChannelStun,
            },
            _ => wireguard_type(payload).map_or(Self::Other, Self::WireGuard),
        }
    }

    /// The WireGuard message type, through channel data if need be.
    pub fn wireguard(self) -> Option<u8> {
        match self {
            Self::WireGuard(kind) | Self::Channel(kind) => Some(kind),
            Self::Stun | Self::ChannelStun | Self::Other => None,
        }
    }
}

fn is_stun(payload: &[u8]) -> bool {
    payload.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])
}

fn wireguard_type(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [kind @ 1..=4, 0, 0, 0, ..] if bytes.len() >= 32 && !is_stun(bytes) => Some(*kind),
        _ => None,
    }
}

impl Trace {
    /// Adds an entry, and what people want to know of it to the log.
    pub fn push(&mut self, at: Duration, entry: Entry) {
        match &entry {
            Entry::Wire(wire) => logs::note(|| format!("~~~ {wire}")),
            Entry::TunConfig { .. } | Entry::Resources { .. } => {}
            Entry::Request { .. }
            | Entry::Arrival { .. }
            | Entry::Return { .. }
            | Entry::DnsResponse { .. }
            | Entry::DnsFailure { .. }
            | Entry::HostLookup { .. }
            | Entry::Restarted { .. }
            | Entry::ChannelOpened { .. }
            | Entry::ChannelLost { .. }
            | Entry::ToPortal { .. }
            | Entry::Tcp { .. }
            | Entry::Violation { .. } => logs::note(|| format!("--- {entry:?}")),
        }
        self.entries.push((at, entry));
    }

    /// Adds a breach of a rule.
    pub fn violation(&mut self, at: Duration, assertion: u8, text: impl Into<String>) {
        let text = text.into();
        self.push(at, Entry::Violation { assertion, text });
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            source,
            destination,
            len,
            class,
            ..
        } = self;
        write!(f, "{from:?} {source} > {destination} {class:?} {len} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let mut init = vec![0; 148];
        init[0] = 1;
        assert_eq!(Class::of(&init), Class::WireGuard(1));
        let channel = [&[0x40, 0, 0, 148][..], &init].concat();
        assert_eq!(Class::of(&channel), Class::Channel(1));
        assert_eq!(Class::of(&channel).wireguard(), Some(1));
        let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[0; 12]].concat();
        assert_eq!(Class::of(&binding), Class::Stun);
        assert_eq!(Class::of(b"x"), Class::Other);
    }
}
