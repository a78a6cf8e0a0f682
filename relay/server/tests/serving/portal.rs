//! The session with a portal, scripted: C-50, C-51.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::{SinkExt as _, StreamExt as _};
use phoenix_channel::Frame;
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
    process::{PATIENCE, PUBLIC_V4, PUBLIC_V6, Relay, SECRET, ports},
};

struct Portal {
    listener: TcpListener,
}

/// A relay's connection and the target of its request.
struct Visit {
    socket: WebSocketStream<TcpStream>,
    target: String,
    user_agent: String,
}

impl Portal {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { listener }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn accept(&self) -> Visit {
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
    async fn join(&mut self) {
        let join = self.frame().await;
        assert_eq!(
            (join.topic.as_str(), join.event.as_str()),
            ("relay", "phx_join")
        );
        assert_eq!(join.payload, json!({"stamp_secret": SECRET}));
        let reply = Frame::reply_ok(join.topic, join.reference.unwrap(), json!({}));
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

#[test]
fn an_unencrypted_public_portal_is_refused() {
    let relay = Relay::start(ports(), &["--api-url", "ws://api.example.com"]);
    assert!(!relay.wait().success());
}
