//! The control protocol between client and gateway: any bytes as the payload of a control packet.
//!
//! Oracle: what is understood and sent on is understood as the same.

use connlib_tunnel::{ControlEvent, goodbye_packet};
use ip_packet::{IpPacket, PacketRef, make};

use crate::input::Input;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let event_type = input.u8();
    if event_type == 255 {
        if let Ok(packet) = PacketRef::parse(input.rest()) {
            decode(packet);
        }
        return;
    }
    let payload = input.rest();
    if let Ok(packet) = make::control_packet(event_type, payload) {
        let control = packet.as_control().expect("it was made so");
        assert_eq!((control.event_type, control.payload), (event_type, payload));
        decode(packet.view());
    }
}

/// One of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = "6d1f0a52-8c3e-4b7a-9f10-2c5e7d9b4a01";
    let request = format!(
        r#"{{"resource":"{id}","domain":"wiki.corp.example","proxy_ips":["100.96.0.1","fd00:2021:1111:8000::"]}}"#
    );
    let status = |word: &str| {
        format!(r#"{{"resource":"{id}","domain":"Wiki.corp.example.","status":"{word}"}}"#)
    };
    let payloads = [
        (0, request),
        (1, status("Active")),
        (1, status("Inactive")),
        (2, String::new()),
        (3, String::new()),
    ];
    payloads
        .into_iter()
        .map(|(kind, payload)| [&[kind][..], payload.as_bytes()].concat())
        .collect()
}

fn decode(packet: PacketRef<'_>) {
    let Some(event) = understood(packet) else {
        return;
    };
    let again = match &event {
        // A list of addresses that the sender wrote more briefly than we do may no longer fit.
        ControlEvent::AssignedIps(request) => match request.to_packet() {
            Ok(packet) => packet,
            Err(_) => return,
        },
        ControlEvent::DomainStatus(status) => status.to_packet().expect("any name fits"),
        ControlEvent::Goodbye => goodbye_packet(),
    };
    assert!(PacketRef::parse(again.as_slice()).is_ok());
    assert_eq!(understood(IpPacket::view(&again)), Some(event));
}

fn understood(packet: PacketRef<'_>) -> Option<ControlEvent> {
    ControlEvent::decode(packet.as_control()?).ok()
}
