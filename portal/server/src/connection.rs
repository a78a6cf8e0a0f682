//! One component's WebSocket: frames in, messages out, idle time-out, Close frames (portal protocol §1.6, §1.9, §7.8).

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use connlib_messages::Dialect;
use phoenix_channel::frame::Frame;
use portal_core::{CloseReason, ConnectionId, Request, token::Component};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::actor::{Admission, Input, ToConnection};

/// Largest frame of a component: 128 candidates of 512 bytes, or 1000 gateway ids, with room.
pub(crate) const MAX_FRAME: usize = 128 * 1024;
/// How long a component may take to read one message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a component may take to answer a Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a component may be silent (portal protocol §1.9). Heartbeats come every 10 or 30 seconds.
pub(crate) const fn idle_timeout(component: Component, dialect: Dialect) -> Duration {
    match (component, dialect) {
        (Component::Gateway, _) | (Component::Client, Dialect::V2) => Duration::from_secs(37),
        (Component::Relay, _) => Duration::from_secs(41),
        (Component::Client, Dialect::Unversioned) => Duration::from_secs(307),
    }
}

/// Reports the end of a connection, however it comes about.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) id: ConnectionId,
    pub(crate) inputs: mpsc::Sender<Input>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Some(runtime) = tokio::runtime::Handle::try_current().ok() else {
            return;
        };
        let (id, inputs) = (self.id, self.inputs.clone());
        runtime.spawn(async move {
            // Fails only when the portal has ended.
            let _ = inputs.send(Input::Disconnected(id)).await;
        });
    }
}

