//! What a gateway may let through of a client that does not keep to its own rules.

use std::net::IpAddr;

use connlib_model::ranges;

use super::{
    Model, RogueModel, names,
    routing::{Traffic, is_public},
};
use crate::{
    topology::Target,
    transition::{Protocol, RogueAct},
};

impl Model {
    /// Applies an act. For packets: their number and whether they may pass.
    pub(super) fn rogue_acts(&mut self, act: &RogueAct) -> Option<(u64, bool)> {
        match act {
            RogueAct::Connect { resource } => {
                let rogue = self.rogue.get_or_insert_with(RogueModel::default);
                rogue.granted.push(*resource);
                rogue.site = self.resources[*resource].site;
                rogue.may_be_gone = false;
                None
            }
            RogueAct::Announce {
                resource,
                name,
                addresses,
            } => {
                let rogue = self.rogue.as_mut()?;
                for address in addresses {
                    let what = (*resource, name.clone());
                    rogue.announced.insert(*address, what);
                }
                None
            }
            RogueAct::Send { to, how, source } => {
                let number = self.next_probe;
                self.next_probe += 1;
                let traffic = match how {
                    Protocol::Icmp => Traffic::Icmp,
                    Protocol::Udp(port) => Traffic::Udp(*port),
                };
                let passes = source.is_none() && self.lets_rogue_through(*to, traffic);
                Some((number, passes))
            }
            RogueAct::IcmpError { .. } | RogueAct::Garbage => None,
        }
    }

    /// Only what was granted there, by what that permits; names only if they belong to their resource.
    fn lets_rogue_through(&self, to: IpAddr, traffic: Traffic) -> bool {
        let Some(rogue) = &self.rogue else {
            return false;
        };
        let mut granted = rogue
            .granted
            .iter()
            .filter(|id| self.resources[**id].site == rogue.site);
        if ranges::is_proxy(to) {
            let Some((resource, name)) = rogue.announced.get(&to) else {
                return false;
            };
            let Target::Dns(pattern, _) = &self.resources[*resource].target else {
                return false;
            };
            let exists = self.name(name).is_some_and(|spec| match to {
                IpAddr::V4(_) => !spec.v4.is_empty(),
                IpAddr::V6(_) => !spec.v6.is_empty(),
            });
            return exists
                && rogue.granted.contains(resource)
                && names::covers(pattern, name)
                && self.permits(*resource, traffic);
        }
        granted.any(|id| match &self.resources[*id].target {
            Target::Cidr(network) => network.contains(&to) && self.permits(*id, traffic),
            Target::Internet => is_public(to),
            Target::Dns(..) => false,
        })
    }
}
