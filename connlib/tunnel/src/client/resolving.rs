//! Where the stub resolver meets routing, intents and gateways.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use connlib_dns::{RecursiveQuery, RecursiveResponse};
use connlib_model::{DomainName, GatewayId, ResourceId, ranges};
use ip_packet::PacketRef;

use super::Client;
use super::stub_resolver::{Decision, Question};

impl Client {
    /// The next look-up for the host's own sockets, outside of the tunnel. Every one is answered by
    /// [`Client::handle_recursive_response`], unless [`Client::reset`] comes first.
    pub fn poll_recursive_query(&mut self) -> Option<RecursiveQuery> {
        self.resolver.poll_recursive_query()
    }

    /// Takes the result of a look-up.
    pub fn handle_recursive_response(&mut self, response: RecursiveResponse, now: Instant) {
        let now = self.advance(now);
        self.resolver.handle_recursive_response(response, now);
        self.drain_resolver(now);
    }

    /// Takes a packet to a sentinel.
    pub(super) fn resolve(&mut self, packet: PacketRef<'_>, now: Instant) {
        if let Some(question) = self.resolver.handle_packet(packet, now) {
            self.answer(question, now);
        }
        self.drain_resolver(now);
    }

    /// Lets results and packets of the resolver take their way until nothing is left.
    pub(super) fn drain_resolver(&mut self, now: Instant) {
        loop {
            if let Some(question) = self.resolver.poll_tcp_question() {
                self.answer(question, now);
            } else if let Some(packet) = self.resolver.poll_tunnel_packet() {
                self.forward(packet, now);
            } else if let Some(packet) = self.resolver.poll_packet() {
                self.push_local(packet);
            } else if !self.resolver.handle_next_tunnel_response(now) {
                return;
            }
        }
    }

    /// Answers queries that nobody will answer any more.
    pub(super) fn refuse_queries(&mut self, queries: VecDeque<Question>, now: Instant) {
        for question in queries {
            self.resolver.refuse(&question, now);
        }
        self.drain_resolver(now);
    }

    /// Tells the gateway of a freshly authorized DNS resource about all domains that belong to it.
    pub(super) fn announce_domains_of(&mut self, resource: ResourceId, now: Instant) {
        let Some(gateway) = self.gateways.binding(resource) else {
            return;
        };
        let domains = self
            .resolver
            .domains()
            .filter(|domain| self.routing.matches(resource, domain))
            .cloned()
            .collect::<Vec<_>>();
        for domain in domains {
            self.announce(gateway, resource, &domain, now);
        }
    }

    /// Asks in the site of `gateway`.
    pub(super) fn ask_site(&mut self, question: Question, gateway: GatewayId, now: Instant) {
        match self.dns_server_of(gateway) {
            Some(server) => self.resolver.ask_through_tunnel(question, server, now),
            // Without its address the gateway's server cannot be reached; the upstream may know a public record.
            None => self.resolver.recurse(question, &self.routing, now),
        }
        self.drain_resolver(now);
    }

    fn answer(&mut self, question: Question, now: Instant) {
        match self.resolver.decide(&question, &self.routing) {
            Decision::Answer { message, domain } => {
                self.resolver.respond(question.asker, message, now);
                if let Some(domain) = domain {
                    self.refresh_domain(&domain, now);
                }
            }
            Decision::AskSite(resource) => match self.gateways.binding(resource) {
                Some(gateway) => self.ask_site(question, gateway, now),
                None => self.hold_question(resource, question, now),
            },
            Decision::Recurse => self.resolver.recurse(question, &self.routing, now),
            Decision::Ignore => {}
        }
    }

    fn hold_question(&mut self, resource: ResourceId, question: Question, now: Instant) {
        let (ask, evicted) = self.intents.hold_query(resource, question, now);
        self.request_access(resource, ask);
        if let Some(evicted) = evicted {
            self.resolver.refuse(&evicted, now);
        }
    }

    /// An application is about to use `domain`: every gateway that serves it resolves it anew (tunnel spec 3.12).
    fn refresh_domain(&mut self, domain: &DomainName, now: Instant) {
        for resource in self.routing.matching(domain) {
            if let Some(gateway) = self.gateways.binding(resource) {
                self.announce(gateway, resource, domain, now);
            }
        }
    }

    fn announce(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        domain: &DomainName,
        now: Instant,
    ) {
        let is_due = self.nat.refresh(gateway, resource, domain, now);
        self.invalidate_decisions();
        if is_due {
            self.send_assigned_ips(gateway, resource, domain, now);
        }
    }

    /// The DNS server of a gateway, if its address is known.
    fn dns_server_of(&self, gateway: GatewayId) -> Option<SocketAddr> {
        let (ipv4, ipv6) = self.gateways.peer(gateway)?.addresses();
        let ip = ipv4.map(IpAddr::V4).or(ipv6.map(IpAddr::V6))?;

        Some(SocketAddr::new(ip, ranges::GATEWAY_DNS_PORT))
    }
}
