//! Messages between portal and gateway (portal protocol §4).

use std::net::{Ipv4Addr, Ipv6Addr};

use connlib_model::{ClientId, GatewayResource, ResourceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Authorization, Dialect, Empty, FlowLogs, GatewayInterface, IceCredentials, Key, Message,
    MessageError, PresharedKey, Relay, RelaysPresence, Secret, SnownetCapabilities,
    codec::{read, serde_as_event, unknown_name, write},
    gateway_resource, ice, lenient, relays,
};

/// The topic that a gateway joins.
pub const TOPIC: &str = "gateway";

/// What the portal sends to a gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum FromPortal {
    /// The full state; the first message after each join.
    Init(Box<Init>),
    /// Relays that went and that came.
    RelaysPresence(RelaysPresence),
    /// Let a client reach a resource, then answer with [`ToPortal::FlowAuthorized`].
    AuthorizeFlow(Box<AuthorizeFlow>),
    /// Take one resource away from one client.
    RejectAccess(RejectAccess),
    /// New filters of a resource.
    ResourceUpdated(ResourceUpdated),
    /// Candidates of a client.
    IceCandidates(ClientCandidates),
    /// Candidates of a client that are no longer valid.
    InvalidateIceCandidates(ClientCandidates),
    /// An event that is not known or not built; to be ignored.
    Unknown {
        /// Its name, cut to a safe length.
        event: String,
    },
}

/// What a gateway sends to the portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPortal {
    /// The authorization is applied; releases the client.
    FlowAuthorized(FlowAuthorized),
    /// New own candidates, for clients.
    BroadcastIceCandidates(CandidatesForClients),
    /// Own candidates that are no longer valid, for clients.
    BroadcastInvalidatedIceCandidates(CandidatesForClients),
    /// A relay is needed and none is known.
    NoRelays,
    /// What the connection layer can do; read, never sent.
    SetSnownetCapabilities(SnownetCapabilities),
    /// Traffic counts of some older gateways; read, never sent.
    Metrics,
    /// An event that is not known or not built.
    Unknown {
        /// Its name, cut to a safe length.
        event: String,
    },
}

/// The full state of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Tunnel addresses.
    pub interface: GatewayInterface,
    /// Whether to masquerade; portals always say yes.
    #[serde(default)]
    pub config: Config,
    /// All relays for this gateway.
    #[serde(default, with = "relays::list")]
    pub relays: Vec<Relay>,
    /// Name of the account, for telemetry; not used.
    #[serde(
        default,
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub account_slug: Option<String>,
    /// Everything that stays allowed; all else is revoked. `None` comes from an older portal and revokes nothing.
    #[serde(
        default,
        deserialize_with = "lenient::present_list",
        skip_serializing_if = "Option::is_none"
    )]
    pub authorizations: Option<Vec<Authorization>>,
    /// Required by newer gateways.
    #[serde(
        default,
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub flow_logs: Option<FlowLogs>,
}

/// Whether to masquerade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// For IPv4.
    pub ipv4_masquerade_enabled: bool,
    /// For IPv6.
    pub ipv6_masquerade_enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ipv4_masquerade_enabled: true,
            ipv6_masquerade_enabled: true,
        }
    }
}

/// Let a client reach a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizeFlow {
    /// To be echoed verbatim in [`FlowAuthorized`].
    #[serde(rename = "ref")]
    pub reference: String,
    /// Who.
    pub client: Client,
    /// The client's ICE credentials.
    pub client_ice_credentials: IceCredentials,
    /// The gateway's own ICE credentials.
    pub gateway_ice_credentials: IceCredentials,
    /// What.
    #[serde(with = "gateway_resource")]
    pub resource: GatewayResource,
    /// Until when, Unix seconds; `None` is for ever.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// What the gateway does not need and some generation of gateways wants to see.
    #[serde(flatten)]
    pub attribution: FlowAttribution,
    /// Whether both sides can do without ICE; not built, so false from our portal.
    #[serde(default)]
    pub use_iceless: bool,
}

/// The client of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Identity.
    pub id: ClientId,
    /// WireGuard key.
    pub public_key: Key,
    /// WireGuard preshared key of the pair.
    pub preshared_key: PresharedKey,
    /// Tunnel address.
    pub ipv4: Ipv4Addr,
    /// Tunnel address.
    pub ipv6: Ipv6Addr,
    /// What the device says of itself; for records only.
    #[serde(flatten)]
    pub device: Device,
}

/// What a client's device says of itself; all of it is for records only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Version of its program.
    #[serde(deserialize_with = "lenient::optional")]
    pub version: Option<String>,
    /// Serial number.
    #[serde(deserialize_with = "lenient::optional")]
    pub device_serial: Option<String>,
    /// Operating system.
    #[serde(deserialize_with = "lenient::optional")]
    pub device_os_name: Option<String>,
    /// Version of the operating system.
    #[serde(deserialize_with = "lenient::optional")]
    pub device_os_version: Option<String>,
    /// System UUID.
    #[serde(deserialize_with = "lenient::optional")]
    pub device_uuid: Option<String>,
    /// Android installation id.
    #[serde(deserialize_with = "lenient::optional")]
    pub firebase_installation_id: Option<String>,
    /// iOS vendor id.
    #[serde(deserialize_with = "lenient::optional")]
    pub identifier_for_vendor: Option<String>,
}

/// Members of [`AuthorizeFlow`] for records only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowAttribution {
    /// Identity of the flow.
    #[serde(
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub flow_id: Option<Uuid>,
    /// Who asked, as older portals write it.
    #[serde(
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub actor: Option<Actor>,
    /// Who asked, as newer portals write it.
    #[serde(
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub subject: Option<Subject>,
    /// Required by newer gateways; not used.
    #[serde(
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub flow_logs_ingest_token: Option<Secret>,
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Identity of the person or service.
    pub id: Uuid,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Name of the person or service.
    pub actor_name: String,
}

