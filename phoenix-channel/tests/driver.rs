//! The driver against an in-process portal: real sockets, real upgrades, scripted answers.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use phoenix_channel::driver::TlsRoots;
use phoenix_channel::{
    Channel, ConnectionError, Event, FatalError, Frame, LoginUrl, Options, Outgoing, Token,
    TokenPlacement,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tracing::Level;

/// Nothing here takes longer, except what tests a longer limit.
const PATIENCE: Duration = Duration::from_secs(10);

struct Portal {
    listener: TcpListener,
}

/// One accepted connection.
struct Visitor {
    socket: WebSocketStream<TcpStream>,
}

impl Portal {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { listener }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn login(&self) -> LoginUrl {
        login(&format!("ws://{}", self.address()))
    }

    fn channel(&self) -> Channel {
        Channel::new(self.login(), options()).unwrap()
    }

    async fn accept(&self) -> Visitor {
        let (stream, _) = self.listener.accept().await.unwrap();
        let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        Visitor { socket }
    }

    /// Accepts, and answers the upgrade with `response` instead.
    async fn refuse(&self, response: &[&str]) -> String {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        for part in response {
            stream.write_all(part.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        request
    }
}

impl Visitor {
    async fn frame(&mut self) -> Frame {
        loop {
            match self
                .socket
                .next()
                .await
                .expect("connection is open")
                .unwrap()
            {
                Message::Text(text) => return Frame::decode_strict(text.as_str()).unwrap(),
                Message::Pong(_) => {}
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    async fn send(&mut self, frame: Frame) {
        self.socket
            .send(Message::text(frame.encode()))
            .await
            .unwrap();
    }

    /// Reads the join and accepts it.
    async fn join(&mut self) {
        let join = self.frame().await;
        assert_eq!(join.event, "phx_join");
        let reply = Frame::reply_ok(join.topic, join.reference.unwrap(), json!({}));
        self.send(reply).await;
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    String::from_utf8(request).unwrap()
}

fn login(url: &str) -> LoginUrl {
    LoginUrl::gateway(url, Some(Token::new(".to ken")), "device", "name").unwrap()
}

fn options() -> Options {
    Options {
        seed: [1; 32],
        ..Options::new("Test/1 connlib/1.5.0".to_owned())
    }
}

async fn next(channel: &mut Channel) -> Result<Event, FatalError> {
    tokio::time::timeout(PATIENCE, channel.next())
        .await
        .expect("an event in time")
}

async fn expect_hiccup(channel: &mut Channel) -> ConnectionError {
    match next(channel).await {
        Ok(Event::Hiccup { error, .. }) => error,
        other => panic!("expected a hiccup, got {other:?}"),
    }
}

/// Runs the channel until it is joined to a fresh visitor.
async fn joined(portal: &Portal) -> (Channel, Visitor) {
    let mut channel = portal.channel();
    channel.connect(vec![("public_key".to_owned(), "AQ==".to_owned())]);
    let visitor = async {
        let mut visitor = portal.accept().await;
        visitor.join().await;
        visitor
    };
    let (event, visitor) = tokio::join!(next(&mut channel), visitor);
    assert_eq!(event, Ok(Event::Connected));
    (channel, visitor)
}

#[tokio::test]
async fn portal_14_joins_and_exchanges_messages() {
    let portal = Portal::new().await;
    let (mut channel, mut visitor) = joined(&portal).await;

    let init = Outgoing::new("init", json!({ "relays": [] }));
    visitor.send(Frame::push("gateway", init)).await;
    match next(&mut channel).await {
        Ok(Event::Message(message)) => assert_eq!(message.event, "init"),
        other => panic!("expected init, got {other:?}"),
    }

    channel.send(Outgoing::new("no_relays", json!({}))).unwrap();
    let (_, frame) = tokio::join!(drive(&mut channel), visitor.frame());
    assert_eq!(
        frame,
        Frame::request("gateway", Outgoing::new("no_relays", json!({})), 1)
    );
}

/// Lets the channel work for a moment in which no event is expected.
async fn drive(channel: &mut Channel) {
    let event = tokio::time::timeout(Duration::from_millis(300), channel.next()).await;
    assert!(event.is_err(), "unexpected {event:?}");
}

#[tokio::test]
async fn portal_08_and_10_request_as_specified() {
    for (placement, in_query) in [
        (TokenPlacement::HeaderAndQuery, true),
        (TokenPlacement::Header, false),
    ] {
        let portal = Portal::new().await;
        let login = portal.login().with_token_placement(placement);
        let mut channel = Channel::new(login, options()).unwrap();
        channel.connect(vec![("public_key".to_owned(), "a+/=".to_owned())]);
        let refusal = ["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"];
        let (request, _) = tokio::join!(portal.refuse(&refusal), expect_hiccup(&mut channel));
        let first = request.lines().next().unwrap();
        let token = if in_query { "token=.token&" } else { "" };
        assert_eq!(
            first,
            format!(
                "GET /gateway/websocket?{token}external_id=device&name=name&public_key=a%2B%2F%3D HTTP/1.1"
            )
        );
        assert!(request.contains(&format!("Host: {}\r\n", portal.address())));
        assert!(request.contains("X-Authorization: Bearer .token\r\n"));
        let lower = request.to_lowercase();
        for absent in [
            "origin:",
            "sec-websocket-protocol",
            "sec-websocket-extensions",
            "vsn",
        ] {
            assert!(!lower.contains(absent), "{absent}");
        }
    }
}

#[tokio::test]
async fn portal_11_dead_addresses_do_not_delay_success() {
    let portal = Portal::new().await;
    let port = portal.address().port();
    // The first and the last are documentation ranges: they answer nothing, or have no route.
    let addresses: Vec<IpAddr> = ["192.0.2.1", "127.0.0.1", "2001:db8::1"]
        .map(|ip| ip.parse().unwrap())
        .to_vec();
    let options = Options {
        resolver: Arc::new(move |host| {
            assert_eq!(host, "portal.test");
            let addresses = addresses.clone();
            Box::pin(async move { Ok(addresses) })
        }),
        ..options()
    };
    let mut channel = Channel::new(login(&format!("ws://portal.test:{port}")), options).unwrap();
    channel.connect(Vec::new());
    let started = Instant::now();
    let server = async {
        let mut visitor = portal.accept().await;
        visitor.join().await;
        visitor
    };
    let (event, _visitor) = tokio::join!(next(&mut channel), server);
    assert_eq!(event, Ok(Event::Connected));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn sockets_come_from_the_factory_and_names_from_the_resolver_at_every_attempt() {
    let portal = Portal::new().await;
    let (made, looked_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (made_by_us, looked_up_by_us) = (Arc::clone(&made), Arc::clone(&looked_up));
    let options = Options {
        sockets: Arc::new(move |_| {
            made_by_us.fetch_add(1, Ordering::Relaxed);
            tokio::net::TcpSocket::new_v4()
        }),
        resolver: Arc::new(move |_| {
            looked_up_by_us.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST); 2]) })
        }),
        ..options()
    };
    let url = format!("ws://portal.test:{}", portal.address().port());
    let mut channel = Channel::new(login(&url), options).unwrap();
    channel.connect(Vec::new());
    for attempt in 1..=2 {
        let refusal = ["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"];
        tokio::join!(portal.refuse(&refusal), expect_hiccup(&mut channel));
        assert_eq!(
            made.load(Ordering::Relaxed),
            attempt,
            "duplicates are removed"
        );
        assert_eq!(looked_up.load(Ordering::Relaxed), attempt);
    }
}

#[tokio::test]
async fn a_failed_lookup_is_retried() {
    let options = Options {
        resolver: Arc::new(|_| Box::pin(async { Err(std::io::Error::other("no network")) })),
        ..options()
    };
    let mut channel = Channel::new(login("ws://portal.test"), options).unwrap();
    channel.connect(Vec::new());
    for _ in 0..2 {
        let error = expect_hiccup(&mut channel).await;
        assert_eq!(error, ConnectionError::Resolve("no network".to_owned()));
    }
}

#[tokio::test]
async fn portal_29_problem_document_in_a_second_segment_is_still_read() {
    let portal = Portal::new().await;
    let mut channel = portal.channel();
    channel.connect(Vec::new());
    let body = r#"{"status":401,"code":"invalid_token"}"#;
    let head = format!(
        "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let parts = [head.as_str(), &body[..10], &body[10..]];
    let (_, event) = tokio::join!(portal.refuse(&parts), next(&mut channel));
    assert_eq!(event, Err(FatalError::InvalidToken));
}

#[tokio::test]
async fn portal_30_a_proxys_401_is_no_invalid_token() {
    let portal = Portal::new().await;
    let mut channel = portal.channel();
    channel.connect(Vec::new());
    let parts = ["HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin"];
    let (_, event) = tokio::join!(portal.refuse(&parts), next(&mut channel));
    assert_eq!(
        event,
        Err(FatalError::AuthenticationFailed("login".to_owned()))
    );
}

#[tokio::test]
async fn portal_32_retry_after_delays_the_next_attempt() {
    let portal = Portal::new().await;
    let mut channel = portal.channel();
    channel.connect(Vec::new());
    let parts = ["HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"];
    let (_, event) = tokio::join!(portal.refuse(&parts), next(&mut channel));
    assert!(matches!(event, Ok(Event::Hiccup { delay, .. }) if delay == Duration::from_secs(7)));
}

#[tokio::test]
async fn garbage_instead_of_an_upgrade_is_a_hiccup() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(40_000)),
    ] {
        let portal = Portal::new().await;
        let mut channel = portal.channel();
        channel.connect(Vec::new());
        let parts = [answer.as_str()];
        let (_, error) = tokio::join!(portal.refuse(&parts), expect_hiccup(&mut channel));
        assert!(matches!(error, ConnectionError::Transport(_)), "{error}");
    }
}

#[tokio::test]
async fn portal_20_heartbeats_are_sent_and_answers_are_understood() {
    let portal = Portal::new().await;
    let options = Options {
        heartbeat_interval: Duration::from_millis(50),
        ..options()
    };
    let mut channel = Channel::new(portal.login(), options).unwrap();
    channel.connect(Vec::new());
    let server = async {
        let mut visitor = portal.accept().await;
        visitor.join().await;
        let mut beats = 0;
        while beats < 8 {
            let frame = visitor.frame().await;
            assert_eq!(
                (frame.topic.as_str(), frame.event.as_str()),
                ("phoenix", "heartbeat")
            );
            visitor
                .send(Frame::reply_ok(
                    "phoenix",
                    frame.reference.unwrap(),
                    json!({}),
                ))
                .await;
            beats += 1;
        }
        visitor
    };
    let client = async {
        assert_eq!(next(&mut channel).await, Ok(Event::Connected));
        next(&mut channel).await
    };
    tokio::select! {
        visitor = server => drop(visitor),
        event = client => panic!("unexpected {event:?}"),
    }
}

#[tokio::test]
async fn portal_21_a_silent_portal_is_left() {
    let portal = Portal::new().await;
    let options = Options {
        heartbeat_interval: Duration::from_millis(50),
        ..options()
    };
    let mut channel = Channel::new(portal.login(), options).unwrap();
    channel.connect(Vec::new());
    let server = async {
        let mut visitor = portal.accept().await;
        visitor.join().await;
        while let Some(Ok(_)) = visitor.socket.next().await {}
    };
    let client = async {
        assert_eq!(next(&mut channel).await, Ok(Event::Connected));
        let error = expect_hiccup(&mut channel).await;
        assert_eq!(error, ConnectionError::MissedHeartbeats);
        drive(&mut channel).await;
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn portal_36_close_frame_is_answered_and_reconnected() {
    let portal = Portal::new().await;
    let (mut channel, mut visitor) = joined(&portal).await;
    let server = async {
        let restart = CloseFrame {
            code: 1012.into(),
            reason: "drain".into(),
        };
        visitor
            .socket
            .send(Message::Close(Some(restart)))
            .await
            .unwrap();
        let answer = visitor.socket.next().await.unwrap().unwrap();
        assert!(matches!(answer, Message::Close(_)), "{answer:?}");
        let mut again = portal.accept().await;
        again.join().await;
        again
    };
    let client = async {
        let error = expect_hiccup(&mut channel).await;
        let reason = "drain".to_owned();
        assert_eq!(error, ConnectionError::Closed { code: 1012, reason });
        assert_eq!(next(&mut channel).await, Ok(Event::Connected));
    };
    let _ = tokio::join!(server, client);
}

#[tokio::test]
async fn portal_37_ping_and_binary_do_not_disturb() {
    let portal = Portal::new().await;
    let (mut channel, mut visitor) = joined(&portal).await;
    let server = async {
        for message in [
            Message::Ping(Vec::new().into()),
            Message::Binary(vec![0xff, 0].into()),
            Message::Pong(Vec::new().into()),
            Message::text("{ not json"),
            Message::text(""),
        ] {
            visitor.socket.send(message).await.unwrap();
        }
        let pong = visitor.socket.next().await.unwrap().unwrap();
        assert!(matches!(pong, Message::Pong(_)), "{pong:?}");
        visitor
            .send(Frame::push(
                "gateway",
                Outgoing::new("still_there", json!({})),
            ))
            .await;
    };
    let (_, event) = tokio::join!(server, next(&mut channel));
    assert!(matches!(event, Ok(Event::Message(message)) if message.event == "still_there"));
}

#[tokio::test]
async fn portal_41_close_sends_1000_and_yields_closed() {
    let portal = Portal::new().await;
    let (mut channel, mut visitor) = joined(&portal).await;
    channel.close().unwrap();
    let server = async {
        match visitor.socket.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1000),
            other => panic!("expected a close frame, got {other:?}"),
        }
        let _ = visitor.socket.close(None).await;
        drop(visitor);
    };
    let (_, event) = tokio::join!(server, next(&mut channel));
    assert_eq!(event, Ok(Event::Closed));
}

#[tokio::test]
async fn portal_43_reconnecting_closes_the_old_connection_and_uses_new_parameters() {
    let portal = Portal::new().await;
    let (mut channel, mut old) = joined(&portal).await;
    channel.connect(vec![("public_key".to_owned(), "new".to_owned())]);
    let server = async {
        let goodbye = old.socket.next().await.unwrap().unwrap();
        assert!(matches!(goodbye, Message::Close(Some(_))), "{goodbye:?}");
        portal
            .refuse(&["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])
            .await
    };
    let (request, _) = tokio::join!(server, expect_hiccup(&mut channel));
    assert!(request.contains("public_key=new"));
}

#[tokio::test]
async fn frames_beyond_the_limit_end_the_connection() {
    let portal = Portal::new().await;
    let (mut channel, mut visitor) = joined(&portal).await;
    let huge = Outgoing::new(
        "init",
        Value::String("x".repeat(phoenix_channel::MAX_FRAME_BYTES + 1)),
    );
    let server = async {
        // Ends only once the other side has given up, perhaps with an error.
        let _ = visitor
            .socket
            .send(Message::text(Frame::push("gateway", huge).encode()))
            .await;
        std::future::pending::<()>().await
    };
    let error = tokio::select! {
        error = expect_hiccup(&mut channel) => error,
        () = server => unreachable!("the server waits"),
    };
    assert!(matches!(error, ConnectionError::Transport(_)), "{error}");
}

/// A self-signed authority for `portal.test`: its certificate, and a server that shows it.
fn tls_server() -> (CertificateDer<'static>, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["portal.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (certificate, TlsAcceptor::from(Arc::new(config)))
}

fn tls_channel(port: u16, roots: TlsRoots) -> Channel {
    let options = Options {
        tls_roots: roots,
        resolver: Arc::new(|_| Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })),
        ..options()
    };
    Channel::new(login(&format!("wss://portal.test:{port}")), options).unwrap()
}

#[tokio::test]
async fn tls_connects_to_a_portal_with_a_known_authority() {
    let portal = Portal::new().await;
    let (certificate, acceptor) = tls_server();
    let mut channel = tls_channel(portal.address().port(), TlsRoots::Only(vec![certificate]));
    channel.connect(Vec::new());
    let server = async {
        let (stream, _) = portal.listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let join = socket.next().await.unwrap().unwrap();
        let reply = Frame::reply_ok("gateway", 0, json!({})).encode();
        socket.send(Message::text(reply)).await.unwrap();
        (join, socket)
    };
    let (event, (join, _socket)) = tokio::join!(next(&mut channel), server);
    assert_eq!(event, Ok(Event::Connected));
    assert_eq!(
        join.to_text().unwrap(),
        Frame::join("gateway", Value::Null, 0).encode()
    );
}

#[tokio::test]
async fn tls_refuses_an_unknown_authority_and_retries() {
    let portal = Portal::new().await;
    let (_, acceptor) = tls_server();
    let (other, _) = tls_server();
    let mut channel = tls_channel(portal.address().port(), TlsRoots::Only(vec![other]));
    channel.connect(Vec::new());
    let server = async {
        let (stream, _) = portal.listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
    };
    let (error, ()) = tokio::join!(expect_hiccup(&mut channel), server);
    assert!(matches!(error, ConnectionError::Tls(_)), "{error}");
}

/// Everything that is logged on this thread, with its level.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<(Level, String)>>>);

impl Logs {
    fn lines(&self, up_to: Level) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let of_level = lines.iter().filter(|(level, _)| *level <= up_to);
        of_level.map(|(_, line)| line.clone()).collect()
    }
}

impl tracing::Subscriber for Logs {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut line = Line(span.metadata().name().to_owned());
        span.record(&mut line);
        let level = *span.metadata().level();
        self.0.lock().unwrap().push((level, line.0));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let level = *event.metadata().level();
        self.0.lock().unwrap().push((level, line.0));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

#[tokio::test]
async fn portal_44_secrets_are_logged_at_trace_at_most_and_the_token_not_at_all_from_the_header() {
    const SECRETS: [&str; 2] = ["FN/5aHrOj2IPteNZ", "hunter2"];
    for (placement, up_to) in [
        (TokenPlacement::HeaderAndQuery, Level::DEBUG),
        (TokenPlacement::Header, Level::TRACE),
    ] {
        let logs = Logs::default();
        let _guard = tracing::subscriber::set_default(logs.clone());
        let portal = Portal::new().await;
        let login = portal.login().with_token_placement(placement);
        let mut channel = Channel::new(login, options()).unwrap();
        channel.connect(Vec::new());
        let server = async {
            let mut visitor = portal.accept().await;
            visitor.join().await;
            let secrets = json!({ "preshared_key": SECRETS[0], "password": SECRETS[1] });
            visitor
                .send(Frame::push("gateway", Outgoing::new("init", secrets)))
                .await;
            for malformed in [r#"{"topic":"gateway","payload":"hunter2"#, r#"["hunter2"]"#] {
                let message = Message::text(malformed);
                visitor.socket.send(message).await.unwrap();
            }
            visitor
        };
        let (event, _visitor) = tokio::join!(next(&mut channel), server);
        assert_eq!(event, Ok(Event::Connected));
        assert!(matches!(next(&mut channel).await, Ok(Event::Message(_))));
        let answer = Outgoing::new("answer", json!({ "password": SECRETS[1] }));
        channel.send(answer).unwrap();
        drive(&mut channel).await;

        let traced = logs.lines(Level::TRACE).concat();
        assert!(traced.contains(SECRETS[0]), "the capture works");
        let visible = logs.lines(Level::DEBUG).concat();
        for secret in SECRETS {
            assert!(!visible.contains(secret), "{visible}");
        }
        assert!(!logs.lines(up_to).concat().contains(".token"));
        // portal 42: told, and no more than that.
        assert_eq!(logs.lines(Level::WARN).len(), 2, "{visible}");
        assert_eq!(logs.lines(Level::ERROR).len(), 0);
    }
}

/// Needs its full 15 s.
#[tokio::test]
async fn portal_12_hanging_handshake_fails_after_15_s_and_is_retried() {
    let portal = Portal::new().await;
    let mut channel = portal.channel();
    channel.connect(Vec::new());
    let started = Instant::now();
    let (hanging, _) = {
        let accept = portal.listener.accept();
        let (accepted, event) =
            tokio::join!(accept, tokio::time::timeout(2 * PATIENCE, channel.next()));
        match event.expect("a hiccup") {
            Ok(Event::Hiccup { error, .. }) => assert_eq!(error, ConnectionError::ConnectTimeout),
            other => panic!("expected a hiccup, got {other:?}"),
        }
        accepted.unwrap()
    };
    assert!(
        started.elapsed() >= Duration::from_secs(15) && started.elapsed() < Duration::from_secs(17)
    );
    drop(hanging);
    let server = async {
        let mut visitor = portal.accept().await;
        visitor.join().await;
        visitor
    };
    let (event, _visitor) = tokio::join!(next(&mut channel), server);
    assert_eq!(event, Ok(Event::Connected));
}
