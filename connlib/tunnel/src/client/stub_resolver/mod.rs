//! The stub resolver: everything between a DNS packet to a sentinel and its answer (tunnel spec 3.6–3.9).
//!
//! A query is answered here, at an upstream outside of the tunnel, at an upstream inside of it, or in the site of a
//! resource. What to do with a query is decided in [`decide`], without looking at its transport; this file holds the
//! transports and remembers who asked what ([`pending`]).
//!
//! The stub resolver knows nothing of gateways. [`super::resolving`] connects it to them.

mod decide;
mod pending;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use connlib_cover::cover;
use connlib_dns::message::{server_failure_for, truncate_for_udp};
use connlib_dns::{
    DNS_PORT, DnsTransport, EffectiveServers, ProxyIps, RecursiveError, RecursiveQuery,
    RecursiveResponse, SentinelMap, ServerOrigin, SourceAddresses, tcp, udp,
};
use connlib_model::DomainName;
use ip_packet::{IpPacket, PacketRef, Protocol, make};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::routing::RoutingTable;
pub(crate) use decide::Decision;
pub(crate) use pending::{Asker, Question};
use pending::{Pending, Route};

/// Keeps the randomness of the resolver apart from what else is derived from the seed.
const RNG_STREAM: u64 = 0xd25;

/// Port of link-local multicast name resolution (RFC 4795).
const LLMNR_PORT: u16 = 5355;
const LLMNR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 252));
const LLMNR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3));

/// Answers that wait for the TUN device between two drains.
const MAX_ANSWERS: usize = 1024;

/// DNS for the applications of this host.
pub(crate) struct StubResolver {
    proxies: ProxyIps,
    sentinels: SentinelMap,
    origin: ServerOrigin,
    portal_servers: Vec<SocketAddr>,
    system_resolvers: Vec<IpAddr>,

    tcp_server: tcp::Server,
    tcp_client: tcp::Client,
    udp_client: udp::Client,

    pending: Pending,
    /// For the host's own sockets.
    recursive: VecDeque<RecursiveQuery>,
    /// UDP answers for the TUN device.
    answers: VecDeque<IpPacket>,
}

