//! What happens next (testing §5.6), with weights.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};

use super::{
    choice::{below, one_of, some_of, weighted},
    initial, pools,
};
use crate::{
    generators::Weights,
    model::{Model, Resolved},
    topology::{Families, Target},
    transition::{
        Component, Destination, End, Family, Probe, Protocol, Query, Question, RecordType,
        RogueAct, Side, Transition, Transport,
    },
};

/// Most packets and queries at once.
const MAX_AT_ONCE: usize = 4;

/// Any transition that makes sense in the state of the model.
pub fn next(model: &Model, weights: &Weights) -> BoxedStrategy<Transition> {
    let clients = model.clients.len();
    let mut options = Vec::new();
    for client in 0..clients {
        // The weights of testing §5.6 are those of one client; several share them.
        let share = |weight: u32| (weight * 2 / clients as u32).max(1);
        options.push((share(45), send(model, client)));
        if !model.clients[client].servers.is_empty() {
            options.push((share(22), queries(model, client)));
        }
        options.push((share(4), open_tcp(model, client)));
        options.push((share(1), burst(model, client)));
        options.extend(
            access(model, client)
                .into_iter()
                .map(|(w, s)| (share(w), s)),
        );
        options.extend(moves(model, client).into_iter().map(|(w, s)| (share(w), s)));
    }
    for (connection, _) in model.connections.iter().enumerate() {
        if model.is_open(connection) {
            let from = one_of([Side::Application, Side::Resource]);
            let used = from.prop_map(move |from| Transition::UseTcp { connection, from });
            options.push((6, used.boxed()));
            let closed = Just(Transition::CloseTcp { connection });
            options.push((1, closed.boxed()));
        }
    }
    options.extend(everybody(model, weights));
    weighted(options)
}

fn send(model: &Model, client: usize) -> BoxedStrategy<Transition> {
    vec(probe(model, client), 1..=MAX_AT_ONCE)
        .prop_map(move |probes| Transition::Send { client, probes })
        .boxed()
}

fn burst(model: &Model, client: usize) -> BoxedStrategy<Transition> {
    (destination(model, client), one_of([20usize, 150]))
        .prop_map(move |(to, count)| Transition::Burst {
            client,
            to,
            port: 5000,
            count,
        })
        .boxed()
}

fn probe(model: &Model, client: usize) -> BoxedStrategy<Probe> {
    let how = weighted(vec![
        (3, Just(Protocol::Icmp).boxed()),
        (
            4,
            one_of([80u16, 85, 443, 5000])
                .prop_map(Protocol::Udp)
                .boxed(),
        ),
    ]);
    let is_foreign = prop::bool::weighted(0.04);
    (destination(model, client), how, is_foreign)
        .prop_map(|(to, how, is_foreign)| {
            let family = match &to {
                Destination::Host(ip) => *ip,
                Destination::Name(_, Family::V4, _) => IpAddr::from([0; 4]),
                Destination::Name(_, Family::V6, _) => IpAddr::from([0; 16]),
            };
            let source = is_foreign.then(|| pools::foreign_source(family));
            Probe { to, how, source }
        })
        .boxed()
}

fn destination(model: &Model, client: usize) -> BoxedStrategy<Destination> {
    let known = &model.clients[client];
    let networks: Vec<_> = known
        .granted
        .iter()
        .filter_map(|id| match &model.resources[*id].target {
            Target::Cidr(network) => Some(*network),
            Target::Dns(..) | Target::Internet => None,
        })
        .collect();
    let all = pools::hosts();
    let covered: Vec<IpAddr> = all
        .iter()
        .copied()
        .filter(|ip| networks.iter().any(|network| network.contains(ip)))
        .collect();
    let mut options = vec![
        (2, one_of(all).prop_map(Destination::Host).boxed()),
        (
            2,
            one_of(pools::strangers())
                .prop_map(Destination::Host)
                .boxed(),
        ),
    ];
    if !covered.is_empty() {
        options.push((12, one_of(covered).prop_map(Destination::Host).boxed()));
    }
    let of_kind = |proxy: bool| -> Vec<(String, Family)> {
        let matching = known.resolved.iter().filter(|(_, kind)| match kind {
            Resolved::Proxy => proxy,
            Resolved::Real(ips) => !proxy && !ips.is_empty(),
        });
        matching.map(|(key, _)| key.clone()).collect()
    };
    for (weight, names) in [(30, of_kind(true)), (2, of_kind(false))] {
        if !names.is_empty() {
            let name = (one_of(names), 0usize..4)
                .prop_map(|((name, family), nth)| Destination::Name(name, family, nth));
            options.push((weight, name.boxed()));
        }
    }
    weighted(options)
}

