//! Everything behind a gateway: hosts that answer echo requests and datagrams, name servers, TCP servers, and hosts that
//! cannot be reached.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use connlib_model::ranges::GATEWAY_DNS_PORT;
use ip_packet::{IpPacket, PacketRef, make};
use smoltcp::iface::SocketHandle;

use super::stack::Stack;
use crate::{
    dns::server::Records,
    topology::{Failure, Topology},
};

const DNS_PORT: u16 = 53;
/// Largest response of a name server over UDP, as if no one used EDNS.
const MAX_DNS_UDP: usize = 1_212;
const TTL: u8 = 60;

/// The network behind one gateway.
pub(crate) struct Servers {
    stack: Stack,
    connections: BTreeMap<(SocketAddr, SocketAddr), Connection>,
    unreachable: BTreeMap<IpAddr, Failure>,
    replies: Vec<IpPacket>,
}

struct Connection {
    handle: SocketHandle,
    received: Vec<u8>,
}

impl Servers {
    pub(crate) fn new(topology: &Topology, seed: u64, now: Instant) -> Self {
        Self {
            stack: Stack::new(seed, now),
            connections: BTreeMap::new(),
            unreachable: topology.unreachable.iter().copied().collect(),
            replies: Vec::new(),
        }
    }

    /// Takes a packet that the gateway forwarded; answers come from [`Self::poll_packet`].
    pub(crate) fn handle(&mut self, packet: &IpPacket, records: &Records, now: Instant) {
        let view = packet.view();
        if let Some(failure) = self.unreachable.get(&view.destination()) {
            self.replies.extend(icmp_error(view, *failure));
        } else if view.as_tcp().is_some() {
            self.handle_tcp(view, records, now);
        } else if let Some(udp) = view.as_udp() {
            let from = SocketAddr::new(view.destination(), udp.destination_port());
            let to = SocketAddr::new(view.source(), udp.source_port());
            let payload = match udp.destination_port() {
                DNS_PORT | GATEWAY_DNS_PORT => records.respond(udp.payload()).map(truncated),
                _ => Some(udp.payload().to_vec()),
            };
            self.replies
                .extend(payload.and_then(|payload| make::udp_packet(from, to, &payload).ok()));
        } else {
            self.replies.extend(echo_reply(view));
        }
    }

    /// The next packet towards the gateway.
    pub(crate) fn poll_packet(&mut self) -> Option<IpPacket> {
        if !self.replies.is_empty() {
            return Some(self.replies.remove(0));
        }
        self.stack.next_packet()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.stack.next_poll()
    }

    pub(crate) fn handle_timeout(&mut self, records: &Records, now: Instant) {
        self.stack.poll(now);
        self.serve(records, now);
    }

    /// Whether there is a connection from this client address to this real port; the server begins to speak on the
    /// newest of them.
    pub(crate) fn speak(
        &mut self,
        client: IpAddr,
        source_port: u16,
        bytes: &[u8],
        now: Instant,
    ) -> bool {
        let found = self
            .connections
            .iter()
            .find(|((_, remote), _)| remote.ip() == client && remote.port() == source_port);
        let Some((_, connection)) = found else {
            return false;
        };
        let socket = self.stack.socket(connection.handle);
        if !socket.may_send() {
            return false;
        }
        let _ = socket.send_slice(bytes);
        self.stack.poll(now);
        true
    }

    fn handle_tcp(&mut self, view: PacketRef<'_>, records: &Records, now: Instant) {
        let Some(tcp) = view.as_tcp() else { return };
        let local = SocketAddr::new(view.destination(), tcp.destination_port());
        let remote = SocketAddr::new(view.source(), tcp.source_port());
        if tcp.is_initial_syn() {
            self.forget_closed();
            if !self.connections.contains_key(&(local, remote)) {
                self.listen(local, remote);
            }
        }
        self.stack.receive(view, now);
        self.serve(records, now);
    }

    fn listen(&mut self, local: SocketAddr, remote: SocketAddr) {
        let handle = self.stack.listen(local);
        let received = Vec::new();
        self.connections
            .insert((local, remote), Connection { handle, received });
    }

