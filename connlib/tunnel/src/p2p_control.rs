//! Control events between client and gateway, sent as packets inside the tunnel (tunnel spec §4).
//!
//! Events are unordered, unacknowledged and idempotent. Type and payload travel in an IPv6 packet from `::` to `::`
//! with next header 255, which [`ip_packet`] recognises and builds; this module knows the payloads. Such packets never
//! reach a TUN device.

use std::net::IpAddr;

use connlib_model::{DomainName, ResourceId};
use ip_packet::{BuildError, Control, IpPacket, make};
use serde::{Deserialize, Serialize};

const ASSIGNED_IPS: u8 = 0;
const DOMAIN_STATUS: u8 = 1;
const GOODBYE: u8 = 2;

/// A decoded control event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// Client to gateway: make a NAT mapping for a domain.
    AssignedIps(AssignedIps),
    /// Gateway to client: answer to [`AssignedIps`].
    DomainStatus(DomainStatus),
    /// Either direction: the sender has closed the connection.
    Goodbye,
}

/// The client has assigned proxy addresses to a domain and asks the gateway to resolve it and to map them.
///
/// Field order is the order on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedIps {
    /// The DNS resource on whose behalf the domain is used.
    pub resource: ResourceId,
    /// The queried name.
    pub domain: DomainName,
    /// Proxy addresses, IPv4 first. Receivers accept any number.
    pub proxy_ips: Vec<IpAddr>,
}

/// Whether the gateway translates the proxy addresses of a domain.
///
/// Field order is the order on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainStatus {
    /// The DNS resource of the request.
    pub resource: ResourceId,
    /// The name of the request.
    pub domain: DomainName,
    /// What became of the request.
    pub status: NatStatus,
}

/// What became of an [`AssignedIps`] request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NatStatus {
    /// The proxy addresses can be used.
    Active,
    /// The gateway refused. Unknown words of newer gateways mean the same.
    Inactive,
}

impl<'de> Deserialize<'de> for NatStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = serde_json::Value::deserialize(deserializer)?;
        Ok(match word.as_str() {
            Some("Active") => Self::Active,
            _ => Self::Inactive,
        })
    }
}

/// Why a control packet was not understood. Its receiver ignores it.
#[derive(Debug, thiserror::Error)]
pub enum DecodeControlError {
    /// An event of a newer peer.
    #[error("control event {0} is unknown")]
    UnknownType(u8),
    /// The payload is not the JSON of its type.
    #[error("malformed payload of a control event: {0}")]
    Payload(#[from] serde_json::Error),
}

impl ControlEvent {
    /// Decodes the event of a control packet.
    ///
    /// # Errors
    ///
    /// [`DecodeControlError`] for unknown types and malformed payloads.
    pub fn decode(control: Control<'_>) -> Result<Self, DecodeControlError> {
        match control.event_type {
            ASSIGNED_IPS => Ok(Self::AssignedIps(serde_json::from_slice(control.payload)?)),
            DOMAIN_STATUS => Ok(Self::DomainStatus(serde_json::from_slice(control.payload)?)),
            GOODBYE => Ok(Self::Goodbye),
            other => Err(DecodeControlError::UnknownType(other)),
        }
    }
}

impl AssignedIps {
    /// The control packet of this event.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if there are so many addresses that the packet exceeds the tunnel's packet size.
    pub fn to_packet(&self) -> Result<IpPacket, BuildError> {
        make::control_packet(ASSIGNED_IPS, &to_json(self))
    }
}

impl DomainStatus {
    /// The control packet of this event. A name of any valid length fits.
    ///
    /// # Errors
    ///
    /// [`BuildError`] never occurs for a valid [`DomainName`]; it is passed on all the same.
    pub fn to_packet(&self) -> Result<IpPacket, BuildError> {
        make::control_packet(DOMAIN_STATUS, &to_json(self))
    }
}

/// The control packet that tells a peer that the connection is closed.
pub fn goodbye_packet() -> IpPacket {
    make::control_packet(GOODBYE, &[]).expect("an empty control packet fits")
}

fn to_json(event: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(event).expect("strings and addresses always serialise")
}