fn queries(model: &Model, client: usize) -> BoxedStrategy<Transition> {
    let mut names = pools::NAMES.to_vec();
    names.extend(pools::OTHER_NAMES);
    // Names of resources lead further: asked for more often.
    for name in pools::NAMES {
        if model.is_name_of_resource(client, name) {
            names.extend([name; 6]);
        }
    }
    let record = weighted(vec![
        (6, Just(RecordType::A).boxed()),
        (6, Just(RecordType::Aaaa).boxed()),
        (2, Just(RecordType::Txt).boxed()),
        (1, Just(RecordType::Mx).boxed()),
        (1, Just(RecordType::Https).boxed()),
        (1, Just(RecordType::Srv).boxed()),
    ]);
    let records = (one_of(names), record)
        .prop_map(|(name, record)| Question::Records(name.to_owned(), record));
    let reverse = destination(model, client).prop_map(Question::Reverse);
    let question = prop_oneof![8 => records.boxed(), 1 => reverse.boxed()];
    let transport = one_of([Transport::Udp, Transport::Udp, Transport::Tcp]);
    let query =
        (question, 0usize..8, transport, 1u16..6).prop_map(|(question, server, transport, id)| {
            Query {
                question,
                server,
                transport,
                id,
            }
        });
    vec(query, 1..=MAX_AT_ONCE)
        .prop_map(move |queries| Transition::Query { client, queries })
        .boxed()
}

fn open_tcp(model: &Model, client: usize) -> BoxedStrategy<Transition> {
    let port = one_of([22u16, 80, 443, 8080]);
    (destination(model, client), port)
        .prop_map(move |(to, port)| Transition::OpenTcp {
            client,
            to,
            port,
            keep_alive: true,
        })
        .boxed()
}

/// What a client may reach.
fn access(model: &Model, client: usize) -> Vec<(u32, BoxedStrategy<Transition>)> {
    let known = &model.clients[client];
    let all: Vec<usize> = (0..model.resources.len()).collect();
    let unknown: Vec<usize> = all
        .iter()
        .copied()
        .filter(|id| !known.granted.contains(id))
        .collect();
    let granted: Vec<usize> = known.granted.iter().copied().collect();
    let mut options = vec![(
        1,
        some_of(all, 0)
            .prop_map(move |resources| Transition::SetDisabled {
                client,
                resources: resources.into_iter().take(2).collect(),
            })
            .boxed(),
    )];
    if !known.disabled.is_empty() {
        let all_on = Transition::SetDisabled {
            client,
            resources: vec![],
        };
        options.push((3, Just(all_on).boxed()));
    }
    if !unknown.is_empty() {
        let for_s = one_of([None, None, None, Some(600), Some(1200)]);
        let grant = (one_of(unknown), for_s).prop_map(move |(resource, for_s)| Transition::Grant {
            client,
            resource,
            for_s,
        });
        options.push((5, grant.boxed()));
    }
    if !granted.is_empty() {
        let revoke = (one_of(granted), prop::bool::weighted(0.2)).prop_map(
            move |(resource, partitioned)| match partitioned {
                true => Transition::RevokeWhilePartitioned { client, resource },
                false => Transition::Revoke { client, resource },
            },
        );
        options.push((2, revoke.boxed()));
    }
    options
}

/// What happens to one client.
fn moves(model: &Model, client: usize) -> Vec<(u32, BoxedStrategy<Transition>)> {
    let families = one_of([Families::Dual, Families::V4, Families::V6]);
    let roam = (families, initial::edge(), 0u64..3000, 100u64..10_000).prop_map(
        move |(families, edge, dead_ms, portal_ms)| Transition::Roam {
            client,
            families,
            edge,
            dead_ms,
            portal_ms,
        },
    );
    let servers = some_of(pools::system_resolvers(), 0)
        .prop_map(move |servers| Transition::SystemDns { client, servers });
    let restart = end().prop_map(move |end| Transition::RestartClient { client, end });
    let who = Component::Client(client);
    let reconnect =
        (0u64..3000).prop_map(move |away_ms| Transition::ReconnectPortal { who, away_ms });
    let asleep = one_of([30u64, 175, 185, 400, 700]);
    let then = vec(probe(model, client), 0..=2);
    let stall = (asleep, then).prop_map(move |(seconds, then)| Transition::Stall {
        client,
        seconds,
        then,
    });
    vec![
        (2, roam.boxed()),
        (1, servers.boxed()),
        (1, restart.boxed()),
        (1, reconnect.boxed()),
        (1, stall.boxed()),
        (1, Just(Transition::FlushEdge { client }).boxed()),
    ]
}

