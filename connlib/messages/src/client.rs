//! Messages between portal and client (portal protocol §3).

use std::net::{Ipv4Addr, Ipv6Addr};

use connlib_model::{GatewayId, Resource, ResourceId, SiteId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Authorization, ClientInterface, Dialect, Empty, FailureReason, FlowLogs, IceCredentials, Key,
    Message, MessageError, PresharedKey, Relay, RelaysPresence, Secret, SnownetCapabilities,
    ViolatedProperty,
    codec::{read, serde_as_event, unknown_name, write},
    ice, lenient, relays, resource,
};

/// The topic that a client joins.
pub const TOPIC: &str = "client";

/// What the portal sends to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum FromPortal {
    /// The full state; the first message after each join, and again whenever the portal likes.
    Init(Box<Init>),
    /// A new resource, or a new version of a known one.
    ResourceCreatedOrUpdated(Resource),
    /// The resource is gone or no longer for this client.
    ResourceDeleted(ResourceId),
    /// New resolvers or addresses.
    ConfigChanged(ConfigChanged),
    /// Relays that went and that came.
    RelaysPresence(RelaysPresence),
    /// A gateway waits for a connection.
    FlowCreated(Box<FlowCreated>),
    /// Nobody does.
    FlowCreationFailed(FlowCreationFailed),
    /// Candidates of a gateway.
    IceCandidates(GatewayCandidates),
    /// Candidates of a gateway that are no longer valid.
    InvalidateIceCandidates(GatewayCandidates),
    /// An event, or a type of resource, that is not known or not built; to be ignored.
    Unknown {
        /// Its name, cut to a safe length.
        event: String,
    },
}

/// What a client sends to the portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPortal {
    /// Asks for access to a resource.
    CreateFlow(CreateFlow),
    /// New own candidates, for gateways.
    BroadcastIceCandidates(CandidatesForGateways),
    /// Own candidates that are no longer valid, for gateways.
    BroadcastInvalidatedIceCandidates(CandidatesForGateways),
    /// A relay is needed and none is known.
    NoRelays,
    /// What the connection layer can do; read, never sent.
    SetSnownetCapabilities(SnownetCapabilities),
    /// An event that is not known or not built.
    Unknown {
        /// Its name, cut to a safe length.
        event: String,
    },
}

/// The full state of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// Addresses and resolvers; replaces what was known.
    pub interface: ClientInterface,
    /// All resources; others are gone. Entries that cannot be used are skipped.
    #[serde(default, with = "resource::list")]
    pub resources: Vec<Resource>,
    /// All relays for this client.
    #[serde(default, with = "relays::list")]
    pub relays: Vec<Relay>,
    /// Inbound client-to-client authorizations; always empty from our portal and not used.
    #[serde(default, deserialize_with = "lenient::list")]
    pub authorizations: Vec<Authorization>,
    /// Required by newer clients.
    #[serde(
        default,
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub flow_logs: Option<FlowLogs>,
}

/// New resolvers or addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChanged {
    /// Replaces what was known.
    pub interface: ClientInterface,
}

/// A gateway that was told to accept this client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCreated {
    /// What was asked for.
    pub resource_id: ResourceId,
    /// Who serves it.
    pub gateway_id: GatewayId,
    /// In which site.
    #[serde(rename = "gateway_group_id", alias = "site_id")]
    pub site_id: SiteId,
    /// The gateway's WireGuard key.
    pub gateway_public_key: Key,
    /// WireGuard preshared key of the pair.
    pub preshared_key: PresharedKey,
    /// The client's own ICE credentials.
    pub client_ice_credentials: IceCredentials,
    /// The gateway's ICE credentials.
    pub gateway_ice_credentials: IceCredentials,
    /// The gateway's tunnel address; portals before February 2025 do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ipv4: Option<Ipv4Addr>,
    /// The gateway's tunnel address; portals before February 2025 do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ipv6: Option<Ipv6Addr>,
    /// Whether both sides can do without ICE; not built, so false from our portal.
    #[serde(default)]
    pub use_iceless: bool,
    /// Required by newer clients; not used.
    #[serde(
        default,
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub flow_logs_ingest_token: Option<Secret>,
}

/// Why there is no flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCreationFailed {
    /// What was asked for.
    pub resource_id: ResourceId,
    /// Why not.
    #[serde(default = "unknown_reason")]
    pub reason: FailureReason,
    /// With `forbidden`: which conditions are not met.
    #[serde(
        default,
        deserialize_with = "lenient::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub violated_properties: Vec<ViolatedProperty>,
}

fn unknown_reason() -> FailureReason {
    FailureReason::Unknown
}

/// Candidates of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayCandidates {
    /// Whose.
    pub gateway_id: GatewayId,
    /// SDP candidate lines; others are skipped when reading.
    #[serde(deserialize_with = "ice::candidates")]
    pub candidates: Vec<String>,
}

/// Asks for access to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateFlow {
    /// Which.
    pub resource_id: ResourceId,
    /// Gateways that are already in use, the preferred one first.
    #[serde(default, deserialize_with = "lenient::list")]
    pub connected_gateway_ids: Vec<GatewayId>,
}

/// Own candidates for gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidatesForGateways {
    /// For whom.
    #[serde(deserialize_with = "lenient::list")]
    pub gateway_ids: Vec<GatewayId>,
    /// SDP candidate lines without duplicates.
    #[serde(deserialize_with = "ice::candidates")]
    pub candidates: Vec<String>,
}

