//! The portal's configuration of a case: one person per client, one policy per client and resource.

use connlib_model::{IpStack, ResourceId};
use portal_core::{
    Conditions, TimeWindow,
    config::{Config, Person, Policy, ResourceConfig},
    token::{Holder, Token, TokenHash},
};

use crate::topology::{Families, ResourceSpec, Target, Topology, ids};

/// The configuration at the start.
pub(crate) fn initial(topology: &Topology) -> Config {
    let mut config = Config {
        sites: (0..topology.sites)
            .map(|site| (ids::site(site), ids::site_name(site)))
            .collect(),
        resources: topology
            .resources
            .iter()
            .enumerate()
            .map(|(index, spec)| (ids::resource(index), resource(index, spec)))
            .collect(),
        dns_servers: topology.upstream_dns.clone(),
        search_domain: topology.search_domain.clone(),
        ..Config::default()
    };
    for client in 0..topology.clients.len() + ROGUES {
        let person = Person {
            name: format!("person {client}"),
            email: None,
        };
        config.people.insert(ids::person(client), person);
        let holder = Holder::Client(ids::person(client));
        config
            .tokens
            .insert(TokenHash::of(&client_token(client)), token(holder));
    }
    for (client, spec) in topology.clients.iter().enumerate() {
        for resource in &spec.granted {
            grant(&mut config, client, *resource);
        }
    }
    for site in 0..topology.sites {
        let holder = Holder::Gateway(ids::site(site));
        config
            .tokens
            .insert(TokenHash::of(&site_token(site)), token(holder));
    }
    config
        .tokens
        .insert(TokenHash::of(RELAY_TOKEN), token(Holder::Relay));
    config
}

/// Token of every relay.
pub(crate) const RELAY_TOKEN: &str = "relays";

/// The misbehaving client is the one behind the last.
const ROGUES: usize = 1;

/// Token of a client.
pub(crate) fn client_token(client: usize) -> String {
    format!("client {client}")
}

/// Token of a site's gateways.
pub(crate) fn site_token(site: usize) -> String {
    format!("gateways {site}")
}

/// Lets a client reach a resource.
pub(crate) fn grant(config: &mut Config, client: usize, resource: usize) {
    grant_on(config, client, resource, Conditions::default());
}

/// Lets a client reach a resource until a moment of the same day, in Unix seconds.
pub(crate) fn grant_until(config: &mut Config, client: usize, resource: usize, end: u64) {
    let second = end % 86_400;
    // Windows end at full minutes of a local time; this one's clock is ahead by what is missing.
    let minute = second / 60 + 1;
    let window = u16::try_from(minute).ok().and_then(|minute| {
        let ahead = i32::try_from(u64::from(minute) * 60 - second).ok()?;
        TimeWindow::new(0..7, 0, minute, ahead)
    });
    let conditions = Conditions {
        times: window.into_iter().collect(),
        ..Conditions::default()
    };
    grant_on(config, client, resource, conditions);
}

fn grant_on(config: &mut Config, client: usize, resource: usize, conditions: Conditions) {
    let policy = Policy {
        people: [ids::person(client)].into(),
        resource: ids::resource(resource),
        conditions,
    };
    config
        .policies
        .insert(ids::policy(client, resource), policy);
}

/// Takes that back.
pub(crate) fn revoke(config: &mut Config, client: usize, resource: usize) {
    config.policies.remove(&ids::policy(client, resource));
}

/// A resource as the portal knows it.
pub(crate) fn resource(index: usize, spec: &ResourceSpec) -> ResourceConfig {
    let id: ResourceId = ids::resource(index);
    ResourceConfig {
        id,
        name: ids::resource_name(index),
        description: None,
        target: match &spec.target {
            Target::Cidr(network) => portal_core::config::Target::Cidr(*network),
            Target::Dns(pattern, families) => portal_core::config::Target::Dns {
                pattern: pattern.clone(),
                ip_stack: match families {
                    Families::Dual => IpStack::Dual,
                    Families::V4 => IpStack::Ipv4Only,
                    Families::V6 => IpStack::Ipv6Only,
                },
            },
            Target::Internet => portal_core::config::Target::Internet,
        },
        sites: [ids::site(spec.site)].into(),
        filters: spec
            .filters
            .iter()
            .map(|filter| filter.to_filter())
            .collect(),
    }
}

fn token(holder: Holder) -> Token {
    Token {
        name: "token".to_owned(),
        holder,
        expires_at: None,
    }
}
