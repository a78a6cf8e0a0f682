//! A component as the network sees it: text frames over a WebSocket.

use std::{net::SocketAddr, time::Duration};

use connlib_messages::Key;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message, client::IntoClientRequest as _, http::Response, protocol::CloseFrame,
    },
};

use crate::portal::TestPortal;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    topic: &'static str,
    next_ref: u64,
}

/// Where the token goes.
pub(crate) enum Place {
    Query,
    Header,
}

pub(crate) fn query(external_id: &str, key: u8) -> String {
    let pairs = [
        ("external_id", external_id),
        ("name", "a name"),
        ("public_key", &Key([key; 32]).to_string()),
    ];
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

impl Peer {
    pub(crate) async fn client(portal: &TestPortal) -> Self {
        let query = query("91716062d5e1e2ea", 1);
        let token = (Place::Query, portal.client_token.as_str());
        Self::join(portal, "client", "/client/websocket", &query, token).await
    }

    pub(crate) async fn gateway(portal: &TestPortal) -> Self {
        let query = query("a gateway", 2);
        let token = (Place::Query, portal.gateway_token.as_str());
        Self::join(portal, "gateway", "/gateway/websocket", &query, token).await
    }

    pub(crate) async fn relay(portal: &TestPortal) -> Self {
        let query = "ipv4=203.0.113.5&ipv6=2001%3Adb8%3A%3A5&port=3479";
        let token = (Place::Query, portal.relay_token.as_str());
        Self::join(portal, "relay", "/relay/websocket", query, token).await
    }

    /// Connects and joins as components do.
    pub(crate) async fn join(
        portal: &TestPortal,
        topic: &'static str,
        path: &str,
        query: &str,
        token: (Place, &str),
    ) -> Self {
        let mut peer = Self::connect(portal.address, topic, path, query, Some(token))
            .await
            .unwrap();
        let payload = match topic {
            "relay" => json!({ "stamp_secret": "7d".repeat(32) }),
            _ => Value::Null,
        };
        peer.send("phx_join", payload).await;
        let reply = peer.frame().await;
        assert_eq!(
            reply,
            json!({"topic": topic, "event": "phx_reply", "ref": 0, "payload": {"status": "ok", "response": {}}})
        );
        peer
    }

    pub(crate) async fn connect(
        address: SocketAddr,
        topic: &'static str,
        path: &str,
        query: &str,
        token: Option<(Place, &str)>,
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        let mut url = format!("ws://{address}{path}?{query}");
        let mut header = None;
        match token {
            Some((Place::Query, token)) => {
                url = format!("ws://{address}{path}?token={token}&{query}")
            }
            Some((Place::Header, token)) => header = Some(format!("Bearer {token}")),
            None => {}
        }
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert(
            "user-agent",
            "Ubuntu/24.04 connlib/1.5.0 (x86_64)".parse().unwrap(),
        );
        if let Some(header) = header {
            headers.insert("x-authorization", header.parse().unwrap());
        }
        let tcp = TcpStream::connect(address).await.unwrap();
        match client_async(request, tcp).await {
            Ok((socket, _)) => Ok(Self {
                socket,
                topic,
                next_ref: 0,
            }),
            Err(tungstenite::Error::Http(response)) => Err(*response),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn send(&mut self, event: &str, payload: Value) -> u64 {
        let topic = self.topic;
        self.send_on(topic, event, payload).await
    }

    pub(crate) async fn send_on(&mut self, topic: &str, event: &str, payload: Value) -> u64 {
        let reference = self.next_ref;
        self.next_ref += 1;
        let frame = json!({"topic": topic, "event": event, "payload": payload, "ref": reference});
        self.send_text(&frame.to_string()).await;
        reference
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next text frame.
    pub(crate) async fn frame(&mut self) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("expected a frame, got {other:?}"),
            }
        }
    }

    /// The payload of the next frame, which must be this push.
    pub(crate) async fn push(&mut self, event: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["event"], event, "{frame}");
        assert_eq!(frame["topic"], self.topic);
        assert_eq!(frame["ref"], Value::Null);
        frame["payload"].clone()
    }

    /// Waits for the server to close.
    pub(crate) async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            match self.message().await {
                Some(Message::Close(frame)) => return frame,
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn hears_nothing(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.socket.next())
            .await
            .is_err()
    }

    async fn message(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE, self.socket.next()).await;
        next.expect("nothing came in time").and_then(Result::ok)
    }
}
