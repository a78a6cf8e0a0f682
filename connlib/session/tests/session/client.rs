//! The client's session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_messages::client::{CreateFlow, FromPortal, ToPortal};
use connlib_model::{ResourceStatus, TunConfig};
use connlib_session::{ClientSession, ClientSessionEvent, PortalInput, PortalOutput};
use connlib_tunnel::TunPacket;
use connlib_tunnel::segment::GsoMeta;
use ip_packet::{IpPacket, make};
use phoenix_channel::FatalError;
use serde_json::{Value, json};
use tracing::Level;

use crate::fixtures::{
    CLIENT_V4, GATEWAY, NETWORK, OTHER_RELAY, RELAY, SITE, client_init, flow_created, message,
    network, packet, relay,
};

use crate::logs::loud;

const GATEWAY_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

struct Portal {
    session: ClientSession,
    now: Instant,
    sent: Vec<ToPortal>,
    reconnects: Vec<[u8; 32]>,
    events: Vec<ClientSessionEvent>,
}

impl Portal {
    /// A session that was never connected.
    fn new() -> Self {
        let now = Instant::now();
        Self {
            session: ClientSession::new([1; 32], now, Duration::from_secs(1_700_000_000)),
            now,
            sent: vec![],
            reconnects: vec![],
            events: vec![],
        }
    }

    /// A session that has got its state: one network, one relay.
    fn up() -> Self {
        let mut portal = Self::new();
        portal.input(PortalInput::Connected);
        portal.say(
            "init",
            client_init(&[network("10.40.0.0/16")], &[relay(RELAY)]),
        );

        portal
    }

    fn say(&mut self, event: &str, payload: Value) {
        self.input(PortalInput::Message(message::<FromPortal>(event, payload)));
    }

    fn input(&mut self, input: PortalInput<FromPortal, ToPortal>) {
        self.session.handle_portal(input, self.now);
        self.drain();
    }

    fn send_packet(&mut self, number: u32) {
        self.inject(&packet(number));
        self.drain();
    }

