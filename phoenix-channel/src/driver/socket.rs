//! An open WebSocket: text in, text out, everything else handled or ignored here.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::error::ConnectionError;
use crate::frame::MAX_FRAME_BYTES;

/// Longest time that a connection on its way out is kept.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// WebSocket close code for "the frame carried none" (RFC 6455 §7.4.1).
const NO_STATUS: u16 = 1005;

/// TCP, with or without TLS.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

pub(super) struct Socket {
    inner: WebSocketStream<Box<dyn Transport>>,
}

/// What arrived.
pub(super) enum Incoming {
    Text(String),
    /// The connection is over.
    End(ConnectionError),
}

impl Socket {
    pub(super) fn new(inner: WebSocketStream<Box<dyn Transport>>) -> Self {
        Self { inner }
    }

    /// Limits of every connection: incoming messages are bounded, outgoing ones are flushed one by one.
    pub(super) fn config() -> WebSocketConfig {
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = 16 * 1024;
        config.max_message_size = Some(MAX_FRAME_BYTES);
        config.max_frame_size = Some(MAX_FRAME_BYTES);
        config
    }

    /// Hands everything accepted so far to the kernel.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(transport)
    }

    /// Accepts one text frame.
    pub(super) fn start_send(&mut self, text: String) -> Result<(), ConnectionError> {
        Pin::new(&mut self.inner)
            .start_send(Message::text(text))
            .map_err(transport)
    }

    /// Next text frame, or the end. Pings are answered by the library.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => {
                    return Poll::Ready(Incoming::Text(text.as_str().to_owned()));
                }
                Some(Ok(Message::Binary(_))) => {
                    tracing::warn!("ignoring binary message of the portal")
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    return Poll::Ready(Incoming::End(closed(frame)));
                }
                Some(Err(error)) => return Poll::Ready(Incoming::End(transport(error))),
                None => return Poll::Ready(Incoming::End(closed(None))),
            }
        }
    }

    /// Ends the connection: sends a close frame, or completes the portal's, and waits for the other side.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            let normal = CloseFrame {
                code: CloseCode::Normal,
                reason: Default::default(),
            };
            if self.inner.send(Message::Close(Some(normal))).await.is_err() {
                let _ = self.inner.flush().await;
            }
            while let Some(Ok(_)) = self.inner.next().await {}
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

fn transport(error: Error) -> ConnectionError {
    ConnectionError::Transport(error.to_string())
}

fn closed(frame: Option<CloseFrame>) -> ConnectionError {
    match frame {
        Some(frame) => ConnectionError::Closed {
            code: frame.code.into(),
            reason: frame.reason.to_string(),
        },
        None => ConnectionError::Closed {
            code: NO_STATUS,
            reason: String::new(),
        },
    }
}