/// The authorization with this reference is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowAuthorized {
    /// From [`AuthorizeFlow::reference`].
    #[serde(rename = "ref")]
    pub reference: String,
}

/// Take one resource away from one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectAccess {
    /// From whom.
    pub client_id: ClientId,
    /// What.
    pub resource_id: ResourceId,
    /// Identity of the flow; newer portals leave it out, and it is not used.
    #[serde(
        default,
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub flow_id: Option<Uuid>,
}

/// New filters of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceUpdated {
    /// The resource with its new filters.
    #[serde(with = "gateway_resource")]
    pub resource: GatewayResource,
}

/// Candidates of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCandidates {
    /// Whose.
    pub client_id: ClientId,
    /// SDP candidate lines; others are skipped when reading.
    #[serde(deserialize_with = "ice::candidates")]
    pub candidates: Vec<String>,
}

/// Own candidates for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidatesForClients {
    /// For whom.
    #[serde(deserialize_with = "lenient::list")]
    pub client_ids: Vec<ClientId>,
    /// SDP candidate lines without duplicates.
    #[serde(deserialize_with = "ice::candidates")]
    pub candidates: Vec<String>,
}

impl Message for FromPortal {
    fn parse(event: &str, payload: Value) -> Result<Self, MessageError> {
        Ok(match event {
            "init" => Self::Init(read("init", payload)?),
            "relays_presence" => Self::RelaysPresence(read("relays_presence", payload)?),
            "authorize_flow" | "create_authorization" => {
                Self::AuthorizeFlow(read("authorize_flow", payload)?)
            }
            "reject_access" => Self::RejectAccess(read("reject_access", payload)?),
            "resource_updated" => Self::ResourceUpdated(read("resource_updated", payload)?),
            "ice_candidates" | "client_ice_candidates" => {
                Self::IceCandidates(read("ice_candidates", payload)?)
            }
            "invalidate_ice_candidates" | "invalidate_client_ice_candidates" => {
                Self::InvalidateIceCandidates(read("invalidate_ice_candidates", payload)?)
            }
            other => Self::Unknown {
                event: unknown_name(other),
            },
        })
    }

    fn event(&self, dialect: Dialect) -> &str {
        match (self, dialect) {
            (Self::Init(_), _) => "init",
            (Self::RelaysPresence(_), _) => "relays_presence",
            (Self::AuthorizeFlow(_), Dialect::Unversioned) => "authorize_flow",
            (Self::AuthorizeFlow(_), Dialect::V2) => "create_authorization",
            (Self::RejectAccess(_), _) => "reject_access",
            (Self::ResourceUpdated(_), _) => "resource_updated",
            (Self::IceCandidates(_), _) => "ice_candidates",
            (Self::InvalidateIceCandidates(_), _) => "invalidate_ice_candidates",
            (Self::Unknown { event }, _) => event,
        }
    }

    fn payload(&self) -> Value {
        match self {
            Self::Init(m) => write(m),
            Self::RelaysPresence(m) => write(m),
            Self::AuthorizeFlow(m) => write(m),
            Self::RejectAccess(m) => write(m),
            Self::ResourceUpdated(m) => write(m),
            Self::IceCandidates(m) | Self::InvalidateIceCandidates(m) => write(m),
            Self::Unknown { .. } => write(&Empty {}),
        }
    }
}

impl Message for ToPortal {
    fn parse(event: &str, payload: Value) -> Result<Self, MessageError> {
        Ok(match event {
            "flow_authorized" | "authorization_created" => {
                Self::FlowAuthorized(read("flow_authorized", payload)?)
            }
            "broadcast_ice_candidates" => {
                Self::BroadcastIceCandidates(read("broadcast_ice_candidates", payload)?)
            }
            "broadcast_invalidated_ice_candidates" => Self::BroadcastInvalidatedIceCandidates(
                read("broadcast_invalidated_ice_candidates", payload)?,
            ),
            "no_relays" => Self::NoRelays,
            "set_snownet_capabilities" => {
                Self::SetSnownetCapabilities(read("set_snownet_capabilities", payload)?)
            }
            "metrics" => Self::Metrics,
            other => Self::Unknown {
                event: unknown_name(other),
            },
        })
    }

    fn event(&self, dialect: Dialect) -> &str {
        match (self, dialect) {
            (Self::FlowAuthorized(_), Dialect::Unversioned) => "flow_authorized",
            (Self::FlowAuthorized(_), Dialect::V2) => "authorization_created",
            (Self::BroadcastIceCandidates(_), _) => "broadcast_ice_candidates",
            (Self::BroadcastInvalidatedIceCandidates(_), _) => {
                "broadcast_invalidated_ice_candidates"
            }
            (Self::NoRelays, _) => "no_relays",
            (Self::SetSnownetCapabilities(_), _) => "set_snownet_capabilities",
            (Self::Metrics, _) => "metrics",
            (Self::Unknown { event }, _) => event,
        }
    }

    fn payload(&self) -> Value {
        match self {
            Self::FlowAuthorized(m) => write(m),
            Self::BroadcastIceCandidates(m) | Self::BroadcastInvalidatedIceCandidates(m) => {
                write(m)
            }
            Self::SetSnownetCapabilities(m) => write(m),
            Self::NoRelays | Self::Metrics | Self::Unknown { .. } => write(&Empty {}),
        }
    }
}

serde_as_event!(FromPortal);
serde_as_event!(ToPortal);
