//! Authorizations: which client may reach which resource through which gateway (portal protocol §7.6).
//!
//! The list outlives connections and restarts, so that a gateway's `init` names everything that is still allowed and an
//! access that ended while the gateway was away ends on its return. Each entry remembers what it was granted on (its
//! [`Basis`]): when that changes, the entry ends.

use std::{collections::BTreeMap, fmt, str::FromStr};

use connlib_model::{ClientId, GatewayId, ResourceId};
use uuid::Uuid;

use crate::{
    config::{Config, PolicyId},
    derive::hmac_sha256,
    token::TokenHash,
};

/// A client may reach a resource through a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Through which gateway.
    pub gateway: GatewayId,
    /// Who.
    pub client: ClientId,
    /// What.
    pub resource: ResourceId,
    /// Identity, for records ("flow id").
    pub flow_id: Uuid,
    /// The policy that granted it.
    pub policy: PolicyId,
    /// The client's token at that time.
    pub token: TokenHash,
    /// What policy and resource looked like.
    pub basis: Basis,
    /// When it ends, Unix seconds; `None` is never.
    pub expires_at: Option<u64>,
}

/// A fingerprint of the parts of policy and resource that an authorization rests on. Names and filters are not part of
/// it: they change in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Basis(u64);

impl Basis {
    /// The fingerprint now; `None` when policy or resource is gone.
    pub(crate) fn of(config: &Config, policy: PolicyId, resource: ResourceId) -> Option<Self> {
        let policy = config.policies.get(&policy)?;
        let resource = config.resources.get(&resource)?;
        let text = format!(
            "{:?}|{:?}|{:?}|{:?}",
            policy.resource, policy.conditions, resource.target, resource.sites
        );
        let digest = hmac_sha256(b"basis", &[text.as_bytes()]);
        let first = digest.first_chunk().expect("a digest has 32 bytes");
        Some(Self(u64::from_be_bytes(*first)))
    }
}

impl fmt::Display for Basis {
    /// 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Basis {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Authorization {
    pub(crate) fn is_expired(&self, unix: u64) -> bool {
        self.expires_at.is_some_and(|end| end <= unix)
    }

    pub(crate) const fn key(&self) -> Key {
        (self.gateway, self.client, self.resource)
    }
}

pub(crate) type Key = (GatewayId, ClientId, ResourceId);

/// All authorizations. Bounded by the numbers of devices and resources.
#[derive(Debug, Default)]
pub(crate) struct Authorizations(BTreeMap<Key, Authorization>);

impl Authorizations {
    pub(crate) fn new(stored: impl IntoIterator<Item = Authorization>) -> Self {
        let entries = stored.into_iter();
        Self(entries.map(|entry| (entry.key(), entry)).collect())
    }

    /// Adds or replaces; false if the same was there.
    pub(crate) fn put(&mut self, entry: Authorization) -> bool {
        self.0.insert(entry.key(), entry.clone()) != Some(entry)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Authorization> {
        self.0.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Of one gateway, in the order of clients and resources.
    pub(crate) fn of_gateway(&self, gateway: GatewayId) -> impl Iterator<Item = &Authorization> {
        let first = (gateway, ClientId::from_u128(0), ResourceId::from_u128(0));
        self.0
            .range(first..)
            .map(|(_, entry)| entry)
            .take_while(move |entry| entry.gateway == gateway)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Authorization> {
        self.0.values()
    }

    /// Takes out what `ended` says.
    pub(crate) fn extract(&mut self, ended: impl Fn(&Authorization) -> bool) -> Vec<Authorization> {
        self.0
            .extract_if(.., |_, entry| ended(entry))
            .map(|(_, entry)| entry)
            .collect()
    }
}
