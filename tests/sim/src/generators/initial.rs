//! Starting points (testing §5.2).

use proptest::{collection::vec, prelude::*};

use super::{
    choice::{below, one_of, some_of, weighted},
    pools,
};
use crate::topology::{
    ClientSpec, DnsAnswer, Edge, Failure, Families, FilterSpec, Filtering, GatewaySpec, HostSpec,
    NameSpec, Os, PortalManners, RelaySpec, ResourceSpec, Target, Topology,
};

/// Any starting point; packets are lost with `loss` percent.
pub fn topology(loss: u8) -> BoxedStrategy<Topology> {
    (1usize..=3)
        .prop_flat_map(move |sites| {
            (
                any::<u64>().no_shrink(),
                gateways(sites),
                relays(),
                resources(sites),
                names(),
                unreachable(),
                (
                    prop_oneof![2 => Just(vec![]).boxed(), 3 => some_of(pools::upstreams(), 1)],
                    one_of([None, None, Some("corp.example".to_owned())]),
                    prop::bool::weighted(0.3),
                    manners(),
                    disorder(),
                ),
            )
                .prop_flat_map(
                    move |(seed, gateways, relays, resources, names, unreachable, rest)| {
                        let (upstream_dns, search_domain, block_direct, portal, disorder) = rest;
                        let base = Topology {
                            seed,
                            // The internet has a site of its own, as it must (tunnel §5.3).
                            sites: sites + 1,
                            gateways,
                            relays,
                            clients: vec![],
                            resources,
                            names,
                            unreachable,
                            upstream_dns,
                            search_domain,
                            loss,
                            reordered: disorder.0,
                            duplicated: disorder.1,
                            block_direct,
                            portal,
                        };
                        clients(base.resources.len()).prop_map(move |clients| Topology {
                            clients,
                            ..base.clone()
                        })
                    },
                )
        })
        .boxed()
}

fn gateways(sites: usize) -> BoxedStrategy<Vec<GatewaySpec>> {
    vec((one_of([1usize, 1, 2, 3]), vec(host(true), 3)), sites + 1)
        .prop_map(|sites| {
            let of_site = |(site, (count, hosts)): (usize, (usize, Vec<HostSpec>))| {
                let hosts = hosts.into_iter().take(count);
                hosts.map(move |host| GatewaySpec { site, host })
            };
            sites.into_iter().enumerate().flat_map(of_site).collect()
        })
        .boxed()
}

/// At most one relay lacks a family, so that everybody has one to talk to.
fn relays() -> BoxedStrategy<Vec<RelaySpec>> {
    let relay = (10u64..50).prop_map(|latency_ms| RelaySpec {
        families: Families::Dual,
        latency_ms,
    });
    let odd = one_of([Families::Dual, Families::Dual, Families::V4, Families::V6]);
    (vec(relay, 1..=3), odd)
        .prop_map(|(mut relays, odd)| {
            if relays.len() > 1 {
                relays[0].families = odd;
            }
            relays
        })
        .boxed()
}

fn clients(resources: usize) -> BoxedStrategy<Vec<ClientSpec>> {
    let indices: Vec<usize> = (0..resources).collect();
    let client = (
        host(false),
        prop_oneof![1 => Just(vec![]).boxed(), 6 => some_of(pools::system_resolvers(), 1)],
        some_of(indices, 1),
        one_of([Os::Linux, Os::MacOs, Os::Windows]),
    )
        .prop_map(|(host, system_dns, granted, os)| ClientSpec {
            host,
            system_dns,
            granted,
            os,
        });
    one_of([1usize, 1, 1, 1, 2, 3])
        .prop_flat_map(move |count| vec(client.clone(), count))
        .boxed()
}

/// Where a host sits. Gateways always have both families.
fn host(is_gateway: bool) -> BoxedStrategy<HostSpec> {
    let families = match is_gateway {
        true => Just(Families::Dual).boxed(),
        false => one_of([Families::Dual, Families::V4, Families::V6]),
    };
    (
        families,
        edge(),
        one_of([30u64, 60, 120, 300]),
        any::<bool>(),
        match is_gateway {
            true => 10u64..200,
            false => 10u64..300,
        },
    )
        .prop_map(
            |(families, edge, expiry_s, inbound_refresh, latency_ms)| HostSpec {
                families,
                edge,
                expiry_s,
                inbound_refresh,
                latency_ms,
            },
        )
        .boxed()
}

pub(super) fn edge() -> BoxedStrategy<Edge> {
    weighted(vec![
        (4, Just(Edge::Open).boxed()),
        (1, Just(Edge::Firewall(Filtering::Port)).boxed()),
        (1, Just(Edge::Cone(Filtering::Open)).boxed()),
        (1, Just(Edge::Cone(Filtering::Address)).boxed()),
        (2, Just(Edge::Cone(Filtering::Port)).boxed()),
        (2, Just(Edge::Symmetric).boxed()),
    ])
}

