//! Resources: addresses, filters, sites.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use connlib_model::{DnsPattern, IpNet, IpStack, ResourceId, SiteId};
use portal_core::{
    config::{ResourceConfig, Target},
    derive::id_from_name,
};

use super::{Names, Resolver, Result};
use crate::config_file::{
    filter,
    schema::{self, Kind},
};

impl Resolver<'_> {
    pub(super) fn resources(
        &self,
        resources: Vec<schema::Resource>,
        sites: &Names<SiteId>,
    ) -> Result<(BTreeMap<ResourceId, ResourceConfig>, Names<ResourceId>)> {
        let mut by_id = BTreeMap::new();
        let mut ids = Vec::new();
        for resource in &resources {
            let checked = self.resource(resource, sites)?;
            ids.push((&resource.name, checked.id));
            by_id.insert(checked.id, checked);
        }
        self.unique_ids("resource", &ids)?;
        Ok((by_id, self.names("resource", ids)?))
    }

    fn resource(
        &self,
        resource: &schema::Resource,
        sites: &Names<SiteId>,
    ) -> Result<ResourceConfig> {
        let name = resource.name.get_ref();
        let named = resource.site.iter().chain(&resource.sites);
        let sites: BTreeSet<_> = named
            .map(|site| self.find(sites, site).copied())
            .collect::<Result<_>>()?;
        if sites.is_empty() {
            let problem = format!("resource '{name}' has no site, so no gateway could serve it");
            return Err(self.error(&resource.name, problem, r#"Add site = "…"."#));
        }
        let filters = resource.filters.iter().map(|text| {
            filter::parse(text.get_ref()).ok_or_else(|| {
                let problem = format!("'{}' is no filter", text.get_ref());
                self.error(text, problem, filter::EXAMPLES)
            })
        });
        let filters: Vec<_> = filters.collect::<Result<_>>()?;
        if let (Kind::Internet, Some(text)) = (resource.kind, resource.filters.first()) {
            let problem = "an internet resource cannot have filters";
            return Err(self.error(text, problem, "Remove the filters."));
        }
        if let (false, Some(stack)) = (resource.kind == Kind::Dns, &resource.ip_stack) {
            let problem = "ip_stack is only for resources of type \"dns\"";
            return Err(self.error(stack, problem, "Remove ip_stack."));
        }
        let id = resource
            .id
            .unwrap_or_else(|| id_from_name("resource", name));
        Ok(ResourceConfig {
            id: ResourceId::new(id),
            name: name.clone(),
            description: resource.description.clone(),
            target: self.target(resource)?,
            sites,
            filters,
        })
    }

    fn target(&self, resource: &schema::Resource) -> Result<Target> {
        let address = match (resource.kind, &resource.address) {
            (Kind::Internet, None) => return Ok(Target::Internet),
            (Kind::Internet, Some(address)) => {
                let problem = "an internet resource cannot have an address";
                return Err(self.error(address, problem, "Remove the address."));
            }
            (Kind::Cidr | Kind::Ip | Kind::Dns, Some(address)) => address,
            (Kind::Cidr | Kind::Ip | Kind::Dns, None) => {
                let problem = format!("resource '{}' has no address", resource.name.get_ref());
                return Err(self.error(&resource.name, problem, r#"Add address = "…"."#));
            }
        };
        let text = address.get_ref();
        let wrong =
            |what: &str, fix: &str| self.error(address, format!("'{text}' is no {what}"), fix);
        match resource.kind {
            Kind::Cidr => {
                let net: IpNet = text
                    .parse()
                    .map_err(|_| wrong("network", r#"Write it like "10.40.0.0/16"."#))?;
                if net.trunc() != net {
                    let fix = format!(
                        r#"Write "{}", or type = "ip" for one address."#,
                        net.trunc()
                    );
                    return Err(wrong("network: it has bits behind its prefix", &fix));
                }
                self.outside_reserved(address, net)?;
                Ok(Target::Cidr(net))
            }
            Kind::Ip => {
                let fix = r#"Write it like "192.0.2.17", or use type = "cidr" for a network."#;
                let ip: IpAddr = text.parse().map_err(|_| wrong("IP address", fix))?;
                self.outside_reserved(address, ip.into())?;
                Ok(Target::Cidr(ip.into()))
            }
            Kind::Dns => {
                let pattern = DnsPattern::new(text).map_err(|error| {
                    wrong(
                        &format!("pattern for names ({error})"),
                        r#"Write it like "*.corp.example"."#,
                    )
                })?;
                let stack = resource.ip_stack.as_ref().map(|stack| *stack.get_ref());
                Ok(Target::Dns {
                    pattern: pattern.as_str().to_owned(),
                    ip_stack: match stack {
                        None | Some(schema::IpStack::Dual) => IpStack::Dual,
                        Some(schema::IpStack::Ipv4Only) => IpStack::Ipv4Only,
                        Some(schema::IpStack::Ipv6Only) => IpStack::Ipv6Only,
                    },
                })
            }
            Kind::Internet => Ok(Target::Internet),
        }
    }
}
