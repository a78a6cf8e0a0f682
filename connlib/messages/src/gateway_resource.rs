//! Resources as the gateway reads them (portal protocol §2.4). There is no catch-all: what a gateway does not understand
//! it must not open.

use connlib_model::{
    GatewayCidrResource, GatewayDnsResource, GatewayInternetResource, GatewayResource, ResourceId,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    filter::{self, WireFilter},
    lenient,
    resource::WireCidr,
};

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum WireResource {
    Dns {
        id: ResourceId,
        address: String,
        name: String,
        filters: Vec<WireFilter>,
    },
    Cidr {
        id: ResourceId,
        address: WireCidr,
        name: String,
        filters: Vec<WireFilter>,
    },
    Internet {
        id: ResourceId,
        #[serde(default, deserialize_with = "lenient::null_default")]
        filters: Vec<WireFilter>,
    },
}

pub(crate) fn serialize<S: Serializer>(
    resource: &GatewayResource,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    WireResource::from(resource).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<GatewayResource, D::Error> {
    WireResource::deserialize(deserializer).map(GatewayResource::from)
}

impl From<WireResource> for GatewayResource {
    fn from(wire: WireResource) -> Self {
        match wire {
            WireResource::Dns {
                id,
                address,
                name,
                filters,
            } => Self::Dns(GatewayDnsResource {
                id,
                address,
                name,
                filters: filter::from_wire(filters),
            }),
            WireResource::Cidr {
                id,
                address,
                name,
                filters,
            } => Self::Cidr(GatewayCidrResource {
                id,
                address: address.0,
                name,
                filters: filter::from_wire(filters),
            }),
            WireResource::Internet { id, filters } => Self::Internet(GatewayInternetResource {
                id,
                filters: filter::from_wire(filters),
            }),
        }
    }
}

impl From<&GatewayResource> for WireResource {
    fn from(resource: &GatewayResource) -> Self {
        match resource {
            GatewayResource::Dns(r) => Self::Dns {
                id: r.id,
                address: r.address.clone(),
                name: r.name.clone(),
                filters: filter::to_wire(&r.filters),
            },
            GatewayResource::Cidr(r) => Self::Cidr {
                id: r.id,
                address: WireCidr(r.address),
                name: r.name.clone(),
                filters: filter::to_wire(&r.filters),
            },
            GatewayResource::Internet(r) => Self::Internet {
                id: r.id,
                filters: filter::to_wire(&r.filters),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "9e0d4c1b-63a7-4f8e-b0c2-2b7f5d1a8e33";

    fn read(value: Value) -> Result<GatewayResource, serde_json::Error> {
        deserialize(value)
    }

    #[test]
    fn unknown_types_filters_and_missing_filters_are_errors() {
        let good = json!({"id": ID, "type": "dns", "address": "*.x", "name": "n", "filters": []});
        assert!(read(good.clone()).is_ok());
        for (member, value) in [
            ("type", json!("static_device_pool")),
            ("filters", json!([{"protocol": "sctp"}])),
            ("filters", Value::Null),
            ("address", json!(7)),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            assert!(read(bad).is_err(), "{member}");
        }
    }

    #[test]
    fn internet_needs_only_an_id() {
        let resource = read(json!({"id": ID, "type": "internet"})).unwrap();
        assert_eq!(resource.id().to_string(), ID);
        assert!(resource.filters().is_empty());
    }
}
