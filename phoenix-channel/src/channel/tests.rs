//! The channel in virtual time, without a socket.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::LoginRefused;
use crate::frame::Reason;

/// A channel and its clock.
struct Fixture {
    core: PhoenixCore,
    now: Instant,
}

impl Fixture {
    fn new(config: Config) -> Self {
        Self {
            core: PhoenixCore::new(config),
            now: Instant::now(),
        }
    }

    fn config() -> Config {
        Config::new("client", Value::Null, [1; 32])
    }

    /// A channel whose upgrade just succeeded.
    fn upgraded() -> Self {
        let mut fixture = Self::new(Self::config());
        fixture.upgrade();
        fixture
    }

    /// A channel whose join was just answered.
    fn joined() -> Self {
        let mut fixture = Self::upgraded();
        assert_eq!(fixture.sent().len(), 1);
        fixture.reply_ok(0);
        assert_eq!(fixture.events(), [Ok(Event::Connected)]);
        fixture
    }

    fn upgrade(&mut self) {
        self.core.connect(Duration::ZERO, self.now);
        self.drain_actions();
        self.core.handle_connected(self.now);
    }

    fn drain_actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.poll_action()).collect()
    }

    fn events(&mut self) -> Vec<Result<Event, FatalError>> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }

    fn sent(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.core.poll_transmit(self.now))
            .map(|text| Frame::decode_strict(&text).unwrap())
            .collect()
    }

    fn sent_events(&mut self) -> Vec<String> {
        self.sent().into_iter().map(|frame| frame.event).collect()
    }

    fn receive(&mut self, frame: Frame) {
        self.core.handle_text(&frame.encode(), self.now);
    }

    fn reply_ok(&mut self, reference: u64) {
        self.receive(Frame::reply_ok("client", reference, json!({})));
    }

    fn refuse(&mut self, reference: u64, reason: &str) {
        self.receive(Frame::reply_error("client", reference, reason));
    }

    /// Lets time pass, doing what is due exactly when it is.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
            assert!(
                self.core.poll_timeout().is_none_or(|next| next > self.now),
                "the next deadline lies ahead"
            );
        }
        self.now = end;
    }

    fn assert_hiccup(&mut self, expected: ConnectionError) {
        match &self.events()[..] {
            [Ok(Event::Hiccup { error, .. })] => assert_eq!(*error, expected),
            other => panic!("expected a hiccup, got {other:?}"),
        }
    }
}

