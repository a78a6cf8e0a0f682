//! Policies and their conditions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use connlib_model::{IpNet, ResourceId};
use portal_core::{
    Conditions,
    config::{Person, PersonId, Policy, PolicyId},
    derive::id_from_name,
};

use super::{Names, Resolver, Result};
use crate::config_file::{
    schema::{self, Text},
    time,
};

impl Resolver<'_> {
    pub(super) fn policies(
        &self,
        policies: Vec<schema::Policy>,
        groups: &Names<BTreeSet<PersonId>>,
        resources: &Names<ResourceId>,
        people: &BTreeMap<PersonId, Person>,
    ) -> Result<BTreeMap<PolicyId, Policy>> {
        let mut all = BTreeMap::new();
        for policy in policies {
            let members = self.find(groups, &policy.group)?;
            let resource = *self.find(resources, &policy.resource)?;
            let conditions = self.conditions(&policy.conditions)?;
            let name = format!("{}\n{}", policy.group.get_ref(), policy.resource.get_ref());
            let id = PolicyId(policy.id.unwrap_or_else(|| id_from_name("policy", &name)));
            if all.contains_key(&id) {
                let problem = format!(
                    "there is another policy for group '{}' and resource '{}'",
                    policy.group.get_ref(),
                    policy.resource.get_ref()
                );
                let fix = "Remove one, or give one an id of its own (a UUID).";
                return Err(self.error(&policy.group, problem, fix));
            }
            let members = members.iter().filter(|person| people.contains_key(person));
            let checked = Policy {
                people: members.copied().collect(),
                resource,
                conditions,
            };
            all.insert(id, policy.enabled.then_some(checked));
        }
        let enabled = all
            .into_iter()
            .filter_map(|(id, policy)| Some((id, policy?)));
        Ok(enabled.collect())
    }

    fn conditions(&self, conditions: &schema::Conditions) -> Result<Conditions> {
        let network = |text: &Text| {
            let written = text.get_ref();
            let net = written.parse::<IpNet>().ok();
            let net = net.or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
            net.ok_or_else(|| {
                let problem = format!("'{written}' is no network");
                self.error(text, problem, r#"Write it like "198.51.100.0/24"."#)
            })
        };
        let region = |text: &Text| {
            let code = text.get_ref().to_ascii_uppercase();
            let valid = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
            valid.then_some(code).ok_or_else(|| {
                let problem = format!("'{}' is no country code", text.get_ref());
                self.error(text, problem, r#"Write two letters, such as "DE"."#)
            })
        };
        let window = |text: &Text| {
            time::parse_window(text.get_ref()).ok_or_else(|| {
                let problem = format!("'{}' is no time window", text.get_ref());
                self.error(text, problem, time::EXAMPLES)
            })
        };
        Ok(Conditions {
            remote_ip: conditions
                .remote_ip
                .iter()
                .map(network)
                .collect::<Result<_>>()?,
            regions: conditions
                .regions
                .iter()
                .map(region)
                .collect::<Result<_>>()?,
            times: conditions.times.iter().map(window).collect::<Result<_>>()?,
            verified: conditions.verified,
        })
    }
}