fn resources(sites: usize) -> BoxedStrategy<Vec<ResourceSpec>> {
    let cidr = (one_of(pools::networks()), below(sites), filters()).prop_map(
        |(network, site, filters)| ResourceSpec {
            target: Target::Cidr(network),
            site,
            filters,
        },
    );
    let dns =
        (dns_target(), below(sites), filters()).prop_map(|(target, site, filters)| ResourceSpec {
            target,
            site,
            filters,
        });
    (vec(cidr, 1..=5), vec(dns, 1..=4))
        .prop_map(move |(cidrs, names)| {
            let internet = ResourceSpec {
                target: Target::Internet,
                site: sites,
                filters: vec![],
            };
            // Interleaved, so that larger ids are not all of one kind.
            let mut all = vec![internet];
            all.extend(cidrs);
            all.extend(names);
            all
        })
        .boxed()
}

pub(super) fn dns_target() -> BoxedStrategy<Target> {
    let families = one_of([Families::Dual, Families::Dual, Families::V4, Families::V6]);
    (one_of(pools::PATTERNS), families)
        .prop_map(|(pattern, families)| Target::Dns(pattern.to_owned(), families))
        .boxed()
}

pub(super) fn filters() -> BoxedStrategy<Vec<FilterSpec>> {
    let filter = one_of([
        FilterSpec::Icmp,
        FilterSpec::Tcp(80, 443),
        FilterSpec::Tcp(22, 22),
        FilterSpec::Udp(80, 90),
        FilterSpec::Udp(53, 53),
        FilterSpec::Udp(1000, 65535),
    ]);
    prop_oneof![3 => Just(vec![]).boxed(), 2 => vec(filter, 1..=3).boxed()].boxed()
}

fn names() -> BoxedStrategy<Vec<NameSpec>> {
    let name = |name: &'static str| {
        (
            addresses(pools::real_v4()),
            addresses(pools::real_v6()),
            one_of([0usize, 0, 1, 8]),
            weighted(vec![
                (12, Just(DnsAnswer::Records).boxed()),
                (1, Just(DnsAnswer::NameError).boxed()),
                (1, Just(DnsAnswer::ServerFailure).boxed()),
                (1, Just(DnsAnswer::Silence).boxed()),
                (1, Just(DnsAnswer::Unreachable).boxed()),
            ]),
        )
            .prop_map(move |(v4, v6, txt, answer)| NameSpec {
                name: name.to_owned(),
                v4,
                v6,
                txt,
                answer,
            })
    };
    pools::NAMES.map(name).to_vec().boxed()
}

/// Mostly one to three of a pool, now and then none.
pub(super) fn addresses<T: Clone + Ord + std::fmt::Debug + 'static>(
    pool: Vec<T>,
) -> BoxedStrategy<Vec<T>> {
    let some = vec(one_of(pool), 1..=3).prop_map(|mut list| {
        list.sort();
        list.dedup();
        list
    });
    prop_oneof![1 => Just(vec![]).boxed(), 7 => some.boxed()].boxed()
}

fn unreachable() -> BoxedStrategy<Vec<(std::net::IpAddr, Failure)>> {
    let mut hosts: Vec<std::net::IpAddr> = Vec::new();
    hosts.extend(
        pools::real_v4()
            .into_iter()
            .take(3)
            .map(std::net::IpAddr::from),
    );
    hosts.extend(
        pools::real_v6()
            .into_iter()
            .take(3)
            .map(std::net::IpAddr::from),
    );
    hosts.extend(pools::hosts().into_iter().step_by(5));
    let failure = weighted(vec![
        (1, Just(Failure::Network).boxed()),
        (1, Just(Failure::Host).boxed()),
        (1, Just(Failure::Port).boxed()),
        (1, Just(Failure::Prohibited).boxed()),
        (1, Just(Failure::TimeExceeded).boxed()),
        (1, any::<u16>().prop_map(Failure::TooBig).boxed()),
    ]);
    let count = hosts.len();
    (some_of(hosts, 0), vec(failure, count))
        .prop_map(|(hosts, failures)| hosts.into_iter().zip(failures).collect())
        .boxed()
}

fn manners() -> BoxedStrategy<PortalManners> {
    let slow = (
        prop_oneof![Just(0).boxed(), (0u64..3000).boxed()],
        any::<bool>(),
        prop::bool::weighted(0.4),
    )
        .prop_map(|(answer_delay_ms, doubled, loses_first)| PortalManners {
            answer_delay_ms,
            doubled,
            loses_first,
            rotate_psk: false,
        });
    // Alone: a component that missed an answer may hold a key that is older than the one spare of its peer.
    let old = PortalManners {
        rotate_psk: true,
        ..PortalManners::default()
    };
    weighted(vec![
        (8, Just(PortalManners::default()).boxed()),
        (2, slow.boxed()),
        (1, Just(old).boxed()),
    ])
}

/// How many packets in a hundred are overtaken, and how many arrive twice.
fn disorder() -> BoxedStrategy<(u8, u8)> {
    weighted(vec![
        (6, Just((0, 0)).boxed()),
        (1, (0u8..=20, 0u8..=20).boxed()),
    ])
}