impl StubResolver {
    pub(crate) fn new(seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(RNG_STREAM);

        Self {
            proxies: ProxyIps::new(),
            sentinels: SentinelMap::new(),
            origin: ServerOrigin::System,
            portal_servers: vec![],
            system_resolvers: vec![],
            tcp_server: tcp::Server::new(rng.random(), now),
            tcp_client: tcp::Client::new(rng.random(), now),
            udp_client: udp::Client::new(rng.random()),
            pending: Pending::new(),
            recursive: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// Sets the servers that the portal names.
    pub(crate) fn set_upstreams(&mut self, upstreams: &[SocketAddr]) {
        self.portal_servers = upstreams.to_vec();
        self.map_servers();
    }

    /// Sets the resolvers of the system.
    pub(crate) fn set_system_resolvers(&mut self, resolvers: Vec<IpAddr>) {
        self.system_resolvers = resolvers;
        self.map_servers();
    }

    /// The addresses that the host has to use as DNS servers, in order.
    pub(crate) fn sentinels(&self) -> Vec<IpAddr> {
        self.sentinels.sentinels().collect()
    }

    /// Whether `sentinel` is in use.
    pub(crate) fn is_mapped(&self, sentinel: IpAddr) -> bool {
        self.sentinels.upstream(sentinel).is_some()
    }

    /// The TUN device is set up anew: routes may lead to another site, so look-ups over TCP start over.
    pub(crate) fn on_config_changed(&mut self, ipv4: Ipv4Addr, ipv6: Ipv6Addr, now: Instant) {
        let sources = SourceAddresses {
            v4: Some(ipv4),
            v6: Some(ipv6),
        };
        self.udp_client.set_sources(sources);
        self.tcp_client.set_sources(sources, now);
        self.tcp_client.reset(now);
        let sockets = self
            .sentinels
            .sentinels()
            .map(|ip| SocketAddr::new(ip, DNS_PORT));
        self.tcp_server.listen_on(sockets, now);
    }

    /// The domain that `ip` stands for.
    pub(crate) fn domain_of(&self, ip: IpAddr) -> Option<&DomainName> {
        self.proxies.domain(ip)
    }

    /// The addresses that stand for `domain`, IPv4 first.
    pub(crate) fn proxy_ips(&self, domain: &DomainName) -> Vec<IpAddr> {
        self.proxies
            .get(domain)
            .map(|addresses| addresses.all().collect())
            .unwrap_or_default()
    }

    /// All domains that ever got addresses.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &DomainName> {
        self.proxies.iter().map(|(domain, _)| domain)
    }

    /// Whether a packet asks the neighbours on the link for a name; such a packet is handled like one to a sentinel.
    pub(crate) fn is_link_local_query(&self, destination: IpAddr, protocol: Protocol) -> bool {
        protocol == Protocol::Udp(LLMNR_PORT)
            && (destination == LLMNR_V4 || destination == LLMNR_V6)
    }

    /// Takes a packet to a sentinel or a link-local query. A query over UDP is returned; one over TCP comes from
    /// [`StubResolver::poll_tcp_question`] when it is complete.
    pub(crate) fn handle_packet(
        &mut self,
        packet: PacketRef<'_>,
        now: Instant,
    ) -> Option<Question> {
        if self.tcp_server.accepts(packet) {
            self.tcp_server.handle_packet(packet, now);
            return None;
        }
        let Some(udp) = packet.as_udp() else {
            tracing::debug!(
                ?packet,
                "ignoring a packet to the resolver that is no query"
            );
            return None;
        };

        let from = SocketAddr::new(packet.source(), udp.source_port());
        let asker = match udp.destination_port() {
            DNS_PORT => Asker::Udp {
                from,
                sentinel: SocketAddr::new(packet.destination(), DNS_PORT),
            },
            LLMNR_PORT => Asker::LinkLocal {
                from,
                responder: SocketAddr::new(self.responder(packet.destination())?, LLMNR_PORT),
            },
            _ => {
                tracing::debug!(
                    ?packet,
                    "ignoring a packet to the resolver that is no query"
                );
                return None;
            }
        };

        Some(Question {
            asker,
            message: udp.payload().to_vec(),
        })
    }

    /// The next query that arrived over TCP.
    pub(crate) fn poll_tcp_question(&mut self) -> Option<Question> {
        let query = self.tcp_server.poll_query()?;

        Some(Question {
            asker: Asker::Tcp {
                from: query.remote,
                sentinel: query.local,
            },
            message: query.message,
        })
    }

    /// What has to be done about `question`.
    pub(crate) fn decide(&mut self, question: &Question, routing: &RoutingTable) -> Decision {
        decide::decide(question, routing, &mut self.proxies)
    }

    /// Sends `message` to whoever asked.
    pub(crate) fn respond(&mut self, asker: Asker, message: Vec<u8>, now: Instant) {
        match asker {
            Asker::Udp { from, sentinel } => self.respond_over_udp(sentinel, from, message),
            Asker::LinkLocal { from, responder } => {
                self.respond_over_udp(responder, from, decide::as_link_local(message));
            }
            Asker::Tcp { from, sentinel } => {
                if let Err(error) = self.tcp_server.send_response(sentinel, from, &message, now) {
                    tracing::debug!(%from, %error, "DNS answer has no receiver");
                }
            }
        }
    }

    /// Answers `question` with SERVFAIL.
    pub(crate) fn refuse(&mut self, question: &Question, now: Instant) {
        if let Some(failure) = server_failure_for(&question.message) {
            cover!("dns/servfail");
            self.respond(question.asker, failure, now);
        }
    }

    /// Asks the server behind the sentinel that was asked.
    pub(crate) fn recurse(&mut self, question: Question, routing: &RoutingTable, now: Instant) {
        let Some(upstream) = self.sentinels.upstream(question.asker.local().ip()) else {
            return;
        };
        let is_tunnelled =
            self.origin == ServerOrigin::Portal && routing.covers_server(upstream.ip());
        if is_tunnelled {
            self.ask_through_tunnel(question, upstream, now);
        } else {
            self.ask_from_host(question, upstream, now);
        }
    }

    /// Asks `server` through the tunnel. The packets come from [`StubResolver::poll_tunnel_packet`].
    pub(crate) fn ask_through_tunnel(
        &mut self,
        question: Question,
        server: SocketAddr,
        now: Instant,
    ) {
        let query = self.remember(question, server, Route::Tunnel, now);
        match query.transport {
            DnsTransport::Udp => {
                cover!("dns/forwarded-by-tunnel-udp");
                self.udp_client.send_query(query, now);
            }
            DnsTransport::Tcp => {
                cover!("dns/forwarded-by-tunnel-tcp");
                self.tcp_client.send_query(query, now);
            }
        }
    }

    /// Takes the result of a look-up from the host's own sockets.
    pub(crate) fn handle_recursive_response(&mut self, response: RecursiveResponse, now: Instant) {
        let Some((question, route)) = self.pending.take(response.id) else {
            cover!("dns/late-reply-dropped");
            return;
        };
        let is_gone = !matches!(question.asker, Asker::Tcp { .. })
            && !self.is_mapped(question.asker.local().ip());
        if is_gone {
            cover!("dns/late-reply-dropped");
            return;
        }

        match response.result {
            Ok(message) => self.respond(question.asker, message, now),
            // The operating system asks again over UDP; over TCP it waits for as long as the connection lives.
            Err(RecursiveError::TimedOut) if route == Route::Host && !question.asker.is_tcp() => {}
            Err(error) => {
                tracing::debug!(%error, "DNS look-up failed");
                self.refuse(&question, now);
            }
        }
    }

    /// Offers a packet from a gateway. Returns whether it belongs to a look-up and must not reach the TUN device.
    pub(crate) fn handle_tunnel_packet(&mut self, packet: PacketRef<'_>, now: Instant) -> bool {
        if self.tcp_client.accepts(packet) {
            self.tcp_client.handle_packet(packet, now);
            return true;
        }

        self.udp_client.handle_packet(packet)
    }

    /// The next packet for a gateway, to be routed like any other.
    pub(crate) fn poll_tunnel_packet(&mut self) -> Option<IpPacket> {
        self.udp_client
            .poll_packet()
            .or_else(|| self.tcp_client.poll_packet())
    }

    /// Takes in the next result of a look-up through the tunnel. Returns whether there was one.
    pub(crate) fn handle_next_tunnel_response(&mut self, now: Instant) -> bool {
        let response = self
            .udp_client
            .poll_response()
            .or_else(|| self.tcp_client.poll_response());
        let Some(response) = response else {
            return false;
        };
        self.handle_recursive_response(response, now);

        true
    }

    /// The next packet for the TUN device.
    pub(crate) fn poll_packet(&mut self) -> Option<IpPacket> {
        self.answers
            .pop_front()
            .or_else(|| self.tcp_server.poll_packet())
    }

    /// The next look-up for the host's own sockets.
    pub(crate) fn poll_recursive_query(&mut self) -> Option<RecursiveQuery> {
        self.recursive.pop_front()
    }

    pub(crate) fn has_recursive_query(&self) -> bool {
        !self.recursive.is_empty()
    }

    /// The network changed: look-ups through the tunnel fail, those of the host are forgotten.
    pub(crate) fn reset(&mut self, now: Instant) {
        self.recursive.clear();
        self.pending.forget_host();
        self.udp_client.reset();
        self.tcp_client.reset(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.tcp_server.handle_timeout(now);
        self.tcp_client.handle_timeout(now);
        self.udp_client.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [
            self.tcp_server.poll_timeout(),
            self.tcp_client.poll_timeout(),
            self.udp_client.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn map_servers(&mut self) {
        let effective = EffectiveServers::select(&self.portal_servers, &self.system_resolvers);
        self.origin = effective.origin;
        let had_sentinels = !self.sentinels.is_empty();
        if self.sentinels.update(&effective.servers) {
            cover!("dns/mapping-changed" if had_sentinels);
            if self.sentinels.is_empty() {
                tracing::info!("no DNS server is known; DNS resources do not work");
            }
        }
    }

    /// Who answers a link-local query: a sentinel, since the group itself cannot.
    fn responder(&self, group: IpAddr) -> Option<IpAddr> {
        self.sentinels
            .sentinels()
            .find(|sentinel| sentinel.is_ipv4() == group.is_ipv4())
    }

    fn respond_over_udp(&mut self, from: SocketAddr, to: SocketAddr, message: Vec<u8>) {
        if self.answers.len() == MAX_ANSWERS {
            return;
        }
        match make::udp_packet(from, to, &truncate_for_udp(message)) {
            Ok(packet) => self.answers.push_back(packet),
            Err(error) => tracing::debug!(%error, "cannot answer a DNS query"),
        }
    }

    fn ask_from_host(&mut self, question: Question, upstream: SocketAddr, now: Instant) {
        cover!("dns/forwarded-by-host-udp" if !question.asker.is_tcp());
        cover!("dns/forwarded-by-host-tcp" if question.asker.is_tcp());
        let query = self.remember(question, upstream, Route::Host, now);
        self.recursive.push_back(query);
    }

    fn remember(
        &mut self,
        question: Question,
        upstream: SocketAddr,
        route: Route,
        now: Instant,
    ) -> RecursiveQuery {
        let transport = if question.asker.is_tcp() {
            DnsTransport::Tcp
        } else {
            DnsTransport::Udp
        };
        let message = question.message.clone();
        let (id, evicted) = self.pending.insert(question, route);
        if let Some(evicted) = evicted {
            self.refuse(&evicted, now);
        }

        RecursiveQuery {
            id,
            upstream,
            transport,
            message,
        }
    }
}
