//! What a query must be answered with (testing §5.7 rule 2, tunnel §3.7).

use std::{collections::BTreeSet, net::IpAddr, net::SocketAddr};

use super::{
    ExpectedQuery, Model, Reply, Resolved,
    routing::{Route, Traffic},
};
use crate::{
    dns::message::{NAME_ERROR, NO_ERROR, PTR, SERVER_FAILURE, type_number},
    topology::{DnsAnswer, NameSpec},
    transition::{Destination, Family, Query, Question, RecordType, Transport},
};

/// Firefox asks for this name to learn whether it may use its own resolver.
const CANARY: &str = "use-application-dns.net";
/// Largest response over UDP.
const MAX_UDP: usize = 1_212;
/// Proxy addresses per family.
const PROXIES: usize = 4;

/// Who answers.
enum Via {
    Local(Reply),
    Host,
    Tunnel(Route, SocketAddr),
}

impl Model {
    /// Whether a client's resolver answers for a name by itself.
    pub fn is_name_of_resource(&self, client: usize, name: &str) -> bool {
        !self.matching(client, name).is_empty()
    }

    pub(super) fn expect_query(&mut self, client: usize, query: &Query) -> ExpectedQuery {
        let number = self.next_query;
        self.next_query += 1;
        let servers = &self.clients[client].servers;
        let server = (!servers.is_empty()).then(|| servers[query.server % servers.len()]);
        let question = match &query.question {
            Question::Records(name, record) => (Some(name.clone()), type_number(*record)),
            Question::Reverse(_) => (None, PTR),
        };
        let (reply, via_host) = match server {
            Some(server) => self.answer(client, query, server),
            None => (Reply::Silence, Some(false)),
        };
        ExpectedQuery {
            number,
            client,
            query: query.clone(),
            server,
            question,
            reply,
            via_host,
        }
    }

    fn answer(
        &mut self,
        client: usize,
        query: &Query,
        server: SocketAddr,
    ) -> (Reply, Option<bool>) {
        match self.who_answers(client, query, server) {
            Via::Local(reply) => (reply, Some(false)),
            Via::Host => (self.answer_of_server(query, false), Some(true)),
            Via::Tunnel(route, server) => {
                let reply = self.answer_in_tunnel(client, query, &route, server);
                (reply, Some(false))
            }
        }
    }

    fn who_answers(&mut self, client: usize, query: &Query, server: SocketAddr) -> Via {
        let (name, record) = match &query.question {
            Question::Records(name, record) => (name, *record),
            Question::Reverse(to) => return self.who_answers_reverse(client, to, server, query),
        };
        if name == CANARY {
            return Via::Local(no_records(NAME_ERROR));
        }
        let matching = self.matching(client, name);
        if matching.is_empty() {
            return self.upstream(client, server, query);
        }
        match record {
            RecordType::A | RecordType::Aaaa => {
                let family = match record {
                    RecordType::A => Family::V4,
                    _ => Family::V6,
                };
                let families = self.families_of(&matching);
                let served = match family {
                    Family::V4 => families.has_v4(),
                    Family::V6 => families.has_v6(),
                };
                self.announce(client, name);
                if served {
                    let key = (name.clone(), family);
                    self.clients[client].resolved.insert(key, Resolved::Proxy);
                }
                Via::Local(Reply::Proxies(if served { PROXIES } else { 0 }))
            }
            RecordType::Https => {
                if self.clients[client].announced.contains_key(name) {
                    self.announce(client, name);
                }
                Via::Local(no_records(NO_ERROR))
            }
            RecordType::Txt | RecordType::Srv => {
                let best = self.most_specific(matching.into_iter());
                Via::Tunnel(site_route(best.expect("not empty")), server)
            }
            RecordType::Mx => self.upstream(client, server, query),
        }
    }

    fn who_answers_reverse(
        &self,
        client: usize,
        to: &Destination,
        server: SocketAddr,
        query: &Query,
    ) -> Via {
        if let Destination::Name(name, family, _) = to {
            let key = (name.clone(), *family);
            if self.clients[client].resolved.get(&key) == Some(&Resolved::Proxy) {
                return Via::Local(Reply::Pointer(name.clone()));
            }
        }
        self.upstream(client, server, query)
    }

