//! The gateway's session.

use std::time::{Duration, Instant};

use connlib_messages::gateway::{FlowAuthorized, FromPortal, ToPortal};
use connlib_session::{GatewaySession, GatewaySessionEvent, PortalInput, PortalOutput};
use serde_json::{Value, json};

use crate::fixtures::{CLIENT, GATEWAY_V4, RELAY, authorize_flow, gateway_init, message, relay};

const CLIENT_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

struct Portal {
    session: GatewaySession,
    now: Instant,
    sent: Vec<ToPortal>,
    reconnects: usize,
    events: Vec<GatewaySessionEvent>,
}

impl Portal {
    fn new(relays: &[Value]) -> Self {
        let now = Instant::now();
        let mut portal = Self {
            session: GatewaySession::new([2; 32], now, Duration::from_secs(1_700_000_000)),
            now,
            sent: vec![],
            reconnects: 0,
            events: vec![],
        };
        portal.input(PortalInput::Connected);
        portal.say("init", gateway_init(relays));

        portal
    }

    fn say(&mut self, event: &str, payload: Value) {
        self.input(PortalInput::Message(message::<FromPortal>(event, payload)));
    }

    fn input(&mut self, input: PortalInput<FromPortal, ToPortal>) {
        self.session.handle_portal(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_portal(self.now) {
            match output {
                PortalOutput::Send(message) => self.sent.push(message),
                PortalOutput::Reconnect { .. } => self.reconnects += 1,
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
        while self.session.tunnel_mut().poll_transmit().is_some() {}
    }

    fn sent(&mut self) -> Vec<ToPortal> {
        std::mem::take(&mut self.sent)
    }
}

#[test]
fn init_names_the_tun_addresses_once() {
    let mut portal = Portal::new(&[]);
    portal.say("init", gateway_init(&[]));
    let addresses = |event: &GatewaySessionEvent| match event {
        GatewaySessionEvent::TunAddresses(addresses) => Some(addresses.v4),
        GatewaySessionEvent::ResolveDns { .. } | GatewaySessionEvent::Failed(_) => None,
    };
    let seen = portal
        .events
        .iter()
        .filter_map(addresses)
        .collect::<Vec<_>>();
    assert_eq!(seen, [GATEWAY_V4]);
}

#[test]
fn portal_73_authorization_is_acknowledged_with_its_reference() {
    let mut portal = Portal::new(&[relay(RELAY)]);
    portal.say(
        "authorize_flow",
        authorize_flow("opaque \"ref\"", CLIENT_KEY, &json!([])),
    );
    let expected = ToPortal::FlowAuthorized(FlowAuthorized {
        reference: "opaque \"ref\"".to_owned(),
    });
    assert_eq!(portal.sent().first(), Some(&expected));
    assert_eq!(portal.session.tunnel().node_stats().connections, 1);
}

#[test]
fn portal_75_repeated_authorization_is_acknowledged_and_keeps_the_connection() {
    let mut portal = Portal::new(&[relay(RELAY)]);
    for reference in ["a", "b"] {
        portal.say(
            "create_authorization",
            authorize_flow(reference, CLIENT_KEY, &json!([])),
        );
        assert_eq!(portal.session.tunnel().node_stats().connections, 1);
    }
    let acknowledged = portal
        .sent()
        .into_iter()
        .filter(|m| matches!(m, ToPortal::FlowAuthorized(_)));
    assert_eq!(acknowledged.count(), 2);
}

#[test]
fn portal_68_80_without_relay_there_is_no_acknowledgement() {
    let mut portal = Portal::new(&[]);
    portal.say(
        "authorize_flow",
        authorize_flow("a", CLIENT_KEY, &json!([])),
    );
    assert_eq!(portal.sent(), [ToPortal::NoRelays]);
    portal.now += Duration::from_millis(4999);
    portal.session.handle_timeout(portal.now);
    portal.drain();
    assert_eq!(portal.reconnects, 0);
    portal.now += Duration::from_millis(1);
    portal.session.handle_timeout(portal.now);
    portal.drain();
    assert_eq!(portal.reconnects, 1);
}

#[test]
fn portal_70_candidates_wait_for_the_portal() {
    let mut portal = Portal::new(&[relay(RELAY)]);
    portal.say(
        "authorize_flow",
        authorize_flow("a", CLIENT_KEY, &json!([])),
    );
    portal.sent();
    portal.input(PortalInput::Disconnected);
    let now = portal.now;
    portal
        .session
        .tunnel_mut()
        .add_host_candidate(([192, 0, 2, 1], 1).into(), now);
    portal.drain();
    assert!(portal.sent().is_empty());
    portal.input(PortalInput::Connected);
    assert!(
        matches!(&portal.sent()[..], [ToPortal::BroadcastIceCandidates(m)] if m.client_ids == [CLIENT.parse().unwrap()])
    );
}

#[test]
fn acknowledgement_that_was_not_sent_is_void() {
    let mut portal = Portal::new(&[relay(RELAY)]);
    let lost = ToPortal::FlowAuthorized(FlowAuthorized {
        reference: "a".to_owned(),
    });
    portal.input(PortalInput::Unsent(lost));
    portal.input(PortalInput::Disconnected);
    portal.input(PortalInput::Connected);
    assert!(portal.sent().is_empty());
}

#[test]
fn portal_81_init_without_relays_or_config_is_accepted() {
    let mut portal = Portal::new(&[]);
    portal.say(
        "init",
        json!({"interface": {"ipv4": "100.64.1.2", "ipv6": "fd00:2021:1111::1:2"}}),
    );
    assert_eq!(portal.events.len(), 2);
}