/// The newer form of [`CandidatesForGateways`]: one gateway.
impl From<GatewayCandidates> for CandidatesForGateways {
    fn from(one: GatewayCandidates) -> Self {
        Self {
            gateway_ids: vec![one.gateway_id],
            candidates: one.candidates,
        }
    }
}

impl Message for FromPortal {
    fn parse(event: &str, payload: Value) -> Result<Self, MessageError> {
        Ok(match event {
            "init" => Self::Init(read("init", payload)?),
            "resource_created_or_updated" => {
                let event = "resource_created_or_updated";
                let resource =
                    resource::read(payload).map_err(|source| MessageError { event, source })?;
                resource.map_or_else(|| unknown(event), Self::ResourceCreatedOrUpdated)
            }
            "resource_deleted" => Self::ResourceDeleted(read("resource_deleted", payload)?),
            "config_changed" => Self::ConfigChanged(read("config_changed", payload)?),
            "relays_presence" => Self::RelaysPresence(read("relays_presence", payload)?),
            "flow_created" | "authorization_created" => {
                Self::FlowCreated(read("flow_created", payload)?)
            }
            "flow_creation_failed" | "authorization_creation_failed" => {
                Self::FlowCreationFailed(read("flow_creation_failed", payload)?)
            }
            "ice_candidates" | "gateway_ice_candidates" => {
                Self::IceCandidates(read("ice_candidates", payload)?)
            }
            "invalidate_ice_candidates" | "invalidate_gateway_ice_candidates" => {
                Self::InvalidateIceCandidates(read("invalidate_ice_candidates", payload)?)
            }
            other => unknown(other),
        })
    }

    fn event(&self, dialect: Dialect) -> &str {
        match (self, dialect) {
            (Self::Init(_), _) => "init",
            (Self::ResourceCreatedOrUpdated(_), _) => "resource_created_or_updated",
            (Self::ResourceDeleted(_), _) => "resource_deleted",
            (Self::ConfigChanged(_), _) => "config_changed",
            (Self::RelaysPresence(_), _) => "relays_presence",
            (Self::FlowCreated(_), Dialect::Unversioned) => "flow_created",
            (Self::FlowCreated(_), Dialect::V2) => "authorization_created",
            (Self::FlowCreationFailed(_), Dialect::Unversioned) => "flow_creation_failed",
            (Self::FlowCreationFailed(_), Dialect::V2) => "authorization_creation_failed",
            (Self::IceCandidates(_), _) => "ice_candidates",
            (Self::InvalidateIceCandidates(_), _) => "invalidate_ice_candidates",
            (Self::Unknown { event }, _) => event,
        }
    }

    fn payload(&self) -> Value {
        match self {
            Self::Init(m) => write(m),
            Self::ResourceCreatedOrUpdated(m) => write(&resource::write(m)),
            Self::ResourceDeleted(m) => write(m),
            Self::ConfigChanged(m) => write(m),
            Self::RelaysPresence(m) => write(m),
            Self::FlowCreated(m) => write(m),
            Self::FlowCreationFailed(m) => write(m),
            Self::IceCandidates(m) | Self::InvalidateIceCandidates(m) => write(m),
            Self::Unknown { .. } => write(&Empty {}),
        }
    }
}

fn unknown(event: &str) -> FromPortal {
    FromPortal::Unknown {
        event: unknown_name(event),
    }
}

impl Message for ToPortal {
    fn parse(event: &str, payload: Value) -> Result<Self, MessageError> {
        Ok(match event {
            "create_flow" | "request_authorization" => {
                Self::CreateFlow(read("create_flow", payload)?)
            }
            "broadcast_ice_candidates" => {
                Self::BroadcastIceCandidates(read("broadcast_ice_candidates", payload)?)
            }
            "new_gateway_ice_candidates" => Self::BroadcastIceCandidates(
                read::<GatewayCandidates>("new_gateway_ice_candidates", payload)?.into(),
            ),
            "broadcast_invalidated_ice_candidates" => Self::BroadcastInvalidatedIceCandidates(
                read("broadcast_invalidated_ice_candidates", payload)?,
            ),
            "invalidate_gateway_ice_candidates" => Self::BroadcastInvalidatedIceCandidates(
                read::<GatewayCandidates>("invalidate_gateway_ice_candidates", payload)?.into(),
            ),
            "no_relays" => Self::NoRelays,
            "set_snownet_capabilities" => {
                Self::SetSnownetCapabilities(read("set_snownet_capabilities", payload)?)
            }
            other => Self::Unknown {
                event: unknown_name(other),
            },
        })
    }

    fn event(&self, dialect: Dialect) -> &str {
        match (self, dialect) {
            (Self::CreateFlow(_), Dialect::Unversioned) => "create_flow",
            (Self::CreateFlow(_), Dialect::V2) => "request_authorization",
            (Self::BroadcastIceCandidates(_), _) => "broadcast_ice_candidates",
            (Self::BroadcastInvalidatedIceCandidates(_), _) => {
                "broadcast_invalidated_ice_candidates"
            }
            (Self::NoRelays, _) => "no_relays",
            (Self::SetSnownetCapabilities(_), _) => "set_snownet_capabilities",
            (Self::Unknown { event }, _) => event,
        }
    }

    fn payload(&self) -> Value {
        match self {
            Self::CreateFlow(m) => write(m),
            Self::BroadcastIceCandidates(m) | Self::BroadcastInvalidatedIceCandidates(m) => {
                write(m)
            }
            Self::SetSnownetCapabilities(m) => write(m),
            Self::NoRelays | Self::Unknown { .. } => write(&Empty {}),
        }
    }
}

serde_as_event!(FromPortal);
serde_as_event!(ToPortal);