    /// Through the tunnel only if the portal configured the server and a resource covers it.
    fn upstream(&self, client: usize, server: SocketAddr, query: &Query) -> Via {
        let ip = server.ip();
        let is_configured = self.upstream_dns.contains(&server);
        let is_covered = self.internet(client).is_some() || !self.covering(client, ip).is_empty();
        if !is_configured || !is_covered {
            return Via::Host;
        }
        let traffic = match query.transport {
            Transport::Udp => Traffic::Udp(server.port()),
            Transport::Tcp => Traffic::Tcp(server.port()),
        };
        Via::Tunnel(self.route_address(client, ip, traffic), server)
    }

    fn answer_in_tunnel(
        &mut self,
        client: usize,
        query: &Query,
        route: &Route,
        server: SocketAddr,
    ) -> Reply {
        let Route::To {
            resources,
            may_lack_family,
            ..
        } = route
        else {
            return no_records(SERVER_FAILURE);
        };
        self.connect(client, resources);
        if *may_lack_family || self.failure_at(server.ip()).is_some() {
            return no_records(SERVER_FAILURE);
        }
        let reply = self.answer_of_server(query, true);
        self.learn(client, query, &reply);
        reply
    }

    fn answer_of_server(&mut self, query: &Query, in_tunnel: bool) -> Reply {
        let (name, record) = match &query.question {
            Question::Records(name, record) => (name.as_str(), Some(*record)),
            Question::Reverse(_) => ("", None),
        };
        let spec = self.name(name).cloned().unwrap_or_else(|| NameSpec {
            name: name.to_owned(),
            ..NameSpec::default()
        });
        match (spec.answer, query.transport, in_tunnel) {
            (DnsAnswer::NameError, ..) => no_records(NAME_ERROR),
            (DnsAnswer::ServerFailure | DnsAnswer::Unreachable, ..) => no_records(SERVER_FAILURE),
            (DnsAnswer::Silence, Transport::Udp, false) => Reply::Silence,
            (DnsAnswer::Silence, ..) => no_records(SERVER_FAILURE),
            (DnsAnswer::Records, ..) => records(&spec, record, query.transport),
        }
    }

    /// After an answer of a real server: what the application remembers.
    pub(super) fn learn(&mut self, client: usize, query: &Query, reply: &Reply) {
        let (
            Question::Records(name, record),
            Reply::Records {
                code: NO_ERROR,
                addresses,
                truncated: false,
                ..
            },
        ) = (&query.question, reply)
        else {
            return;
        };
        let family = match record {
            RecordType::A => Family::V4,
            RecordType::Aaaa => Family::V6,
            _ => return,
        };
        let key = (name.clone(), family);
        let resolved = &mut self.clients[client].resolved;
        match addresses.is_empty() {
            true => resolved.remove(&key),
            false => resolved.insert(key, Resolved::Real(addresses.iter().copied().collect())),
        };
    }

    /// The gateway resolves a name anew.
    fn announce(&mut self, client: usize, name: &str) {
        let newest = self
            .names
            .get(name)
            .map_or(0, |versions| versions.len() - 1);
        self.clients[client]
            .announced
            .insert(name.to_owned(), newest);
    }
}

/// The way to the name server of a resource's site; the resource's filters do not matter.
fn site_route(resource: usize) -> Route {
    Route::To {
        resources: BTreeSet::from([resource]),
        addresses: BTreeSet::new(),
        may_lack_family: false,
    }
}

fn no_records(code: u8) -> Reply {
    Reply::Records {
        code,
        addresses: BTreeSet::new(),
        others: 0,
        truncated: false,
    }
}

fn records(spec: &NameSpec, record: Option<RecordType>, transport: Transport) -> Reply {
    let mut addresses = BTreeSet::<IpAddr>::new();
    let mut others = 0;
    // Header and question, then what each record adds: 12 bytes and its data.
    let mut len = 12 + spec.name.len() + 2 + 4;
    match record {
        Some(RecordType::A) => {
            addresses.extend(spec.v4.iter().copied().map(IpAddr::V4));
            len += spec.v4.len() * (12 + 4);
        }
        Some(RecordType::Aaaa) => {
            addresses.extend(spec.v6.iter().copied().map(IpAddr::V6));
            len += spec.v6.len() * (12 + 16);
        }
        Some(RecordType::Txt) => {
            others = spec.txt;
            len += spec.txt * (12 + 256);
        }
        _ => {}
    }
    if len > MAX_UDP && transport == Transport::Udp {
        return Reply::Records {
            code: NO_ERROR,
            addresses: BTreeSet::new(),
            others: 0,
            truncated: true,
        };
    }
    Reply::Records {
        code: NO_ERROR,
        addresses,
        others,
        truncated: false,
    }
}
