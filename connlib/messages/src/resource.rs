//! Resources as the client reads them (portal protocol §2.3).

use connlib_model::{
    CidrResource, DnsResource, INTERNET_RESOURCE_NAME, InternetResource, IpNet, IpStack, Resource,
    ResourceId, Site,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use crate::{
    filter::{self, WireFilter},
    lenient,
};

/// Types of newer portals that are known and not built (client-to-client), beside those that nobody knows yet.
const BUILT: [&str; 3] = ["dns", "cidr", "internet"];

/// The sites are written under their older name, which every generation reads; both are read.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum WireResource {
    Dns {
        id: ResourceId,
        address: String,
        name: String,
        #[serde(default)]
        address_description: Option<String>,
        #[serde(alias = "sites")]
        gateway_groups: Vec<Site>,
        #[serde(default, deserialize_with = "lenient::null_default")]
        filters: Vec<WireFilter>,
        #[serde(default, deserialize_with = "lenient::null_default")]
        ip_stack: WireIpStack,
    },
    Cidr {
        id: ResourceId,
        address: WireCidr,
        name: String,
        #[serde(default)]
        address_description: Option<String>,
        #[serde(alias = "sites")]
        gateway_groups: Vec<Site>,
        #[serde(default, deserialize_with = "lenient::null_default")]
        filters: Vec<WireFilter>,
    },
    Internet {
        id: ResourceId,
        #[serde(default)]
        name: Option<String>,
        #[serde(alias = "sites")]
        gateway_groups: Vec<Site>,
        /// A hint for user interfaces; not used here.
        #[serde(default, deserialize_with = "lenient::optional")]
        can_be_disabled: Option<bool>,
    },
}

#[derive(Serialize, Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum WireIpStack {
    #[default]
    Dual,
    Ipv4Only,
    Ipv6Only,
}

/// A network that must have a prefix length and no host bits.
pub(crate) struct WireCidr(pub(crate) IpNet);

impl<'de> Deserialize<'de> for WireCidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let net: IpNet = text
            .parse()
            .map_err(|_| D::Error::custom("address is not a network like 10.0.0.0/16"))?;
        if net.trunc() != net {
            return Err(D::Error::custom("network address has host bits"));
        }
        Ok(Self(net))
    }
}

impl Serialize for WireCidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Reads one resource; `None` is a type that is not built.
pub(crate) fn read(value: Value) -> Result<Option<Resource>, serde_json::Error> {
    let kind = value.get("type").and_then(Value::as_str);
    if let Some(kind) = kind.filter(|kind| !BUILT.contains(kind)) {
        tracing::debug!(kind, "skipping a resource of an unknown type");
        return Ok(None);
    }
    serde_json::from_value::<WireResource>(value).map(|wire| Some(wire.into()))
}

/// Writes one resource.
pub(crate) fn write(resource: &Resource) -> impl Serialize + use<> {
    WireResource::from(resource)
}

/// Serde for lists of resources: `#[serde(with = "resource::list")]`.
pub(crate) mod list {
    use super::{Deserializer, Resource, Serialize, Serializer, WireResource, lenient, read};

