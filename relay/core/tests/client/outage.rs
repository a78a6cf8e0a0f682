//! The portal is silent for half an hour (C-51).

use std::time::{Duration, Instant};

use phoenix_channel::{Action, Event, Frame, Options, PhoenixCore, frame};
use relay_core::StampSecret;
use serde_json::json;

use super::net::{Net, PEERS, addr, secs};

const OUTAGE: Duration = Duration::from_secs(30 * 60);
/// The longest delay between two attempts, and the time that an unanswered one takes.
const LONGEST_RETRY: Duration = Duration::from_secs(60 + 15);

/// The relay's side of the channel, and a portal that answers or does not.
struct Portal {
    channel: PhoenixCore,
    is_up: bool,
    /// Secrets that relays joined with.
    joined: Vec<String>,
    heartbeats: usize,
    events: Vec<Event>,
}

impl Portal {
    fn new(secret: &StampSecret, now: Instant) -> Self {
        // As the program sets it up, for the join that `relay-server` sends.
        let options = Options {
            join_payload: json!({"stamp_secret": secret.expose()}),
            ..Options::new("relay/test".to_owned())
        };
        let mut channel = PhoenixCore::new(options.channel("relay"));
        channel.connect(Duration::ZERO, now);
        let mut portal = Self {
            channel,
            is_up: true,
            joined: Vec::new(),
            heartbeats: 0,
            events: Vec::new(),
        };
        portal.exchange(now);
        portal
    }

    /// Carries frames; those to a silent portal are lost.
    fn exchange(&mut self, now: Instant) {
        while let Some(action) = self.channel.poll_action() {
            if action == Action::Dial && self.is_up {
                self.channel.handle_connected(now);
            }
        }
        while let Some(text) = self.channel.poll_transmit(now) {
            if self.is_up {
                self.answer(&text, now);
            }
        }
        while let Some(event) = self.channel.poll_event() {
            self.events.push(event.expect("an outage is no end"));
        }
    }

    fn answer(&mut self, text: &str, now: Instant) {
        let frame = Frame::decode_strict(text).unwrap();
        match frame.event.as_str() {
            frame::JOIN => {
                let secret = frame.payload["stamp_secret"].as_str().unwrap();
                self.joined.push(secret.to_owned());
            }
            frame::HEARTBEAT => self.heartbeats += 1,
            other => panic!("{other}"),
        }
        let reply = Frame::reply_ok(frame.topic, frame.reference.unwrap(), json!({}));
        self.channel.handle_text(&reply.encode(), now);
    }
}

/// Lets time pass for relay, client and portal, deadline by deadline.
fn advance(net: &mut Net, portal: &mut Portal, by: Duration) {
    let until = net.now + by;
    while let Some(at) = portal.channel.poll_timeout().filter(|at| *at <= until) {
        net.advance(at.saturating_duration_since(net.now));
        portal.channel.handle_timeout(net.now);
        portal.exchange(net.now);
    }
    net.advance(until.saturating_duration_since(net.now));
}

fn serves(net: &mut Net) -> bool {
    PEERS.map(|peer| net.ping(addr(peer))) == [true; 2]
}

#[test]
fn relay_51_half_an_hour_without_a_portal() {
    let mut net = Net::new();
    let secret = net.relay.stamp_secret().clone();
    let mut portal = Portal::new(&secret, net.now);
    net.recovers_within(secs(1));
    advance(&mut net, &mut portal, secs(60));
    assert_eq!(portal.events, [Event::Connected]);
    assert!(portal.heartbeats >= 5, "{}", portal.heartbeats);
    portal.events.clear();

    portal.is_up = false;
    let end = net.now + OUTAGE;
    while net.now < end {
        advance(&mut net, &mut portal, secs(10));
        assert!(serves(&mut net), "{:?} before the end", end - net.now);
    }
    let hiccups = |event: &Event| matches!(event, Event::Hiccup { .. });
    assert!(portal.events.iter().all(hiccups), "{:?}", portal.events);
    // It neither gives up nor hammers: attempts of 15 s each, soon a minute apart.
    assert!((20..=60).contains(&portal.events.len()));
    // A client that comes meanwhile gets an allocation: the portal's word is not needed for that.
    net.replace_client();
    assert!(net.client.has_allocation());
    net.recovers_within(secs(1));

    portal.is_up = true;
    portal.events.clear();
    advance(&mut net, &mut portal, LONGEST_RETRY);
    assert_eq!(portal.events.last(), Some(&Event::Connected));
    // To the portal it is the relay of before, so it tells no client to move.
    assert_eq!(portal.joined, [secret.expose(), secret.expose()]);
    assert!(serves(&mut net));
}
