//! What a person sees of a resource: its view, its status, and the order of the list.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{Resource, ResourceId, Site};

/// Whether a resource can be reached, as far as is known.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum ResourceStatus {
    /// Nobody tried yet, or the connection ended.
    #[default]
    Unknown,
    /// A connection to a gateway of one of its sites is up.
    Online,
    /// The portal says that no gateway of its sites is there.
    Offline,
}

impl ResourceStatus {
    /// The status of a resource from the statuses of its sites (tunnel specification §3.15): any online makes it
    /// online, all offline make it offline, and without sites nothing is known.
    pub fn of_sites(sites: impl IntoIterator<Item = Self>) -> Self {
        let mut all_offline = None;
        for status in sites {
            match status {
                Self::Online => return Self::Online,
                Self::Offline => all_offline = Some(all_offline.unwrap_or(true)),
                Self::Unknown => all_offline = Some(false),
            }
        }
        if all_offline == Some(true) {
            Self::Offline
        } else {
            Self::Unknown
        }
    }
}

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKind {
    /// A network.
    Cidr,
    /// Names that match a pattern.
    Dns,
    /// Everything else.
    Internet,
}

/// One line of the list of resources that a person sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceView {
    /// Identity.
    pub id: ResourceId,
    /// Which kind.
    pub kind: ResourceKind,
    /// Display name.
    pub name: String,
    /// Network or pattern as text; `None` for the internet.
    pub address: Option<String>,
    /// The hint of whoever made the resource.
    pub address_description: Option<String>,
    /// The sites whose gateways serve it.
    pub sites: Vec<Site>,
    /// Whether it can be reached.
    pub status: ResourceStatus,
    /// False when its user switched it off.
    pub enabled: bool,
}

impl ResourceView {
    /// The view of `resource`.
    pub fn new(resource: &Resource, status: ResourceStatus, enabled: bool) -> Self {
        Self {
            id: resource.id(),
            kind: resource.kind(),
            name: resource.name().to_owned(),
            address: resource.address_string(),
            address_description: resource.address_description().map(str::to_owned),
            sites: resource.sites().to_vec(),
            status,
            enabled,
        }
    }

    /// The order of the list (tunnel specification §3.1): the internet first, then by name in plain byte order, then by
    /// id.
    pub fn list_order(&self, other: &Self) -> Ordering {
        let key = |view: &Self| view.kind != ResourceKind::Internet;
        key(self)
            .cmp(&key(other))
            .then_with(|| self.name.as_bytes().cmp(other.name.as_bytes()))
            .then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for ResourceView {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ResourceView {
    /// [`ResourceView::list_order`], then everything else, so that equal order means equal views.
    fn cmp(&self, other: &Self) -> Ordering {
        let rest = |v: &Self| (v.kind, v.status, v.enabled);
        self.list_order(other)
            .then_with(|| rest(self).cmp(&rest(other)))
            .then_with(|| self.address.cmp(&other.address))
            .then_with(|| self.address_description.cmp(&other.address_description))
            .then_with(|| self.sites.cmp(&other.sites))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_sites() {
        use ResourceStatus::{Offline, Online, Unknown};
        assert_eq!(ResourceStatus::of_sites([]), Unknown);
        assert_eq!(ResourceStatus::of_sites([Offline, Online]), Online);
        assert_eq!(ResourceStatus::of_sites([Offline, Offline]), Offline);
        assert_eq!(ResourceStatus::of_sites([Offline, Unknown]), Unknown);
        assert_eq!(ResourceStatus::of_sites([Unknown, Offline]), Unknown);
    }

    fn view(id: u128, kind: ResourceKind, name: &str) -> ResourceView {
        ResourceView {
            id: ResourceId::from_u128(id),
            kind,
            name: name.to_owned(),
            address: None,
            address_description: None,
            sites: vec![],
            status: ResourceStatus::Unknown,
            enabled: true,
        }
    }

    // tunnel 12
    #[test]
    fn tunnel_12_view_order() {
        use ResourceKind::{Cidr, Dns, Internet};
        let expected = [
            view(9, Internet, "zzz"),
            view(1, Cidr, "*.example.com"),
            view(2, Dns, "10.0.0.0/8"),
            view(3, Dns, "Beta"),
            view(4, Cidr, "Zeta"),
            view(5, Cidr, "alpha"),
            view(6, Dns, "alpha"),
            view(7, Dns, "🎉 party"),
        ];
        let mut shuffled: Vec<_> = expected.iter().rev().cloned().collect();
        shuffled.swap(1, 5);
        shuffled.sort();
        assert_eq!(shuffled, expected);
    }
}
