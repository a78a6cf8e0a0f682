//! Ids and names that follow from indices.

use connlib_model::{ResourceId, SiteId};
use portal_core::config::{PersonId, PolicyId};
use uuid::Uuid;

const RESOURCES: u128 = 0x0200_0000;
const SITES: u128 = 0x0300_0000;

/// The site's id.
pub fn site(index: usize) -> SiteId {
    SiteId::from_u128(SITES + index as u128)
}

/// The resource's id.
pub fn resource(index: usize) -> ResourceId {
    ResourceId::from_u128(RESOURCES + index as u128)
}

/// The index of a resource's id.
pub fn resource_index(id: ResourceId) -> Option<usize> {
    usize::try_from(id.as_u128().checked_sub(RESOURCES)?).ok()
}

/// The person that a client belongs to.
pub fn person(client: usize) -> PersonId {
    PersonId(Uuid::from_u128(0x0400_0000 + client as u128))
}

/// The policy that lets a client reach a resource.
pub fn policy(client: usize, resource: usize) -> PolicyId {
    PolicyId(Uuid::from_u128(
        0x0500_0000 + ((client as u128) << 16) + resource as u128,
    ))
}

/// The resource's display name.
pub fn resource_name(index: usize) -> String {
    format!("resource {index}")
}

/// The site's display name.
pub fn site_name(index: usize) -> String {
    format!("site {index}")
}
