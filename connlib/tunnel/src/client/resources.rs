//! The resources of this client: the portal's list and the user's switches.
//!
//! Resources that persist over an update keep their identity and thus their routing state; only a resource whose address
//! differs counts as removed and added (tunnel spec 3.1, 3.3). Switching a resource off is remembered even while it is
//! not in the list.

use std::collections::{BTreeMap, BTreeSet};

use connlib_cover::cover;
use connlib_model::{Resource, ResourceId, ResourceView};

use super::sites::Sites;

/// All known resources and which of them are switched off.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    known: BTreeMap<ResourceId, Resource>,
    disabled: BTreeSet<ResourceId>,
}

/// What an added or updated resource means for what was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Upserted {
    /// Nothing changed.
    Unchanged,
    /// Only what a person sees changed.
    ViewOnly,
    /// The resource is new.
    Added,
    /// It took the place of a different resource with the same id, whose state has to go.
    Replaced,
}

impl Resources {
    pub(crate) fn upsert(&mut self, resource: Resource) -> Upserted {
        let id = resource.id();
        let Some(old) = self.known.get(&id) else {
            self.known.insert(id, resource);
            return Upserted::Added;
        };

        let outcome = if *old == resource {
            Upserted::Unchanged
        } else if old.address_differs(&resource) {
            Upserted::Replaced
        } else {
            Upserted::ViewOnly
        };
        self.known.insert(id, resource);

        outcome
    }

    /// Forgets the resource. Returns whether it was known.
    pub(crate) fn remove(&mut self, id: ResourceId) -> bool {
        self.known.remove(&id).is_some()
    }

    /// Known resources that are not in `list`.
    pub(crate) fn missing_from(&self, list: &[Resource]) -> Vec<ResourceId> {
        let listed = list.iter().map(Resource::id).collect::<BTreeSet<_>>();

        self.known
            .keys()
            .filter(|id| !listed.contains(id))
            .copied()
            .collect()
    }

    /// Replaces the set of switched-off resources. Returns the known ones that were on until now.
    pub(crate) fn set_disabled(&mut self, disabled: BTreeSet<ResourceId>) -> Vec<ResourceId> {
        let newly_disabled = disabled
            .difference(&self.disabled)
            .filter(|id| self.known.contains_key(id))
            .copied()
            .collect();
        self.disabled = disabled;

        newly_disabled
    }

    /// The resource, whether switched on or off.
    pub(crate) fn get(&self, id: ResourceId) -> Option<&Resource> {
        self.known.get(&id)
    }

    /// Whether the resource is known and switched on.
    pub(crate) fn is_active(&self, id: ResourceId) -> bool {
        self.known.contains_key(&id) && !self.disabled.contains(&id)
    }

    /// Resources that are switched on, by ascending id.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Resource> {
        self.known.values().filter(|resource| {
            let is_disabled = self.disabled.contains(&resource.id());
            cover!("routing/disabled-skipped" if is_disabled);
            !is_disabled
        })
    }

    /// The list as a person sees it.
    pub(crate) fn views(&self, sites: &Sites) -> Vec<ResourceView> {
        let mut views = self
            .known
            .values()
            .map(|resource| {
                let status = sites.status_of(resource.sites());
                ResourceView::new(resource, status, !self.disabled.contains(&resource.id()))
            })
            .collect::<Vec<_>>();
        views.sort();

        views
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cidr, dns};
    use super::*;

    #[test]
    fn upsert_tells_apart_what_changed() {
        let mut resources = Resources::default();
        let resource = cidr(1, "10.0.0.0/8");
        assert_eq!(resources.upsert(resource.clone()), Upserted::Added);
        assert_eq!(resources.upsert(resource.clone()), Upserted::Unchanged);

        let Resource::Cidr(mut renamed) = resource else {
            unreachable!("made above")
        };
        renamed.name = "other".to_owned();
        assert_eq!(
            resources.upsert(Resource::Cidr(renamed)),
            Upserted::ViewOnly
        );
        assert_eq!(resources.upsert(cidr(1, "10.0.0.0/9")), Upserted::Replaced);
        assert_eq!(resources.upsert(dns(1, "example.com")), Upserted::Replaced);
    }

    // tunnel 10
    #[test]
    fn tunnel_10_disabling_unknown_or_disabled_ids_is_a_no_op() {
        let mut resources = Resources::default();
        let _ = resources.upsert(cidr(1, "10.0.0.0/8"));
        let (known, unknown) = (ResourceId::from_u128(1), ResourceId::from_u128(2));

        assert_eq!(
            resources.set_disabled(BTreeSet::from([known, unknown])),
            [known]
        );
        assert!(resources.set_disabled(BTreeSet::from([known])).is_empty());
        assert!(!resources.is_active(known));
        assert!(resources.set_disabled(BTreeSet::new()).is_empty());
        assert!(resources.is_active(known));
    }

    #[test]
    fn switch_is_remembered_before_the_resource_is_listed() {
        let mut resources = Resources::default();
        let id = ResourceId::from_u128(1);
        assert!(resources.set_disabled(BTreeSet::from([id])).is_empty());
        let _ = resources.upsert(cidr(1, "10.0.0.0/8"));
        assert!(!resources.is_active(id));
        assert_eq!(resources.active().count(), 0);
        assert!(!resources.views(&Sites::default())[0].enabled);
    }
}
