//! Applications on one client: what they send, and what they make of packets that come back.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use connlib_model::TunConfig;
use ip_packet::{IpPacket, Protocol, make};

use super::tcp::{Answer, Tcp};
use crate::{
    dns::message::{self, Message},
    topology::Os,
    trace::Entry,
    transition::{Destination, Family, Query, Question, Transport},
};

const DNS_PORT: u16 = 53;
/// Source ports of queries over UDP. Few, so that equal ids meet on equal ports now and then.
const FIRST_QUERY_PORT: u16 = 5_000;

/// The applications of a client.
pub(crate) struct Apps {
    index: usize,
    pub(crate) tcp: Tcp,
    /// Addresses that the resolver gave.
    resolved: BTreeMap<(String, Family), Vec<IpAddr>>,
    /// Queries over UDP that wait: server, id and source port.
    waiting: BTreeMap<(SocketAddr, u16, u16), u64>,
    next_query_port: u16,
    /// Packets for the TUN device.
    outgoing: Vec<IpPacket>,
}

impl Apps {
    pub(crate) fn new(index: usize, seed: u64, os: Os, now: Instant) -> Self {
        Self {
            index,
            tcp: Tcp::new(seed, os, now),
            resolved: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_query_port: FIRST_QUERY_PORT,
            outgoing: Vec::new(),
        }
    }

    /// The address that a destination means to this client.
    pub(crate) fn address(&self, destination: &Destination) -> Option<IpAddr> {
        match destination {
            Destination::Host(ip) => Some(*ip),
            Destination::Name(name, family, nth) => {
                let known = self.resolved.get(&(name.clone(), *family))?;
                known.get(nth % known.len().max(1)).copied()
            }
        }
    }

    /// Sends a query to the resolver that listens on `server`.
    pub(crate) fn ask(
        &mut self,
        number: u64,
        query: &Query,
        server: IpAddr,
        source: IpAddr,
        now: Instant,
    ) {
        let bytes = match &query.question {
            Question::Records(name, record) => {
                message::query(query.id, name, message::type_number(*record))
            }
            Question::Reverse(destination) => {
                let Some(ip) = self.address(destination) else {
                    return;
                };
                message::query(query.id, &message::reverse_name(ip), message::PTR)
            }
        };
        let server = SocketAddr::new(server, DNS_PORT);
        match query.transport {
            Transport::Tcp => self.tcp.query(number, source, server, bytes, now),
            Transport::Udp => {
                let port = self.next_query_port;
                self.next_query_port += 1;
                self.waiting.insert((server, query.id, port), number);
                let packet = make::udp_packet(SocketAddr::new(source, port), server, &bytes);
                self.outgoing.extend(packet.ok());
            }
        }
    }

    /// Takes a packet from the TUN device.
    pub(crate) fn receive(&mut self, packet: IpPacket, now: Instant) -> Option<Entry> {
        let client = self.index;
        let view = packet.view();
        if view.as_tcp().is_some() {
            self.tcp.receive(view, now);
            return None;
        }
        // An error about a connection ends it; the stack does not look at ICMP (testing A21).
        if let Some(Ok(failed)) = view.icmp_error().map(|error| error.failed_packet())
            && let Protocol::Tcp(port) = failed.source_protocol()
        {
            self.tcp.abort(port, now);
        }
        let is_dns = view
            .as_udp()
            .filter(|udp| udp.source_port() == DNS_PORT)
            .map(|udp| (udp.payload().to_vec(), udp.destination_port()));
        let Some((message, port)) = is_dns else {
            return Some(Entry::Return { client, packet });
        };
        let from = SocketAddr::new(view.source(), DNS_PORT);
        let id = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
        let query = self.waiting.remove(&(from, id, port));
        self.learn(&message);
        Some(Entry::DnsResponse {
            client,
            query,
            message,
            from,
        })
    }

    /// What TCP has to tell since the last call.
    pub(crate) fn advance(&mut self, now: Instant) -> Vec<Entry> {
        let (events, answers) = self.tcp.advance(now);
        let mut entries = Vec::new();
        for (connection, event) in events {
            entries.push(Entry::Tcp { connection, event });
        }
        for answer in answers {
            entries.push(match answer {
                Answer::Response {
                    query,
                    message,
                    from,
                } => {
                    self.learn(&message);
                    Entry::DnsResponse {
                        client: self.index,
                        query: Some(query),
                        message,
                        from,
                    }
                }
                Answer::Failure { query } => Entry::DnsFailure {
                    client: self.index,
                    query,
                },
            });
        }
        entries
    }

    /// The next packet for the TUN device.
    pub(crate) fn poll_packet(&mut self) -> Option<IpPacket> {
        if !self.outgoing.is_empty() {
            return Some(self.outgoing.remove(0));
        }
        self.tcp.poll_packet()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.tcp.poll_timeout()
    }

    /// Forgets answers of names, as the operating system does when its resolver is flushed.
    pub(crate) fn forget(&mut self) {
        self.resolved.clear();
    }

    fn learn(&mut self, message: &[u8]) {
        let Some(message) = Message::parse(message) else {
            return;
        };
        let family = match message.question.1 {
            1 => Family::V4,
            28 => Family::V6,
            _ => return,
        };
        if !message.is_truncated && message.code == message::NO_ERROR {
            let key = (message.question.0.clone(), family);
            match message.addresses() {
                none if none.is_empty() => self.resolved.remove(&key),
                addresses => self.resolved.insert(key, addresses),
            };
        }
    }
}

/// The client's address of the family of `other`.
pub(crate) fn own_address(config: &TunConfig, other: IpAddr) -> IpAddr {
    match other {
        IpAddr::V4(_) => config.ipv4.into(),
        IpAddr::V6(_) => config.ipv6.into(),
    }
}