fn end() -> BoxedStrategy<End> {
    one_of([End::Graceful, End::Killed])
}

/// What happens to everybody.
fn everybody(model: &Model, weights: &Weights) -> Vec<(u32, BoxedStrategy<Transition>)> {
    let gateways = model.topology.gateways.len();
    let upstreams =
        some_of(pools::upstreams(), 0).prop_map(|servers| Transition::UpstreamDns { servers });
    let domain = one_of([None, Some("lab.example".to_owned())])
        .prop_map(|domain| Transition::SearchDomain { domain });
    let records = (
        one_of(pools::NAMES),
        initial::addresses(pools::real_v4()),
        initial::addresses(pools::real_v6()),
    )
        .prop_map(|(name, v4, v6)| Transition::SetRecords {
            name: name.to_owned(),
            v4,
            v6,
        });
    let restart = (below(gateways), end())
        .prop_map(|(gateway, end)| Transition::RestartGateway { gateway, end });
    let reconnect =
        (below(gateways), 0u64..3000).prop_map(|(gateway, away_ms)| Transition::ReconnectPortal {
            who: Component::Gateway(gateway),
            away_ms,
        });
    let idle = one_of([5u64, 25, 100, 175, 185, 360, 360])
        .prop_map(|seconds| Transition::Idle { seconds });
    let away = (1500u64..8000).prop_map(|away_ms| Transition::PartitionRelays { away_ms });
    let block = any::<bool>().prop_map(Transition::BlockDirect);
    vec![
        (2, upstreams.boxed()),
        (1, domain.boxed()),
        (8, records.boxed()),
        (2, restart.boxed()),
        (2, reconnect.boxed()),
        (4 * weights.idle, idle.boxed()),
        (
            2,
            (1usize..=2)
                .prop_map(|count| Transition::DeployRelays { count })
                .boxed(),
        ),
        (2, away.boxed()),
        (2, Just(Transition::RebootRelays).boxed()),
        (1, Just(Transition::MoveRelays).boxed()),
        (2, block.boxed()),
        (8, changed_resource(model)),
        (4, rogue(model)),
    ]
}

/// What the misbehaving client does.
fn rogue(model: &Model) -> BoxedStrategy<Transition> {
    let resources = model.resources.len();
    let connect = below(resources).prop_map(|resource| RogueAct::Connect { resource });
    if model.rogue.is_none() {
        return connect.prop_map(Transition::Rogue).boxed();
    }
    let mut hosts = pools::hosts();
    hosts.extend(pools::strangers());
    hosts.extend(pools::proxies());
    let how = weighted(vec![
        (1, Just(Protocol::Icmp).boxed()),
        (2, one_of([22u16, 85, 5000]).prop_map(Protocol::Udp).boxed()),
    ]);
    let send = (one_of(hosts), how, prop::bool::weighted(0.2)).prop_map(|(to, how, is_foreign)| {
        let source = is_foreign.then(|| pools::foreign_source(to));
        RogueAct::Send { to, how, source }
    });
    let announce =
        (below(resources), one_of(pools::NAMES)).prop_map(|(resource, name)| RogueAct::Announce {
            resource,
            name: name.to_owned(),
            addresses: pools::proxies(),
        });
    let lie = Just(RogueAct::IcmpError {
        about: [10, 1, 2, 3].into(),
    });
    weighted(vec![
        (1, connect.boxed()),
        (6, send.boxed()),
        (2, announce.boxed()),
        (1, lie.boxed()),
        (1, Just(RogueAct::Garbage).boxed()),
    ])
    .prop_map(Transition::Rogue)
    .boxed()
}

/// The internet resource keeps its type and site.
fn changed_resource(model: &Model) -> BoxedStrategy<Transition> {
    let changeable: Vec<usize> = (0..model.resources.len())
        .filter(|id| model.resources[*id].target != Target::Internet)
        .collect();
    let sites = model.topology.sites - 1;
    let network = one_of(pools::networks()).prop_map(Target::Cidr);
    let target = prop_oneof![2 => network.boxed(), 1 => initial::dns_target()];
    let change = (
        prop::option::of(target),
        prop::option::weighted(0.3, below(sites)),
        prop::option::of(initial::filters()),
    );
    (one_of(changeable), change)
        .prop_map(
            |(resource, (target, site, filters))| Transition::ChangeResource {
                resource,
                target,
                site,
                filters,
            },
        )
        .boxed()
}