    /// Like [`Portal::send_packet`], but nothing is polled.
    fn inject(&mut self, packet: &IpPacket) {
        let mut bytes = packet.as_slice().to_vec();
        let packet = TunPacket {
            buf: &mut bytes,
            gso: GsoMeta::NONE,
        };
        self.session
            .tunnel_mut()
            .handle_tun(packet, self.now, &mut VecDeque::new());
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            match self.session.poll_timeout().filter(|next| *next <= end) {
                Some(next) => {
                    self.now = next.max(self.now);
                    self.session.handle_timeout(self.now);
                }
                None => break,
            }
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_portal(self.now) {
            match output {
                PortalOutput::Send(message) => self.sent.push(message),
                PortalOutput::Reconnect { public_key } => self.reconnects.push(public_key.0),
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
        while self.session.tunnel_mut().poll_transmit().is_some() {}
        while self.session.tunnel_mut().poll_packet().is_some() {}
    }

    fn sent(&mut self) -> Vec<ToPortal> {
        std::mem::take(&mut self.sent)
    }

    fn candidates_sent(&mut self) -> Vec<String> {
        let sent = self.sent().into_iter();
        sent.filter_map(|message| match message {
            ToPortal::BroadcastIceCandidates(candidates) => Some(candidates.candidates),
            _ => None,
        })
        .flatten()
        .collect()
    }

    fn config(&self) -> TunConfig {
        let mut configs = self.events.iter().rev().filter_map(|event| match event {
            ClientSessionEvent::TunConfigUpdated(config) => Some(config.clone()),
            ClientSessionEvent::ResourcesChanged(_) | ClientSessionEvent::Failed(_) => None,
        });

        configs.next().expect("a configuration")
    }

    fn status(&self) -> ResourceStatus {
        let mut lists = self.events.iter().rev().filter_map(|event| match event {
            ClientSessionEvent::ResourcesChanged(list) => Some(list),
            ClientSessionEvent::TunConfigUpdated(_) | ClientSessionEvent::Failed(_) => None,
        });

        lists.next().expect("a list")[0].status
    }

    fn has_route(&self, network: &str) -> bool {
        self.config().routes_v4.contains(&network.parse().unwrap())
    }

    fn relays(&self) -> usize {
        self.session.tunnel().node_stats().relays
    }
}

#[test]
fn portal_58_second_init_replaces_interface_and_resources() {
    let mut portal = Portal::up();
    assert!(portal.has_route("10.40.0.0/16"));
    let mut second = client_init(&[], &[]);
    second["interface"]["upstream_dns"] = json!([{"protocol": "ip_port", "address": "9.9.9.9:53"}]);
    second["interface"]["search_domain"] = json!("corp.example");
    portal.say("init", second);
    assert!(!portal.has_route("10.40.0.0/16"));
    assert_eq!(portal.config().dns_sentinels.len(), 1);
    assert_eq!(
        portal.config().search_domain.unwrap().as_str(),
        "corp.example"
    );
}

#[test]
fn bad_search_domain_costs_only_itself() {
    let mut portal = Portal::new();
    portal.input(PortalInput::Connected);
    let mut init = client_init(&[network("10.40.0.0/16")], &[]);
    init["interface"]["search_domain"] = json!("not a domain");
    portal.say("init", init);
    assert_eq!(portal.config().search_domain, None);
    assert!(portal.has_route("10.40.0.0/16"));
}

// portal §10 defect 8
#[test]
fn relays_of_an_init_are_the_full_set() {
    let mut portal = Portal::up();
    portal.say(
        "init",
        client_init(&[network("10.40.0.0/16")], &[relay(OTHER_RELAY)]),
    );
    assert_eq!(portal.relays(), 1);
    portal.say("init", client_init(&[network("10.40.0.0/16")], &[]));
    assert_eq!(portal.relays(), 1);

    // One that a connection uses stays until it does not.
    portal.send_packet(1);
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    portal.say(
        "init",
        client_init(&[network("10.40.0.0/16")], &[relay(RELAY)]),
    );
    assert_eq!(portal.relays(), 2);
    portal.say("resource_deleted", json!(NETWORK));
    assert_eq!(portal.relays(), 1);
}

#[test]
fn portal_59_known_relay_is_left_alone_and_new_credentials_replace_it() {
    let mut portal = Portal::up();
    let requests_after = |portal: &mut Portal, relay: Value| {
        let init = client_init(&[network("10.40.0.0/16")], &[relay]);
        let init = PortalInput::Message(message::<FromPortal>("init", init));
        portal.session.handle_portal(init, portal.now);
        let tunnel = portal.session.tunnel_mut();
        std::iter::from_fn(|| tunnel.poll_transmit()).count()
    };

    assert_eq!(requests_after(&mut portal, relay(RELAY)), 0);
    let mut restarted = relay(RELAY);
    restarted["password"] = json!("another secret");
    assert_eq!(
        requests_after(&mut portal, restarted.clone()),
        1,
        "asks anew who is there"
    );
    assert_eq!(requests_after(&mut portal, restarted), 0);
    assert_eq!(portal.relays(), 1);
}

#[test]
fn relays_presence_removes_and_adds() {
    let mut portal = Portal::up();
    let presence = json!({"disconnected_ids": [RELAY, OTHER_RELAY], "connected": []});
    portal.say("relays_presence", presence);
    assert_eq!(portal.relays(), 0);
    let presence = json!({"disconnected_ids": [], "connected": [relay(RELAY), relay(OTHER_RELAY)]});
    portal.say("relays_presence", presence);
    assert_eq!(portal.relays(), 2);
}

#[test]
fn portal_60_61_resources_come_change_and_go() {
    let mut portal = Portal::up();
    portal.say("resource_created_or_updated", network("10.50.0.0/16"));
    assert!(portal.has_route("10.50.0.0/16") && !portal.has_route("10.40.0.0/16"));
    portal.say("resource_deleted", json!(NETWORK));
    assert!(!portal.has_route("10.50.0.0/16"));
}

#[test]
fn portal_62_63_access_is_requested_once_per_two_seconds() {
    let mut portal = Portal::up();
    portal.send_packet(1);
    portal.send_packet(2);
    let expected = ToPortal::CreateFlow(CreateFlow {
        resource_id: NETWORK.parse().unwrap(),
        connected_gateway_ids: vec![],
    });
    assert_eq!(portal.sent(), [expected]);
    portal.wait(Duration::from_millis(1_999));
    portal.send_packet(3);
    assert!(portal.sent().is_empty());
    portal.wait(Duration::from_millis(1));
    assert!(portal.sent().is_empty(), "time alone asks for nothing");
    portal.send_packet(4);
    assert_eq!(portal.sent().len(), 1);
}

/// Found by a random case: the packet that followed a suspend was lost with the channel that had died meanwhile.
#[test]
fn access_that_a_lost_channel_was_asked_for_is_asked_for_again() {
    let mut portal = Portal::up();
    portal.send_packet(1);
    assert_eq!(portal.sent().len(), 1);
    portal.input(PortalInput::Disconnected);
    portal.input(PortalInput::Connected);
    assert!(portal.sent().is_empty(), "the portal's state is not known");
    portal.say(
        "init",
        client_init(&[network("10.40.0.0/16")], &[relay(RELAY)]),
    );
    assert!(matches!(portal.sent()[..], [ToPortal::CreateFlow(_)]));
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    assert_eq!(portal.session.tunnel().gateways().count(), 1);
}

#[test]
fn portal_63_known_gateways_are_listed_after_roaming() {
    let mut portal = connecting();
    portal.session.reset(portal.now);
    portal.drain();
    portal.input(PortalInput::Connected);
    portal.say(
        "init",
        client_init(&[network("10.40.0.0/16")], &[relay(RELAY)]),
    );
    portal.sent();
    portal.send_packet(2);
    let expected = ToPortal::CreateFlow(CreateFlow {
        resource_id: NETWORK.parse().unwrap(),
        connected_gateway_ids: vec![GATEWAY.parse().unwrap()],
    });
    assert_eq!(portal.sent(), [expected]);
}

#[test]
fn portal_64_access_that_nobody_asked_for_is_ignored() {
    let mut portal = Portal::up();
    let unasked = loud(|| portal.say("flow_created", flow_created(GATEWAY_KEY)));
    assert_eq!(unasked, [], "late and doubled answers are ordinary");
    portal.say("resource_deleted", json!(NETWORK));
    let unknown = loud(|| portal.say("flow_created", flow_created(GATEWAY_KEY)));
    let [(Level::WARN, line)] = &unknown[..] else {
        panic!("{unknown:?}")
    };
    assert!(line.contains(NETWORK), "{line}");
    assert_eq!(portal.session.tunnel().gateways().count(), 0);
}

#[test]
fn unusable_credentials_are_no_reason_to_panic() {
    let mut portal = Portal::up();
    portal.send_packet(1);
    let mut flow = flow_created(GATEWAY_KEY);
    flow["client_ice_credentials"]["username"] = json!("a:b");
    portal.say("flow_created", flow);
    assert_eq!(portal.session.tunnel().gateways().count(), 0);
}

#[test]
fn portal_66_67_denials() {
    let mut portal = Portal::up();
    for reason in ["not_found", "forbidden", "version_mismatch", "made_up"] {
        portal.send_packet(1);
        portal.say(
            "flow_creation_failed",
            json!({"resource_id": NETWORK, "reason": reason}),
        );
        assert_eq!(portal.status(), ResourceStatus::Unknown);
        portal.wait(Duration::from_secs(2));
        portal.sent();
        portal.send_packet(2);
        assert_eq!(portal.sent().len(), 1, "{reason}");
    }
    let offline =
        json!({"resource_id": NETWORK, "reason": "offline", "violated_properties": ["remote_ip"]});
    portal.say("flow_creation_failed", offline);
    assert_eq!(portal.status(), ResourceStatus::Offline);
}

// tunnel 35
#[test]
fn portal_68_no_relays_then_reconnect_with_the_same_key() {
    let mut portal = Portal::new();
    portal.input(PortalInput::Connected);
    portal.say("init", client_init(&[network("10.40.0.0/16")], &[]));
    portal.send_packet(1);
    portal.sent();
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    assert_eq!(portal.sent(), [ToPortal::NoRelays]);
    portal.wait(Duration::from_millis(4999));
    assert!(portal.reconnects.is_empty());
    portal.wait(Duration::from_millis(1));
    let key = portal.session.public_key().0;
    assert_eq!(portal.reconnects, [key]);

    // Still none: at most every 30 s.
    portal.input(PortalInput::Disconnected);
    portal.input(PortalInput::Connected);
    portal.say("init", client_init(&[network("10.40.0.0/16")], &[]));
    portal.send_packet(2);
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    portal.wait(Duration::from_millis(29_999));
    assert_eq!(portal.reconnects.len(), 1);
    portal.wait(Duration::from_millis(1));
    assert_eq!(portal.reconnects, [key, key]);
}

#[test]
fn portal_68_relays_in_time_make_the_reconnect_needless() {
    let mut portal = Portal::new();
    portal.input(PortalInput::Connected);
    portal.say("init", client_init(&[network("10.40.0.0/16")], &[]));
    portal.send_packet(1);
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    portal.wait(Duration::from_secs(4));
    portal.say(
        "relays_presence",
        json!({"disconnected_ids": [], "connected": [relay(RELAY)]}),
    );
    portal.wait(Duration::from_secs(4));
    assert!(portal.reconnects.is_empty());
}

#[test]
fn reconnect_for_want_of_relays_loses_nothing_that_was_queued() {
    let mut portal = Portal::new();
    portal.input(PortalInput::Connected);
    let mut other = network("10.50.0.0/16");
    other["id"] = json!("9e0d4c1b-63a7-4f8e-b0c2-2b7f5d1a8e33");
    let init = client_init(&[network("10.40.0.0/16"), other], &[]);
    portal.say("init", init.clone());
    portal.send_packet(1);
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    portal.wait(Duration::from_millis(4999));

    // Both are queued when the channel is given up, one is polled before.
    portal.inject(&packet(2));
    let to_other = SocketAddr::from(([10, 50, 0, 1], 80));
    let other = make::udp_packet((CLIENT_V4, 1).into(), to_other, &[]).unwrap();
    portal.inject(&other);
    assert!(portal.session.poll_portal(portal.now).is_some());
    portal.sent();
    portal.now += Duration::from_millis(1);
    portal.session.handle_timeout(portal.now);
    portal.drain();
    assert_eq!(portal.reconnects.len(), 1);
    assert!(portal.sent().is_empty());
    portal.input(PortalInput::Connected);
    portal.say("init", init);
    assert_eq!(portal.sent().len(), 2);
}

#[test]
fn newest_state_replaces_what_was_not_polled() {
    let mut portal = Portal::new();
    let now = portal.now;
    portal.session.handle_portal(PortalInput::Connected, now);
    for third in 0..100 {
        let network = network(&format!("10.{third}.0.0/16"));
        let init = message::<FromPortal>("init", client_init(&[network], &[relay(RELAY)]));
        portal
            .session
            .handle_portal(PortalInput::Message(init), now);
        let _ = portal.session.poll_portal(now);
    }
    portal.drain();
    assert_eq!(portal.events.len(), 2);
    assert!(portal.has_route("10.99.0.0/16"));
}

// tunnel 69
#[test]
fn tunnel_69_vanished_relays_are_asked_for() {
    let mut portal = connecting();
    portal.sent();
    // The relay never answers and is given up.
    portal.wait(Duration::from_secs(120));
    assert!(portal.sent().contains(&ToPortal::NoRelays));
    assert!(portal.has_route("10.40.0.0/16"));
}

#[test]
fn portal_69_candidates_go_to_one_gateway_each_without_duplicates() {
    let mut portal = connecting();
    let now = portal.now;
    for port in [1, 2, 1] {
        let address = ([192, 0, 2, 1], port).into();
        portal.session.tunnel_mut().add_host_candidate(address, now);
    }
    portal.drain();
    let sent = portal.sent();
    let ToPortal::BroadcastIceCandidates(message) = sent.last().unwrap() else {
        panic!("{sent:?}")
    };
    assert_eq!(message.gateway_ids, [GATEWAY.parse().unwrap()]);
    assert_eq!(message.candidates.len(), 2);
}

#[test]
fn portal_69_each_gateway_gets_its_own_message() {
    const OTHER: &str = "9e0d4c1b-63a7-4f8e-b0c2-2b7f5d1a8e33";
    const OTHER_GATEWAY: &str = "2d8f6a34-9b07-4c15-8e6d-f1a3b5c7d9e0";
    let mut portal = Portal::new();
    portal.input(PortalInput::Connected);
    let mut other = network("10.50.0.0/16");
    other["id"] = json!(OTHER);
    let resources = [network("10.40.0.0/16"), other];
    portal.say("init", client_init(&resources, &[relay(RELAY)]));
    portal.send_packet(1);
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    let to_other = SocketAddr::from(([10, 50, 0, 1], 80));
    portal.inject(&make::udp_packet((CLIENT_V4, 1).into(), to_other, &[]).unwrap());
    portal.drain();
    let mut flow = flow_created("AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=");
    flow["resource_id"] = json!(OTHER);
    flow["gateway_id"] = json!(OTHER_GATEWAY);
    portal.say("flow_created", flow);
    assert_eq!(portal.session.tunnel().gateways().count(), 2);

    portal.sent();
    let now = portal.now;
    for port in [1, 2, 3] {
        let address = ([192, 0, 2, 1], port).into();
        portal.session.tunnel_mut().add_host_candidate(address, now);
    }
    portal.drain();
    let mut told: Vec<_> = portal
        .sent()
        .into_iter()
        .map(|sent| match sent {
            ToPortal::BroadcastIceCandidates(m) => (m.gateway_ids, m.candidates.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort();
    let expected = [OTHER_GATEWAY, GATEWAY].map(|id| (vec![id.parse().unwrap()], 3));
    assert_eq!(told, expected);
}

#[test]
fn portal_70_candidates_wait_for_the_portal() {
    let mut portal = connecting();
    portal.sent();
    portal.input(PortalInput::Disconnected);
    let address = ([192, 0, 2, 1], 1).into();
    let now = portal.now;
    portal.session.tunnel_mut().add_host_candidate(address, now);
    portal.drain();
    assert!(portal.sent().is_empty());
    portal.input(PortalInput::Connected);
    assert_eq!(portal.candidates_sent().len(), 1);
    portal.input(PortalInput::Disconnected);
    portal.input(PortalInput::Connected);
    assert!(portal.candidates_sent().is_empty());
}

#[test]
fn portal_70_candidates_that_could_not_be_sent_are_sent_again() {
    let mut portal = connecting();
    let address = ([192, 0, 2, 1], 1).into();
    let now = portal.now;
    portal.sent();
    portal.session.tunnel_mut().add_host_candidate(address, now);
    portal.drain();
    let message = portal.sent().remove(0);
    portal.input(PortalInput::Unsent(message.clone()));
    portal.input(PortalInput::Disconnected);
    portal.input(PortalInput::Connected);
    assert_eq!(portal.sent(), [message]);
}

#[test]
fn access_that_was_needed_during_an_outage_is_requested_after_the_init() {
    let mut portal = Portal::up();
    portal.input(PortalInput::Disconnected);
    portal.send_packet(1);
    assert!(portal.sent().is_empty());
    portal.input(PortalInput::Connected);
    assert!(portal.sent().is_empty());
    portal.say(
        "init",
        client_init(&[network("10.40.0.0/16")], &[relay(RELAY)]),
    );
    assert!(matches!(portal.sent()[..], [ToPortal::CreateFlow(_)]));

    // Unless the resource is gone.
    portal.input(PortalInput::Disconnected);
    portal.wait(Duration::from_secs(2));
    portal.send_packet(2);
    portal.input(PortalInput::Connected);
    portal.say("init", client_init(&[], &[relay(RELAY)]));
    assert!(portal.sent().is_empty());
}

#[test]
fn portal_71_config_changed_swaps_servers_and_nothing_else() {
    let mut portal = connecting();
    let interface = json!({"interface": {"ipv4": "100.64.0.1", "ipv6": "fd00:2021:1111::1",
        "upstream_dns": [{"protocol": "ip_port", "address": "9.9.9.9:53"}]}});
    portal.say("config_changed", interface);
    assert_eq!(portal.config().dns_sentinels.len(), 1);
    assert_eq!(portal.session.tunnel().gateways().count(), 1);
}

#[test]
fn portal_72_roaming_logs_in_with_a_new_key() {
    let mut portal = connecting();
    let old = portal.session.public_key();
    let now = portal.now;
    portal.session.reset(now);
    portal.drain();
    let new = portal.session.public_key();
    assert_ne!(old, new);
    assert_eq!(portal.reconnects, [new.0]);
    assert_eq!(portal.session.tunnel().gateways().count(), 0);

    // What was meant for the old connections is not signalled.
    portal.sent();
    portal.input(PortalInput::Connected);
    assert!(portal.candidates_sent().is_empty());
}

#[test]
fn end_of_the_channel_is_told() {
    let mut portal = Portal::up();
    portal.input(PortalInput::Failed(FatalError::InvalidToken));
    assert_eq!(
        portal.events.last(),
        Some(&ClientSessionEvent::Failed(FatalError::InvalidToken))
    );
}

#[test]
fn unknown_messages_are_ignored() {
    let mut portal = Portal::up();
    portal.say("access_authorization_expiry_updated", json!({"x": 1}));
    portal.say(
        "ice_candidates",
        json!({"gateway_id": GATEWAY, "candidates": ["candidate:1 1 udp 1 192.0.2.9 9 typ host"]}),
    );
    portal.say(
        "invalidate_ice_candidates",
        json!({"gateway_id": SITE, "candidates": []}),
    );
    assert!(portal.sent().is_empty());
}

/// A session whose connection to a gateway was made but leads nowhere.
fn connecting() -> Portal {
    let mut portal = Portal::up();
    portal.send_packet(1);
    portal.say("flow_created", flow_created(GATEWAY_KEY));
    assert_eq!(portal.session.tunnel().gateways().count(), 1);

    portal
}
