//! Resources as a gateway sees them: no sites, no hints, but always the filters.

use ipnet::IpNet;

use crate::{Filter, ResourceId};

/// Something that a gateway lets a client reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayResource {
    /// A network.
    Cidr(GatewayCidrResource),
    /// Names that match a pattern.
    Dns(GatewayDnsResource),
    /// Everything else.
    Internet(GatewayInternetResource),
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayCidrResource {
    /// Identity.
    pub id: ResourceId,
    /// The network, without host bits.
    pub address: IpNet,
    /// For logs at debug level.
    pub name: String,
    /// What is permitted; empty permits everything.
    pub filters: Vec<Filter>,
}

/// Names that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayDnsResource {
    /// Identity.
    pub id: ResourceId,
    /// The pattern as written; compile it with [`crate::DnsPattern`].
    pub address: String,
    /// For logs at debug level.
    pub name: String,
    /// What is permitted; empty permits everything.
    pub filters: Vec<Filter>,
}

/// Every destination outside the tunnel's own ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayInternetResource {
    /// Identity.
    pub id: ResourceId,
    /// Sent by the portal as an empty list; kept so that a portal may restrict it.
    pub filters: Vec<Filter>,
}

impl GatewayResource {
    /// Identity.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Cidr(r) => r.id,
            Self::Dns(r) => r.id,
            Self::Internet(r) => r.id,
        }
    }

    /// What is permitted; empty permits everything.
    pub fn filters(&self) -> &[Filter] {
        match self {
            Self::Cidr(r) => &r.filters,
            Self::Dns(r) => &r.filters,
            Self::Internet(r) => &r.filters,
        }
    }
}
