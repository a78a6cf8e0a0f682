//! Traffic filters on the wire (portal protocol §2.5).

use connlib_model::Filter;
use serde::{Deserialize, Serialize};

/// An unknown protocol is an error, so that the resource is refused and not opened.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireFilter {
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port_range_start: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port_range_end: Option<u16>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl From<WireFilter> for Filter {
    fn from(wire: WireFilter) -> Self {
        let ports = wire.port_range_start.unwrap_or(0)..=wire.port_range_end.unwrap_or(u16::MAX);
        match wire.protocol {
            Protocol::Tcp => Self::Tcp(ports),
            Protocol::Udp => Self::Udp(ports),
            Protocol::Icmp => Self::Icmp,
        }
    }
}

impl From<&Filter> for WireFilter {
    fn from(filter: &Filter) -> Self {
        let (protocol, ports) = match filter {
            Filter::Tcp(ports) => (Protocol::Tcp, Some(ports)),
            Filter::Udp(ports) => (Protocol::Udp, Some(ports)),
            Filter::Icmp => (Protocol::Icmp, None),
        };
        Self {
            protocol,
            port_range_start: ports.map(|ports| *ports.start()),
            port_range_end: ports.map(|ports| *ports.end()),
        }
    }
}

pub(crate) fn from_wire(filters: Vec<WireFilter>) -> Vec<Filter> {
    filters.into_iter().map(Filter::from).collect()
}

pub(crate) fn to_wire(filters: &[Filter]) -> Vec<WireFilter> {
    filters.iter().map(WireFilter::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Filter, serde_json::Error> {
        serde_json::from_str::<WireFilter>(json).map(Filter::from)
    }

    // portal 48
    #[test]
    fn portal_48_defaults_and_icmp() {
        assert_eq!(read(r#"{"protocol":"tcp"}"#).unwrap(), Filter::ALL_TCP);
        assert_eq!(
            read(r#"{"protocol":"udp","port_range_start":53}"#).unwrap(),
            Filter::Udp(53..=65535)
        );
        assert_eq!(
            read(r#"{"protocol":"udp","port_range_end":53,"port_range_start":null}"#).unwrap(),
            Filter::Udp(0..=53)
        );
        assert_eq!(read(r#"{"protocol":"icmp"}"#).unwrap(), Filter::Icmp);
        let icmp = serde_json::to_string(&WireFilter::from(&Filter::Icmp)).unwrap();
        assert_eq!(icmp, r#"{"protocol":"icmp"}"#);
    }

    #[test]
    fn unknown_protocol_and_bad_port_are_errors() {
        assert!(read(r#"{"protocol":"sctp"}"#).is_err());
        assert!(read(r#"{"protocol":"tcp","port_range_start":70000}"#).is_err());
        assert!(read(r#"{"port_range_start":1}"#).is_err());
    }
}