fn message(event: &str) -> Outgoing {
    Outgoing::new(event, json!({ "a": 1 }))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn portal_14_first_frame_is_the_join_with_null_payload() {
    let mut fixture = Fixture::upgraded();
    assert_eq!(fixture.sent(), [Frame::join("client", Value::Null, 0)]);
}

#[test]
fn portal_83_a_relay_joins_with_its_stamp_secret() {
    let payload = json!({ "stamp_secret": "7d" });
    let mut fixture = Fixture::new(Config::new("relay", payload.clone(), [1; 32]));
    fixture.upgrade();
    assert_eq!(fixture.sent(), [Frame::join("relay", payload, 0)]);
}

#[test]
fn portal_15_only_heartbeats_before_the_join_reply() {
    let config = Config {
        heartbeat_interval: SECOND,
        ..Fixture::config()
    };
    let mut fixture = Fixture::new(config);
    fixture.upgrade();
    fixture.core.send(message("create_flow")).unwrap();
    assert_eq!(fixture.sent_events(), ["phx_join"]);
    fixture.advance(SECOND);
    assert_eq!(fixture.sent_events(), ["heartbeat"]);
    fixture.reply_ok(0);
    assert_eq!(fixture.sent_events(), ["create_flow"]);
}

#[test]
fn portal_16_unanswered_join_is_a_hiccup_after_5_s() {
    let mut fixture = Fixture::upgraded();
    fixture.sent();
    fixture.advance(5 * SECOND - Duration::from_millis(1));
    assert!(fixture.events().is_empty());
    fixture.advance(Duration::from_millis(1));
    fixture.assert_hiccup(ConnectionError::JoinTimeout);
    assert_eq!(fixture.drain_actions(), [Action::Retire]);
}

#[test]
fn portal_17_references_count_up_and_restart_with_the_connection() {
    let mut fixture = Fixture::joined();
    fixture.core.send(message("a")).unwrap();
    fixture.core.send(message("b")).unwrap();
    let references: Vec<_> = fixture
        .sent()
        .into_iter()
        .map(|frame| frame.reference)
        .collect();
    assert_eq!(references, [Some(1), Some(2)]);
    fixture.upgrade();
    assert_eq!(fixture.sent()[0].reference, Some(0));
}

#[test]
fn portal_17_only_the_reply_with_its_number_answers_the_join() {
    let mut fixture = Fixture::upgraded();
    fixture.sent();
    for other in [1, 7, u64::MAX] {
        fixture.reply_ok(other);
        fixture.refuse(other, "invalid_version");
    }
    assert!(fixture.events().is_empty());
    fixture.reply_ok(0);
    assert_eq!(fixture.events(), [Ok(Event::Connected)]);
}

#[test]
fn portal_18_join_reply_with_a_string_reference_is_accepted() {
    let mut fixture = Fixture::upgraded();
    fixture.sent();
    let text = r#"{"topic":"client","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"0"}"#;
    fixture.core.handle_text(text, fixture.now);
    assert_eq!(fixture.events(), [Ok(Event::Connected)]);
}

#[test]
fn portal_20_heartbeat_every_10_s_regardless_of_traffic() {
    let mut fixture = Fixture::joined();
    for round in 0..10 {
        fixture.advance(9 * SECOND);
        fixture.core.send(message("chatter")).unwrap();
        assert_eq!(fixture.sent_events(), ["chatter"], "round {round}");
        fixture.advance(SECOND);
        let beat = fixture.sent();
        assert_eq!((beat.len(), beat[0].topic.as_str()), (1, "phoenix"));
        fixture.reply_ok(beat[0].reference.unwrap());
    }
    assert!(fixture.events().is_empty());
}

#[test]
fn portal_20_interval_is_limited_to_30_s() {
    let config = Config {
        heartbeat_interval: 60 * SECOND,
        ..Fixture::config()
    };
    let mut fixture = Fixture::new(config);
    fixture.upgrade();
    fixture.sent();
    fixture.reply_ok(0);
    fixture.advance(30 * SECOND);
    assert_eq!(fixture.sent_events(), ["heartbeat"]);
}

#[test]
fn portal_21_fourth_unanswered_heartbeat_is_a_hiccup() {
    let mut fixture = Fixture::joined();
    for _ in 0..3 {
        fixture.advance(10 * SECOND);
        assert_eq!(fixture.sent_events(), ["heartbeat"]);
        fixture.reply_ok(999);
    }
    assert!(fixture.events().is_empty());
    fixture.advance(10 * SECOND);
    fixture.sent();
    fixture.assert_hiccup(ConnectionError::MissedHeartbeats);
}

#[test]
fn portal_21_heartbeats_that_were_not_written_do_not_count() {
    let mut fixture = Fixture::joined();
    fixture.advance(60 * SECOND);
    assert!(fixture.events().is_empty());
    assert_eq!(
        fixture.sent_events(),
        ["heartbeat"],
        "missed ticks are skipped"
    );
}

#[test]
fn a_connection_that_takes_nothing_is_given_up() {
    let mut fixture = Fixture::joined();
    fixture.advance(70 * SECOND);
    fixture.assert_hiccup(ConnectionError::Stalled);
}

#[test]
fn portal_22_closed_channel_is_a_hiccup() {
    let mut fixture = Fixture::joined();
    fixture.receive(Frame::push(
        "client",
        Outgoing::new("phx_close", json!({ "any": 1 })),
    ));
    fixture.assert_hiccup(ConnectionError::ChannelClosed);
}

#[test]
fn portal_22_crashed_channel_is_joined_again_at_most_once_per_second() {
    let mut fixture = Fixture::joined();
    let crash = || Frame::push("client", Outgoing::new("phx_error", json!({})));
    fixture.advance(2 * SECOND);
    fixture.receive(crash());
    fixture.core.send(message("held")).unwrap();
    assert_eq!(fixture.sent_events(), ["phx_join"]);
    fixture.reply_ok(1);
    assert_eq!(fixture.events(), [Ok(Event::Connected)]);
    assert_eq!(fixture.sent_events(), ["held"]);

    fixture.receive(crash());
    assert!(fixture.sent().is_empty(), "the second join waits");
    fixture.advance(SECOND);
    assert_eq!(fixture.sent_events(), ["phx_join"]);
}

#[test]
fn crash_of_another_topic_changes_nothing() {
    let mut fixture = Fixture::joined();
    fixture.advance(2 * SECOND);
    fixture.receive(Frame::push("other", Outgoing::new("phx_error", json!({}))));
    fixture.receive(Frame::push("other", Outgoing::new("phx_close", json!({}))));
    assert!(fixture.sent().is_empty() && fixture.events().is_empty());
}

#[test]
fn portal_23_expired_token_is_fatal_and_requires_sign_in() {
    let mut fixture = Fixture::joined();
    let payload = json!({ "reason": "token_expired" });
    fixture.receive(Frame::push("client", Outgoing::new("disconnect", payload)));
    assert_eq!(fixture.events(), [Err(FatalError::InvalidToken)]);
    assert_eq!(fixture.drain_actions(), [Action::Retire]);
    assert_eq!(fixture.core.poll_timeout(), None);
    fixture.core.connect(Duration::ZERO, fixture.now);
    assert!(
        fixture.drain_actions().is_empty(),
        "a dead channel stays dead"
    );
}

#[test]
fn portal_24_other_disconnect_reasons_are_not_fatal() {
    let mut fixture = Fixture::joined();
    for payload in [
        json!({ "reason": "certificate_revoked" }),
        json!({}),
        json!(7),
    ] {
        fixture.receive(Frame::push("client", Outgoing::new("disconnect", payload)));
    }
    assert!(fixture.events().is_empty() && fixture.core.is_connected());
}

#[test]
fn portal_25_unmatched_topic_joins_again_on_the_same_connection() {
    let mut fixture = Fixture::joined();
    fixture.advance(2 * SECOND);
    for event in ["a", "b"] {
        fixture.core.send(message(event)).unwrap();
    }
    fixture.sent();
    fixture.refuse(1, "unmatched topic");
    assert_eq!(fixture.sent()[0], Frame::join("client", Value::Null, 3));
    fixture.refuse(2, "unmatched topic");
    fixture.reply_ok(3);
    fixture.refuse(2, "unmatched topic");
    fixture.advance(2 * SECOND);
    assert!(
        fixture.sent().is_empty(),
        "late refusals of older messages do not join once more"
    );
    assert!(fixture.drain_actions().is_empty());
}

#[test]
fn portal_26_refused_join_is_fatal_only_for_lasting_reasons() {
    for (reason, expected) in [
        ("invalid_version", Reason::InvalidVersion),
        ("token_expired", Reason::TokenExpired),
    ] {
        let mut fixture = Fixture::upgraded();
        fixture.sent();
        fixture.refuse(0, reason);
        assert_eq!(fixture.events(), [Err(FatalError::LoginFailed(expected))]);
    }
    for reason in ["join crashed", "unmatched topic", "whatever"] {
        let mut fixture = Fixture::upgraded();
        fixture.sent();
        fixture.refuse(0, reason);
        fixture.assert_hiccup(ConnectionError::JoinRefused(reason.to_owned()));
    }
}

#[test]
fn portal_27_refused_message_keeps_the_connection() {
    let mut fixture = Fixture::joined();
    fixture.core.send(message("a")).unwrap();
    fixture.sent();
    for reason in ["not_found", "invalid_version", "unknown_message"] {
        fixture.refuse(1, reason);
    }
    assert!(fixture.events().is_empty() && fixture.core.is_connected());
}

#[test]
fn portal_28_odd_replies_are_ignored() {
    let mut fixture = Fixture::joined();
    fixture.receive(Frame {
        reference: None,
        ..Frame::reply_ok("client", 0, json!({}))
    });
    fixture.receive(Frame::reply_ok("client", 77, json!({ "full": true })));
    fixture.receive(Frame {
        payload: json!({ "status": "error", "response": {} }),
        ..Frame::reply_ok("client", 78, json!({}))
    });
    assert!(fixture.events().is_empty() && fixture.core.is_connected());
}

#[test]
fn portal_28_full_replies_to_known_messages_are_ignored() {
    let mut fixture = Fixture::joined();
    fixture.core.send(message("a")).unwrap();
    assert_eq!(fixture.sent()[0].reference, Some(1));
    fixture.receive(Frame::reply_ok("client", 1, json!({ "full": true })));
    fixture.receive(Frame::reply_ok("client", 1, json!([1])));
    assert!(fixture.events().is_empty() && fixture.core.is_connected());
}

#[test]
fn portal_31_every_status_but_401_is_a_hiccup() {
    for status in [400, 402, 403, 404, 408, 409, 422, 429, 500, 502, 503] {
        let mut fixture = Fixture::new(Fixture::config());
        fixture.core.connect(Duration::ZERO, fixture.now);
        fixture.drain_actions();
        let error = ConnectionError::Http {
            status,
            detail: String::new(),
            retry_after: None,
        };
        fixture.core.handle_failure(error.clone(), fixture.now);
        fixture.assert_hiccup(error);
        fixture.advance(SECOND);
        assert!(fixture.drain_actions().contains(&Action::Dial), "{status}");
    }
}

#[test]
fn portal_29_and_30_refused_logins_are_fatal() {
    for (refused, expected) in [
        (LoginRefused::InvalidToken, FatalError::InvalidToken),
        (
            LoginRefused::AuthenticationFailed("proxy".to_owned()),
            FatalError::AuthenticationFailed("proxy".to_owned()),
        ),
    ] {
        let mut fixture = Fixture::new(Fixture::config());
        fixture.core.connect(Duration::ZERO, fixture.now);
        fixture
            .core
            .handle_failure(ConnectionError::Refused(refused), fixture.now);
        assert_eq!(fixture.events(), [Err(expected)]);
    }
}

#[test]
fn portal_12_hanging_attempt_is_given_up_after_15_s_and_retried() {
    let mut fixture = Fixture::new(Fixture::config());
    fixture.core.connect(Duration::ZERO, fixture.now);
    assert_eq!(fixture.drain_actions(), [Action::Dial]);
    fixture.advance(15 * SECOND);
    fixture.assert_hiccup(ConnectionError::ConnectTimeout);
    fixture.advance(SECOND);
    assert_eq!(fixture.drain_actions(), [Action::Abort, Action::Dial]);
}

#[test]
fn portal_32_the_portals_delay_is_used() {
    let mut fixture = Fixture::new(Fixture::config());
    fixture.core.connect(Duration::ZERO, fixture.now);
    let error = ConnectionError::Http {
        status: 503,
        detail: String::new(),
        retry_after: Some(7 * SECOND),
    };
    fixture.core.handle_failure(error, fixture.now);
    assert_eq!(fixture.core.poll_timeout(), Some(fixture.now + 7 * SECOND));
}

#[test]
fn portal_33_exhausted_budget_is_fatal() {
    let config = Config {
        budget: Some(2 * SECOND),
        ..Fixture::config()
    };
    let mut fixture = Fixture::new(config);
    fixture.core.connect(Duration::ZERO, fixture.now);
    for _ in 0..20 {
        fixture
            .core
            .handle_failure(ConnectionError::NoAddresses, fixture.now);
        match fixture.events().pop() {
            Some(Ok(Event::Hiccup { delay, .. })) => fixture.advance(delay),
            Some(Err(error)) => {
                let final_error = ConnectionError::NoAddresses;
                return assert_eq!(error, FatalError::MaxRetriesReached { final_error });
            }
            other => panic!("neither hiccup nor end: {other:?}"),
        }
    }
    panic!("the budget never ended");
}

#[test]
fn portal_35_only_a_join_resets_the_backoff() {
    let mut fixture = Fixture::new(Fixture::config());
    let mut delays = Vec::new();
    fixture.core.connect(Duration::ZERO, fixture.now);
    for _ in 0..12 {
        fixture.core.handle_connected(fixture.now);
        let closed = ConnectionError::Transport("reset".to_owned());
        fixture.core.handle_closed(closed, fixture.now);
        let Some(Ok(Event::Hiccup { delay, .. })) = fixture.events().pop() else {
            panic!("no hiccup");
        };
        delays.push(delay);
        fixture.advance(delay);
    }
    assert!(
        delays[11] > 10 * SECOND,
        "upgrades alone do not help: {delays:?}"
    );
    fixture.core.connect(Duration::ZERO, fixture.now);
    fixture
        .core
        .handle_failure(ConnectionError::NoAddresses, fixture.now);
    assert!(fixture.core.poll_timeout().unwrap() <= fixture.now + SECOND);
}

/// The long delays that failures without a join have led to.
fn worn_out() -> Fixture {
    let mut fixture = Fixture::new(Fixture::config());
    fixture.core.connect(Duration::ZERO, fixture.now);
    for _ in 0..12 {
        fixture
            .core
            .handle_failure(ConnectionError::NoAddresses, fixture.now);
        fixture.events();
        let due = fixture.core.poll_timeout().unwrap();
        fixture.advance(due - fixture.now);
    }
    fixture
}

#[test]
fn portal_35_a_join_reply_resets_the_backoff() {
    for joins in [false, true] {
        let mut fixture = worn_out();
        fixture.core.handle_connected(fixture.now);
        let join = fixture.sent()[0].reference.unwrap();
        if joins {
            fixture.reply_ok(join);
        }
        let reset = ConnectionError::Transport("reset".to_owned());
        fixture.core.handle_closed(reset, fixture.now);
        let soon = fixture.core.poll_timeout().unwrap() <= fixture.now + SECOND;
        assert_eq!(soon, joins);
    }
}

#[test]
fn portal_35_only_an_immediate_connect_resets_the_backoff() {
    for (delay, resets) in [(Duration::ZERO, true), (SECOND, false)] {
        let mut fixture = worn_out();
        fixture.core.connect(delay, fixture.now);
        fixture.advance(delay);
        fixture
            .core
            .handle_failure(ConnectionError::NoAddresses, fixture.now);
        let soon = fixture.core.poll_timeout().unwrap() <= fixture.now + SECOND;
        assert_eq!(soon, resets, "{delay:?}");
    }
}

#[test]
fn portal_36_close_by_the_portal_is_a_hiccup() {
    let mut fixture = Fixture::joined();
    let error = ConnectionError::Closed {
        code: 1012,
        reason: "restart".to_owned(),
    };
    fixture.core.handle_closed(error.clone(), fixture.now);
    fixture.assert_hiccup(error);
}

#[test]
fn portal_38_send_while_disconnected_returns_the_message() {
    let mut fixture = Fixture::new(Fixture::config());
    let refused = fixture.core.send(message("a"));
    assert_eq!(refused, Err(SendError::NotConnected(message("a"))));
}

#[test]
fn portal_39_exact_duplicates_are_not_queued() {
    let mut fixture = Fixture::joined();
    for event in ["a", "b", "a"] {
        fixture.core.send(message(event)).unwrap();
    }
    assert_eq!(fixture.sent_events(), ["a", "b"]);
    fixture.core.send(message("a")).unwrap();
    assert_eq!(
        fixture.sent_events(),
        ["a"],
        "what was sent may be sent again"
    );
}

#[test]
fn portal_40_nothing_survives_a_reconnect() {
    let mut fixture = Fixture::joined();
    fixture.core.send(message("stale")).unwrap();
    fixture.upgrade();
    assert_eq!(fixture.sent_events(), ["phx_join"]);
    fixture.reply_ok(0);
    assert!(fixture.sent().is_empty());
}

#[test]
fn the_queue_is_bounded() {
    let mut fixture = Fixture::joined();
    let numbered = |n: usize| Outgoing::new("m", json!(n));
    let accepted = (0..5000)
        .take_while(|n| fixture.core.send(numbered(*n)).is_ok())
        .count();
    assert_eq!(accepted, 1024);
    assert_eq!(
        fixture.core.send(numbered(1024)),
        Err(SendError::QueueFull(numbered(1024)))
    );
}

#[test]
fn portal_41_close_ends_gracefully_or_fails_while_connecting() {
    let mut fixture = Fixture::joined();
    assert_eq!(fixture.core.close(fixture.now), Ok(()));
    assert_eq!(fixture.drain_actions(), [Action::Close]);
    fixture
        .core
        .handle_closed(ConnectionError::ChannelClosed, fixture.now);
    assert_eq!(fixture.events(), [Ok(Event::Closed)]);

    let mut connecting = Fixture::new(Fixture::config());
    connecting.core.connect(Duration::ZERO, connecting.now);
    assert_eq!(
        connecting.core.close(connecting.now),
        Err(ClosedWhileConnecting)
    );
    assert_eq!(connecting.drain_actions(), [Action::Dial, Action::Abort]);
    assert_eq!(connecting.core.poll_timeout(), None);
}

#[test]
fn portal_41_unconfirmed_close_ends_after_5_s() {
    let mut fixture = Fixture::joined();
    fixture.core.close(fixture.now).unwrap();
    fixture.advance(5 * SECOND);
    assert_eq!(fixture.events(), [Ok(Event::Closed)]);
}

#[test]
fn portal_42_malformed_frames_keep_the_connection() {
    let mut fixture = Fixture::joined();
    for text in [
        "",
        "{",
        "[]",
        "null",
        r#"{"topic":1}"#,
        r#"{"topic":"client","event":"init","payl"#,
    ] {
        fixture.core.handle_text(text, fixture.now);
    }
    assert!(fixture.events().is_empty() && fixture.core.is_connected());
}

#[test]
fn portal_43_a_new_connect_retires_the_old_connection() {
    let mut fixture = Fixture::joined();
    fixture.core.connect(Duration::ZERO, fixture.now);
    assert_eq!(fixture.drain_actions(), [Action::Retire, Action::Dial]);
    fixture.core.connect(SECOND, fixture.now);
    assert_eq!(fixture.drain_actions(), [Action::Abort]);
    fixture.advance(SECOND);
    assert_eq!(fixture.drain_actions(), [Action::Dial]);
}

#[test]
fn messages_are_passed_on_with_their_topic() {
    let mut fixture = Fixture::joined();
    fixture.receive(Frame::push(
        "client",
        Outgoing::new("init", json!({ "x": 1 })),
    ));
    let expected = Message {
        topic: "client".to_owned(),
        event: "init".to_owned(),
        payload: json!({ "x": 1 }),
    };
    assert_eq!(fixture.events(), [Ok(Event::Message(expected))]);
}

proptest! {
    /// Whatever a portal sends and whenever: no panic, deadlines ahead, output bounded.
    #[test]
    fn any_portal_is_survived(steps in prop::collection::vec((0u8..8, 0u64..40, ".{0,40}"), 0..60)) {
        let mut fixture = Fixture::new(Fixture::config());
        fixture.core.connect(Duration::ZERO, fixture.now);
        for (kind, number, text) in steps {
            match kind {
                0 => fixture.core.handle_connected(fixture.now),
                1 => fixture.core.handle_failure(ConnectionError::NoAddresses, fixture.now),
                2 => fixture.core.handle_text(&text, fixture.now),
                3 => fixture.reply_ok(number),
                4 => fixture.refuse(number, if number % 2 == 0 { "unmatched topic" } else { "join crashed" }),
                5 => fixture.receive(Frame::push("client", Outgoing::new("phx_error", json!({})))),
                6 => fixture.core.handle_closed(ConnectionError::ChannelClosed, fixture.now),
                _ => fixture.advance(Duration::from_millis(number * 700)),
            }
            fixture.drain_actions();
            fixture.events();
            prop_assert!(fixture.sent().len() <= 2);
        }
    }
}
