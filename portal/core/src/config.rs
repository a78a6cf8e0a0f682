//! The checked configuration: who may reach what. Names are resolved to ids and groups to their members before it gets
//! here; [`Config`] only holds references that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use connlib_model::{
    CidrResource, DnsResource, Filter, GatewayCidrResource, GatewayDnsResource,
    GatewayInternetResource, GatewayResource, InternetResource, IpNet, IpStack, Resource,
    ResourceId, Site, SiteId,
};
use uuid::Uuid;

use crate::{
    policy::Conditions,
    token::{Holder, Token, TokenHash},
};

/// A person or service ("actor" on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(pub Uuid);

/// A policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub Uuid);

/// Everything that is configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The account, for components that want its name.
    pub account: Account,
    /// Site names.
    pub sites: BTreeMap<SiteId, String>,
    /// What can be reached.
    pub resources: BTreeMap<ResourceId, ResourceConfig>,
    /// Enabled people.
    pub people: BTreeMap<PersonId, Person>,
    /// Enabled policies.
    pub policies: BTreeMap<PolicyId, Policy>,
    /// Tokens by hash.
    pub tokens: BTreeMap<TokenHash, Token>,
    /// Resolvers for names that are no resource; empty: devices use their own.
    pub dns_servers: Vec<SocketAddr>,
    /// Appended to single-label queries.
    pub search_domain: Option<String>,
    /// `external_id`s of devices that an administrator verified.
    pub verified_devices: BTreeSet<String>,
}

/// The account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Identity.
    pub id: Uuid,
    /// Short name.
    pub slug: String,
}

/// A person or service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Display name.
    pub name: String,
    /// Mail address, for records.
    pub email: Option<String>,
}

/// Something that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceConfig {
    /// Identity.
    pub id: ResourceId,
    /// Display name.
    pub name: String,
    /// Hint for people.
    pub description: Option<String>,
    /// What exactly.
    pub target: Target,
    /// Where its gateways are; without a site it is withheld.
    pub sites: BTreeSet<SiteId>,
    /// What is permitted; empty permits everything.
    pub filters: Vec<Filter>,
}

/// What a resource is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A network; a single address is a network of one.
    Cidr(IpNet),
    /// Names that match a pattern.
    Dns {
        /// The pattern, already checked.
        pattern: String,
        /// Address families to answer for.
        ip_stack: IpStack,
    },
    /// Everything else.
    Internet,
}

/// Lets people reach a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Who; members of the policy's group.
    pub people: BTreeSet<PersonId>,
    /// What.
    pub resource: ResourceId,
    /// Under which conditions.
    pub conditions: Conditions,
}

impl Config {
    /// The token with this hash, if its holder still exists.
    pub fn token(&self, hash: &TokenHash) -> Option<&Token> {
        let token = self.tokens.get(hash)?;
        let exists = match token.holder {
            Holder::Client(person) => self.people.contains_key(&person),
            Holder::Gateway(site) => self.sites.contains_key(&site),
            Holder::Relay => true,
        };
        exists.then_some(token)
    }

    /// The policies that let a person reach a resource, whatever their conditions.
    pub fn policies_for(
        &self,
        person: PersonId,
        resource: ResourceId,
    ) -> impl Iterator<Item = (PolicyId, &Policy)> {
        self.policies
            .iter()
            .filter(move |(_, policy)| {
                policy.resource == resource && policy.people.contains(&person)
            })
            .map(|(id, policy)| (*id, policy))
    }

    /// A resource as clients see it.
    pub fn for_client(&self, resource: &ResourceConfig) -> Resource {
        let id = resource.id;
        let name = resource.name.clone();
        let address_description = resource.description.clone();
        let filters = resource.filters.clone();
        let sites = self.sites_of(resource);
        match &resource.target {
            Target::Cidr(address) => Resource::Cidr(CidrResource {
                id,
                address: *address,
                name,
                address_description,
                sites,
                filters,
            }),
            Target::Dns { pattern, ip_stack } => Resource::Dns(DnsResource {
                id,
                address: pattern.clone(),
                name,
                address_description,
                sites,
                filters,
                ip_stack: *ip_stack,
            }),
            Target::Internet => Resource::Internet(InternetResource { id, name, sites }),
        }
    }

    fn sites_of(&self, resource: &ResourceConfig) -> Vec<Site> {
        let named = |id: &SiteId| {
            self.sites.get(id).map(|name| Site {
                id: *id,
                name: name.clone(),
            })
        };
        resource.sites.iter().filter_map(named).collect()
    }
}

impl ResourceConfig {
    /// The resource as gateways see it.
    pub fn for_gateway(&self) -> GatewayResource {
        let id = self.id;
        let name = self.name.clone();
        let filters = self.filters.clone();
        match &self.target {
            Target::Cidr(address) => GatewayResource::Cidr(GatewayCidrResource {
                id,
                address: *address,
                name,
                filters,
            }),
            Target::Dns { pattern, .. } => GatewayResource::Dns(GatewayDnsResource {
                id,
                address: pattern.clone(),
                name,
                filters,
            }),
            Target::Internet => GatewayResource::Internet(GatewayInternetResource { id, filters }),
        }
    }

    /// Network or pattern as text; `None` for the internet.
    pub fn address(&self) -> Option<String> {
        match &self.target {
            Target::Cidr(address) => Some(address.to_string()),
            Target::Dns { pattern, .. } => Some(pattern.clone()),
            Target::Internet => None,
        }
    }

    /// Whether `new`, with the same id, is a different thing to reach, so that what was allowed for one is not allowed
    /// for the other. New filters alone are not: gateways take them in place.
    pub(crate) fn is_replaced_by(&self, new: &Self) -> bool {
        self.target != new.target || self.sites != new.sites
    }
}
