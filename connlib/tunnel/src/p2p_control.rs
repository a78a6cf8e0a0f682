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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESOURCE: &str = "6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01";
    const ASSIGNED_IPS_JSON: &str = r#"{"resource":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","domain":"wiki.corp.example","proxy_ips":["100.96.0.1","100.96.0.2","100.96.0.3","100.96.0.4","fd00:2021:1111:8000::","fd00:2021:1111:8000::1","fd00:2021:1111:8000::2","fd00:2021:1111:8000::3"]}"#;
    const DOMAIN_STATUS_JSON: &str = r#"{"resource":"6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01","domain":"wiki.corp.example","status":"Active"}"#;

    fn assigned_ips(domain: &str) -> AssignedIps {
        let v4 = (1..=4u8).map(|i| IpAddr::from([100, 96, 0, i]));
        let v6 = (0..4u16).map(|i| IpAddr::from([0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, i]));
        AssignedIps {
            resource: RESOURCE.parse().unwrap(),
            domain: domain.parse().unwrap(),
            proxy_ips: v4.chain(v6).collect(),
        }
    }

    fn domain_status(domain: &str, status: NatStatus) -> DomainStatus {
        DomainStatus {
            resource: RESOURCE.parse().unwrap(),
            domain: domain.parse().unwrap(),
            status,
        }
    }

    fn expected(event_type: u8, json: &str) -> Vec<u8> {
        let len = (8 + json.len()) as u16;
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(len.to_be_bytes());
        bytes.extend([0xff, 0]);
        bytes.extend([0; 32]);
        bytes.push(event_type);
        bytes.extend([0; 7]);
        bytes.extend(json.as_bytes());
        bytes
    }

    fn decode(packet: &IpPacket) -> Result<ControlEvent, DecodeControlError> {
        ControlEvent::decode(packet.as_control().expect("is a control packet"))
    }

    fn decode_json(event_type: u8, json: &str) -> Result<ControlEvent, DecodeControlError> {
        decode(&make::control_packet(event_type, json.as_bytes()).unwrap())
    }

    // tunnel 40
    #[test]
    fn tunnel_40_packets_are_byte_exact() {
        let request = assigned_ips("wiki.corp.example").to_packet().unwrap();
        assert_eq!(request.as_slice(), expected(0, ASSIGNED_IPS_JSON));
        assert_eq!(request.as_slice()[4..6], 0x00fd_u16.to_be_bytes());

        let status = domain_status("wiki.corp.example", NatStatus::Active);
        assert_eq!(
            status.to_packet().unwrap().as_slice(),
            expected(1, DOMAIN_STATUS_JSON)
        );
        assert_eq!(goodbye_packet().as_slice(), expected(2, ""));
    }

    // tunnel 40
    #[test]
    fn tunnel_40_packets_are_understood() {
        let request = assigned_ips("wiki.corp.example");
        let event = decode(&request.to_packet().unwrap()).unwrap();
        assert_eq!(event, ControlEvent::AssignedIps(request));

        let status = domain_status("wiki.corp.example", NatStatus::Inactive);
        let event = decode(&status.to_packet().unwrap()).unwrap();
        assert_eq!(event, ControlEvent::DomainStatus(status));
        assert_eq!(decode(&goodbye_packet()).unwrap(), ControlEvent::Goodbye);
    }

    // tunnel 40
    #[test]
    fn tunnel_40_key_order_case_and_count_do_not_matter() {
        let json = r#"{"proxy_ips":["100.96.0.1"],"extra":[1],"domain":"WIKI.corp.example.","resource":"6D1F0A52-8C3E-4B7A-9F10-2C5E7D9B4A01"}"#;
        let Ok(ControlEvent::AssignedIps(request)) = decode_json(0, json) else {
            panic!("not understood")
        };
        assert_eq!(request.domain, "wiki.corp.example".parse().unwrap());
        assert_eq!(request.proxy_ips.len(), 1);
    }

    // tunnel 40
    #[test]
    fn tunnel_40_unknown_status_means_inactive() {
        for word in [
            r#""Inactive""#,
            r#""Later""#,
            "3",
            "null",
            r#"{"Active":1}"#,
        ] {
            let json = DOMAIN_STATUS_JSON.replace(r#""Active""#, word);
            let Ok(ControlEvent::DomainStatus(status)) = decode_json(1, &json) else {
                panic!("{word} is not understood")
            };
            assert_eq!(status.status, NatStatus::Inactive, "{word}");
        }
    }

    // tunnel 40
    #[test]
    fn tunnel_40_unknown_events_and_damaged_payloads_are_errors() {
        assert!(matches!(
            decode_json(3, "{}"),
            Err(DecodeControlError::UnknownType(3))
        ));
        for json in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"resource":"x"}"#,
            &ASSIGNED_IPS_JSON.replace("corp", "co rp"),
        ] {
            assert!(
                matches!(decode_json(0, json), Err(DecodeControlError::Payload(_))),
                "{json}"
            );
        }
    }

    // tunnel 40
    #[test]
    fn tunnel_40_short_payload_is_no_control_packet() {
        let mut bytes = expected(2, "");
        bytes.truncate(47);
        bytes[5] = 7;
        assert!(!IpPacket::from_slice(&bytes).unwrap().is_control());
    }

    // tunnel 40
    #[test]
    fn tunnel_40_longest_domain_fits() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        assert_eq!(longest.len(), 253);
        let request = assigned_ips(&longest).to_packet().unwrap();
        assert!(request.as_slice().len() <= ip_packet::MAX_IP_SIZE);
        assert_eq!(
            decode(&request).unwrap(),
            ControlEvent::AssignedIps(assigned_ips(&longest))
        );
        // Every character that is escaped doubles.
        let quotes = longest.replace('a', "\"");
        assert!(assigned_ips(&quotes).to_packet().is_ok());
        assert!(
            domain_status(&quotes, NatStatus::Active)
                .to_packet()
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn any_payload_is_an_event_or_an_error(event_type: u8, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ControlEvent::decode(Control { event_type, payload: &payload });
        }
    }
}