/// Why the loop ended, and what to tell the component.
enum End {
    Close(u16, &'static str),
    Gone,
}

/// Runs a connection to its end.
pub(crate) async fn run(
    mut socket: WebSocket,
    admission: Admission,
    presence: Presence,
    idle: Duration,
) {
    let end = exchange(&mut socket, admission, &presence, idle).await;
    if let End::Close(code, reason) = end {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        let goodbye = async {
            if socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        };
        // Whoever does not answer is gone either way.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        tracing::debug!(connection = presence.id.number(), reason, "closed");
    }
    tracing::info!(connection = presence.id.number(), "disconnected");
}

async fn exchange(
    socket: &mut WebSocket,
    admission: Admission,
    presence: &Presence,
    idle: Duration,
) -> End {
    let Admission { id, mut messages } = admission;
    let silence = tokio::time::sleep(idle);
    tokio::pin!(silence);
    loop {
        tokio::select! {
            message = messages.recv() => {
                let frame = match message {
                    Some(ToConnection::Frame(frame)) => frame,
                    Some(ToConnection::Close(reason)) => return close_frame(reason),
                    None => return End::Close(close_code::AGAIN, "too slow"),
                };
                tracing::trace!(target: "wire::portal::send", connection = id.number(), ?frame);
                let write = socket.send(Message::Text(frame.encode().into()));
                if !matches!(timeout(WRITE_TIMEOUT, write).await, Ok(Ok(()))) {
                    return End::Gone;
                }
            }
            message = socket.recv() => {
                silence.as_mut().reset(Instant::now() + idle);
                let Some(Ok(message)) = message else {
                    return End::Gone;
                };
                if let Err(end) = receive(id, message, presence).await {
                    return end;
                }
            }
            () = &mut silence => return End::Close(close_code::NORMAL, "idle"),
        }
    }
}

async fn receive(id: ConnectionId, message: Message, presence: &Presence) -> Result<(), End> {
    let text = match message {
        Message::Text(text) => text,
        Message::Binary(_) => {
            tracing::debug!(connection = id.number(), "ignoring a binary frame");
            return Ok(());
        }
        // Answered below this layer.
        Message::Ping(_) | Message::Pong(_) => return Ok(()),
        Message::Close(_) => return Err(End::Gone),
    };
    // A frame without all four members ends the socket, as it does everywhere.
    let frame = Frame::decode_strict(&text).map_err(|error| {
        tracing::debug!(connection = id.number(), %error, "closing a connection after a malformed frame");
        End::Close(close_code::INVALID, "malformed frame")
    })?;
    tracing::trace!(target: "wire::portal::recv", connection = id.number(), ?frame);
    let request = Request {
        topic: frame.topic,
        event: frame.event,
        payload: frame.payload,
        reference: frame.reference,
    };
    let sent = presence.inputs.send(Input::Request(id, request)).await;
    sent.map_err(|_| close_frame(CloseReason::Restart))
}

fn close_frame(reason: CloseReason) -> End {
    match reason {
        CloseReason::TokenEnded => End::Close(close_code::NORMAL, "token ended"),
        CloseReason::Replaced => End::Close(close_code::NORMAL, "connected again"),
        CloseReason::Restart => End::Close(close_code::RESTART, "restart"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{Router, extract::WebSocketUpgrade, routing::get};
    use futures_util::{SinkExt as _, StreamExt as _};
    use phoenix_channel::frame::Outgoing;
    use portal_core::{
        Login, LoginParameters, Output, Portal, Stored,
        config::Config,
        token::{Holder, Token, TokenHash},
    };
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite;

    use super::*;
    use crate::actor::time;

    const IDLE: Duration = Duration::from_millis(200);

    /// A portal's connection number; there is no other way to get one.
    fn connection_id() -> ConnectionId {
        let mut config = Config::default();
        let token = Token {
            name: "relay".to_owned(),
            holder: Holder::Relay,
            expires_at: None,
        };
        config.tokens.insert(TokenHash::of("relay"), token);
        let mut portal = Portal::new(config, Stored::default(), [1; 32], time());
        let login = Login {
            component: Component::Relay,
            dialect: Dialect::Unversioned,
            token: Some("relay".to_owned()),
            parameters: LoginParameters::from_query([("ipv4", "203.0.113.1")]),
            user_agent: None,
            remote_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            location: Default::default(),
        };
        let id = portal.connect(login, time()).unwrap();
        assert!(!matches!(portal.poll_output(), Some(Output::Close { .. })));
        id
    }

    /// Serves one connection; gives back where, what it reports, and what it is sent.
    async fn serve() -> (
        SocketAddr,
        mpsc::Receiver<Input>,
        mpsc::Sender<ToConnection>,
    ) {
        let (inputs, reports) = mpsc::channel(8);
        let (sender, messages) = mpsc::channel(8);
        let id = connection_id();
        let parts = std::sync::Arc::new(std::sync::Mutex::new(Some((
            Admission { id, messages },
            Presence { id, inputs },
        ))));
        let route = get(move |upgrade: WebSocketUpgrade| async move {
            let (admission, presence) = parts.lock().unwrap().take().unwrap();
            upgrade.on_upgrade(move |socket| run(socket, admission, presence, IDLE))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", route)).await });
        (address, reports, sender)
    }

    #[tokio::test]
    async fn silence_ends_the_connection_and_frames_keep_it() {
        let (address, mut reports, sender) = serve().await;
        let url = format!("ws://{address}/");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let heartbeat = tungstenite::Message::text(Frame::heartbeat(1).encode());
        for _ in 0..4 {
            tokio::time::sleep(IDLE / 2).await;
            socket.send(heartbeat.clone()).await.unwrap();
            assert!(matches!(reports.recv().await, Some(Input::Request(..))));
        }
        // What the portal says does not count.
        let push = Frame::push("relay", Outgoing::new("init", serde_json::json!({})));
        sender.send(ToConnection::Frame(push)).await.unwrap();
        assert!(matches!(
            socket.next().await,
            Some(Ok(tungstenite::Message::Text(_)))
        ));
        let close = timeout(Duration::from_secs(2), socket.next())
            .await
            .unwrap();
        assert!(matches!(
            close,
            Some(Ok(tungstenite::Message::Close(Some(_))))
        ));
        drop(socket);
        assert!(matches!(reports.recv().await, Some(Input::Disconnected(_))));
    }

    #[test]
    fn silence_allowed_is_longer_than_the_heartbeat_interval() {
        let components = [Component::Client, Component::Gateway, Component::Relay];
        for component in components {
            for dialect in [Dialect::Unversioned, Dialect::V2] {
                assert!(idle_timeout(component, dialect) > Duration::from_secs(35));
            }
        }
    }
}
