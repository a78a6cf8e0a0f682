//! The session with a portal, scripted: C-50, C-51.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use phoenix_channel::{Frame, frame::HEARTBEAT};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

use super::{
    client::Client,
    process::{
        Launch, PATIENCE, PUBLIC_V4, PUBLIC_V6, Relay, SECRET, credentials_from, ports, socket,
    },
    restart::{BACK_WITHIN, OTHER_SECRET, transfer},
};

/// A portal that does what a test says.
pub(crate) struct Portal {
    listener: TcpListener,
}

/// A relay's connection and the target of its request.
pub(crate) struct Visit {
    socket: WebSocketStream<TcpStream>,
    target: String,
    user_agent: String,
}

impl Portal {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { listener }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> Visit {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept());
        let (stream, _) = accepted.await.expect("the relay connects").unwrap();
        let (mut target, mut user_agent) = (String::new(), String::new());
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let note = |request: &Request, response: Response| {
            target = request.uri().to_string();
            user_agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, note)
            .await
            .unwrap();
        Visit {
            socket,
            target,
            user_agent,
        }
    }
}

impl Visit {
    async fn frame(&mut self) -> Frame {
        let next = tokio::time::timeout(PATIENCE, self.socket.next());
        match next.await.expect("a frame arrives").unwrap().unwrap() {
            Message::Text(text) => Frame::decode_strict(text.as_str()).unwrap(),
            other => panic!("expected a text frame, got {other:?}"),
        }
    }

    /// Reads the join, checks it and accepts it.
    pub(crate) async fn join(&mut self) {
        self.join_with(SECRET).await;
    }

    async fn join_with(&mut self, secret: &str) {
        let join = self.frame().await;
        assert_eq!(
            (join.topic.as_str(), join.event.as_str()),
            ("relay", "phx_join")
        );
        assert_eq!(join.payload, json!({"stamp_secret": secret}));
        self.accept(join).await;
    }

    /// Reads a heartbeat and answers it.
    pub(crate) async fn heartbeat(&mut self) {
        let heartbeat = self.frame().await;
        assert_eq!(heartbeat.event, HEARTBEAT);
        self.accept(heartbeat).await;
    }

    /// Answers heartbeats that have arrived already.
    pub(crate) async fn answer_what_is_there(&mut self) {
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(50), self.frame()).await {
            assert_eq!(frame.event, HEARTBEAT);
            self.accept(frame).await;
        }
    }

    async fn accept(&mut self, asked: Frame) {
        let reply = Frame::reply_ok(asked.topic, asked.reference.unwrap(), json!({}));
        self.socket
            .send(Message::text(reply.encode()))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_51_session_with_the_portal() {
    let portal = Portal::new().await;
    let url = format!("ws://{}", portal.address());
    let first = ports();
    let relay = Relay::start(first, &["--api-url", &url, "token", "my relay"]);
    let mut visit = portal.accept().await;

    assert_eq!(
        visit.target,
        format!(
            "/relay/websocket?token=token&name=my+relay&ipv4={PUBLIC_V4}&ipv6={}&port={first}",
            PUBLIC_V6.replace(':', "%3A")
        )
    );
    assert!(visit.user_agent.contains("relay/"), "{}", visit.user_agent);

    // Serves before the portal has answered, but is not ready.
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let (mut client, relayed) = Client::allocated(server, "user");
    assert_eq!(relay.get("/readyz").unwrap().0, 503);
    assert_eq!(relay.get("/healthz").unwrap().0, 200);
    visit.join().await;
    relay.wait_for("/readyz", 200);

    // portal 83: the portal restarts; same secret, and no allocation notices.
    drop(visit);
    relay.wait_for("/readyz", 503);
    let mut visit = portal.accept().await;
    visit.join().await;
    relay.wait_for("/readyz", 200);
    let peer = super::process::socket("127.0.0.1:0");
    client.send(peer.local_addr().unwrap(), b"still there");
    let (payload, from) = super::process::receive(&peer);
    assert_eq!(
        (&payload[..], from.port()),
        (&b"still there"[..], relayed[0].port())
    );

    // portal 85: draining ends the session at once.
    relay.terminate();
    relay.wait_for("/readyz", 503);
    let end = tokio::time::timeout(PATIENCE, visit.socket.next()).await;
    assert!(
        matches!(end, Ok(Some(Ok(Message::Close(_))) | None)),
        "{end:?}"
    );
    drop(visit);
    client.send(peer.local_addr().unwrap(), b"to the end");
    assert_eq!(super::process::receive(&peer).0, b"to the end");
    relay.terminate();
    assert!(relay.wait().success());
}

/// The process ends in the middle of a transfer. With the same secret the portal sees a relay that blipped, and the client
/// goes on; with another one it sees a new relay, and only credentials of that one count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_51_restarts_in_the_middle_of_a_transfer() {
    let portal = Portal::new().await;
    let url = format!("ws://{}", portal.address());
    let (first, arguments) = (ports(), ["--api-url", &url]);
    let start = |secret| {
        let launch = Launch::new(first, &arguments);
        Launch { secret, ..launch }.start()
    };
    let relay = start(SECRET);
    portal.accept().await.join().await;
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let (mut client, _) = Client::allocated(server, "user");
    let peer = socket("127.0.0.1:0");
    transfer(&mut client, &peer);
    drop(relay);

    let relay = start(SECRET);
    let mut visit = portal.accept().await;
    visit.join_with(SECRET).await;
    relay.wait_for("/readyz", 200);
    let since = Instant::now();
    client.refresh();
    let back = transfer(&mut client, &peer);
    assert!(back - since < BACK_WITHIN, "{:?}", back - since);
    drop((relay, visit));

    let relay = start(OTHER_SECRET);
    let mut visit = portal.accept().await;
    visit.join_with(OTHER_SECRET).await;
    relay.wait_for("/readyz", 200);
    client.refresh();
    client.wait_until_given_up();
    let credentials = credentials_from(OTHER_SECRET, "user");
    let mut client = Client::with_credentials(server, credentials);
    client.wait_until_allocated();
    transfer(&mut client, &peer);
}

#[test]
fn an_unencrypted_public_portal_is_refused() {
    let relay = Relay::start(ports(), &["--api-url", "ws://api.example.com"]);
    assert!(!relay.wait().success());
}