    /// Echoes bytes; answers queries on the DNS port.
    fn serve(&mut self, records: &Records, now: Instant) {
        let mut changed = false;
        for ((local, _), connection) in &mut self.connections {
            let socket = self.stack.socket(connection.handle);
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = socket.recv_slice(&mut buffer) {
                changed = true;
                connection.received.extend(&buffer[..len]);
            }
            match local.port() {
                DNS_PORT | GATEWAY_DNS_PORT => {
                    while let Some(query) = take_frame(&mut connection.received) {
                        if let Some(response) = records.respond(&query) {
                            let _ = socket.send_slice(&framed(&response));
                        }
                    }
                }
                _ => {
                    let _ = socket.send_slice(&connection.received);
                    connection.received.clear();
                }
            }
            if !socket.may_recv() && socket.may_send() {
                socket.close();
                changed = true;
            }
        }
        if changed {
            self.stack.poll(now);
        }
        self.forget_closed();
    }

    fn forget_closed(&mut self) {
        let stack = &mut self.stack;
        self.connections.retain(|_, connection| {
            let is_open = stack.socket(connection.handle).is_open();
            if !is_open {
                stack.remove(connection.handle);
            }
            is_open
        });
    }
}

/// A message with its length in front.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).expect("DNS messages are short");
    [&len.to_be_bytes()[..], message].concat()
}

/// Takes a complete message off the front.
pub(crate) fn take_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    let message = bytes.get(2..2 + len)?.to_vec();
    bytes.drain(..2 + len);
    Some(message)
}

fn truncated(response: Vec<u8>) -> Vec<u8> {
    if response.len() <= MAX_DNS_UDP {
        return response;
    }
    crate::dns::message::Response::to(&response, 0)
        .map(crate::dns::message::Response::finish)
        .map(|mut bytes| {
            bytes[2] |= 0x02;
            bytes
        })
        .unwrap_or_default()
}

fn echo_reply(view: PacketRef<'_>) -> Option<IpPacket> {
    let (identifier, sequence, payload) = if let Some(icmp) = view.as_icmpv4() {
        let id = icmp.echo_identifier().filter(|_| icmp.is_echo_request())?;
        (id, icmp.echo_sequence()?, icmp.payload())
    } else {
        let icmp = view.as_icmpv6()?;
        let id = icmp.echo_identifier().filter(|_| icmp.is_echo_request())?;
        (id, icmp.echo_sequence()?, icmp.payload())
    };
    make::icmp_echo_reply(
        view.destination(),
        view.source(),
        identifier,
        sequence,
        payload,
    )
    .ok()
}

/// The error that a router on the way to `original`'s destination sends back.
fn icmp_error(original: PacketRef<'_>, failure: Failure) -> Option<IpPacket> {
    let bytes = original.as_slice();
    let (source, destination) = (original.destination(), original.source());
    if source.is_ipv4() {
        let message = match failure {
            Failure::Network => (3, 0, [0; 4]),
            Failure::Host => (3, 1, [0; 4]),
            Failure::Port => (3, 3, [0; 4]),
            Failure::Prohibited => (3, 13, [0; 4]),
            Failure::TimeExceeded => (11, 0, [0; 4]),
            Failure::TooBig(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                (3, 4, [0, 0, high, low])
            }
        };
        let embedded = &bytes[..bytes.len().min(20 + 8)];
        make::icmpv4_message(source, destination, TTL, message, embedded).ok()
    } else {
        let message = match failure {
            Failure::Network => (1, 0, [0; 4]),
            Failure::Host => (1, 3, [0; 4]),
            Failure::Port => (1, 4, [0; 4]),
            Failure::Prohibited => (1, 1, [0; 4]),
            Failure::TimeExceeded => (3, 0, [0; 4]),
            Failure::TooBig(mtu) => (2, 0, u32::from(mtu).to_be_bytes()),
        };
        let embedded = &bytes[..bytes.len().min(1232)];
        make::icmpv6_message(source, destination, TTL, message, embedded).ok()
    }
}