    pub(crate) fn serialize<S: Serializer>(
        resources: &[Resource],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let wire: Vec<_> = resources.iter().map(WireResource::from).collect();
        wire.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Resource>, D::Error> {
        lenient::list_with(deserializer, read)
    }
}

impl From<WireResource> for Resource {
    fn from(wire: WireResource) -> Self {
        match wire {
            WireResource::Dns {
                id,
                address,
                name,
                address_description,
                gateway_groups,
                filters,
                ip_stack,
            } => Self::Dns(DnsResource {
                id,
                address,
                name,
                address_description,
                sites: gateway_groups,
                filters: filter::from_wire(filters),
                ip_stack: ip_stack.into(),
            }),
            WireResource::Cidr {
                id,
                address,
                name,
                address_description,
                gateway_groups,
                filters,
            } => Self::Cidr(CidrResource {
                id,
                address: address.0,
                name,
                address_description,
                sites: gateway_groups,
                filters: filter::from_wire(filters),
            }),
            WireResource::Internet {
                id,
                name,
                gateway_groups,
                can_be_disabled: _,
            } => Self::Internet(InternetResource {
                id,
                name: name.unwrap_or_else(|| INTERNET_RESOURCE_NAME.to_owned()),
                sites: gateway_groups,
            }),
        }
    }
}

impl From<&Resource> for WireResource {
    fn from(resource: &Resource) -> Self {
        match resource {
            Resource::Dns(r) => Self::Dns {
                id: r.id,
                address: r.address.clone(),
                name: r.name.clone(),
                address_description: r.address_description.clone(),
                gateway_groups: r.sites.clone(),
                filters: filter::to_wire(&r.filters),
                ip_stack: r.ip_stack.into(),
            },
            Resource::Cidr(r) => Self::Cidr {
                id: r.id,
                address: WireCidr(r.address),
                name: r.name.clone(),
                address_description: r.address_description.clone(),
                gateway_groups: r.sites.clone(),
                filters: filter::to_wire(&r.filters),
            },
            Resource::Internet(r) => Self::Internet {
                id: r.id,
                name: Some(r.name.clone()),
                gateway_groups: r.sites.clone(),
                can_be_disabled: Some(true),
            },
        }
    }
}

impl From<WireIpStack> for IpStack {
    fn from(wire: WireIpStack) -> Self {
        match wire {
            WireIpStack::Dual => Self::Dual,
            WireIpStack::Ipv4Only => Self::Ipv4Only,
            WireIpStack::Ipv6Only => Self::Ipv6Only,
        }
    }
}

impl From<IpStack> for WireIpStack {
    fn from(stack: IpStack) -> Self {
        match stack {
            IpStack::Dual => Self::Dual,
            IpStack::Ipv4Only => Self::Ipv4Only,
            IpStack::Ipv6Only => Self::Ipv6Only,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "9e0d4c1b-63a7-4f8e-b0c2-2b7f5d1a8e33";

    fn cidr(address: &str) -> Value {
        json!({"id": ID, "type": "cidr", "address": address, "name": "Lab", "filters": [],
            "gateway_groups": [{"id": ID, "name": "Berlin"}]})
    }

    fn with(mut resource: Value, member: &str, value: Value) -> Value {
        resource[member] = value;
        resource
    }

    fn read_list(value: Value) -> Vec<Resource> {
        list::deserialize(value).unwrap()
    }

    // portal 49
    #[test]
    fn portal_49_prefix_is_needed_and_host_bits_are_refused() {
        assert!(read(cidr("10.40.0.0/16")).unwrap().is_some());
        assert!(read(cidr("2001:db8::/32")).unwrap().is_some());
        for bad in [
            "10.40.0.0",
            "10.40.0.1/16",
            "2001:db8::1/32",
            "10.0.0.0/33",
            "",
        ] {
            assert!(read(cidr(bad)).is_err(), "{bad}");
        }
    }

    // portal 50, portal 51
    // tunnel 11
    #[test]
    fn portal_50_51_bad_entries_cost_only_themselves() {
        let unknown = with(cidr("10.0.0.0/8"), "type", json!("static_device_pool"));
        let mut untyped = cidr("10.0.0.0/8");
        untyped.as_object_mut().unwrap().remove("type");
        let mut nameless = cidr("10.0.0.0/8");
        nameless.as_object_mut().unwrap().remove("name");
        let sctp = with(cidr("10.0.0.0/8"), "filters", json!([{"protocol": "sctp"}]));
        let entries = json!([
            unknown,
            untyped,
            nameless,
            sctp,
            7,
            null,
            "x",
            cidr("10.1.0.0/16")
        ]);
        let resources = read_list(entries);
        assert_eq!(resources.len(), 1);
        assert_eq!(resources[0].address_string().unwrap(), "10.1.0.0/16");
    }

    // portal 52
    #[test]
    fn portal_52_sites_under_both_names_but_not_twice() {
        let old = cidr("10.0.0.0/8");
        let mut new = old.clone();
        let sites = new
            .as_object_mut()
            .unwrap()
            .remove("gateway_groups")
            .unwrap();
        new["sites"] = sites.clone();
        assert_eq!(read(old.clone()).unwrap(), read(new).unwrap());
        assert!(read(with(old, "sites", sites)).is_err());
    }

    // portal 53
    #[test]
    fn portal_53_internet_resource_has_a_default_name() {
        let internet =
            json!({"id": ID, "type": "internet", "gateway_groups": [], "can_be_disabled": true});
        let resource = read(internet.clone()).unwrap().unwrap();
        assert_eq!(resource.name(), "Internet Resource");
        let named = read(with(internet, "name", json!("Egress")))
            .unwrap()
            .unwrap();
        assert_eq!(named.name(), "Egress");
    }

    // portal 54
    #[test]
    fn portal_54_description_null_absent_or_text() {
        let described = |value| {
            let resource = read(with(cidr("10.0.0.0/8"), "address_description", value));
            resource
                .unwrap()
                .unwrap()
                .address_description()
                .map(str::to_owned)
        };
        assert_eq!(
            read(cidr("10.0.0.0/8"))
                .unwrap()
                .unwrap()
                .address_description(),
            None
        );
        assert_eq!(described(Value::Null), None);
        assert_eq!(described(json!("lab")), Some("lab".to_owned()));
    }

    #[test]
    fn ip_stack_defaults_to_dual() {
        let dns = with(
            with(cidr("x"), "type", json!("dns")),
            "address",
            json!("*.x.y"),
        );
        let stack = |value: Value| match read(with(dns.clone(), "ip_stack", value)).unwrap() {
            Some(Resource::Dns(dns)) => dns.ip_stack,
            other => panic!("{other:?}"),
        };
        assert_eq!(stack(Value::Null), IpStack::Dual);
        assert_eq!(stack(json!("ipv4_only")), IpStack::Ipv4Only);
        assert_eq!(stack(json!("ipv6_only")), IpStack::Ipv6Only);
    }
}
