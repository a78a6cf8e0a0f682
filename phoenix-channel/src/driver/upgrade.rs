//! The WebSocket upgrade (RFC 6455 §4.1), written out by hand for two reasons: the library's own would write the request
//! with the token into its log, and would cut off the body of a refusal, which says whether the token is at fault.

use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_key};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::socket::{Socket, Transport};
use crate::error::ConnectionError;
use crate::http;
use crate::login::Token;

/// Largest head of a response, and largest part of a body that is read.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// What the portal is asked.
pub(super) struct Request {
    /// Path and query.
    pub(super) target: String,
    pub(super) host: String,
    pub(super) user_agent: String,
    pub(super) token: Option<Token>,
}

/// Asks for the upgrade and checks the answer.
pub(super) async fn upgrade(
    mut transport: Box<dyn Transport>,
    request: &Request,
) -> Result<Socket, ConnectionError> {
    let key = generate_key();
    let head = request
        .head(&key)
        .ok_or_else(|| protocol("host, user agent or token contain control characters"))?;
    transport.write_all(head.as_bytes()).await.map_err(lost)?;
    transport.flush().await.map_err(lost)?;

    let mut received = Vec::new();
    let (end, response) = read_head(&mut transport, &mut received).await?;
    let rest = received.split_off(end);
    if response.status() != 101 {
        let body = read_body(&mut transport, rest, response.headers()).await;
        return Err(refusal(&response, &body));
    }
    check_accepted(response.headers(), &key)?;
    let config = Some(Socket::config());
    let stream = WebSocketStream::from_partially_read(transport, rest, Role::Client, config).await;
    Ok(Socket::new(stream))
}

impl Request {
    /// The request's text; `None` if a value would break out of its line.
    fn head(&self, key: &str) -> Option<String> {
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {}\r\n",
            self.target, self.host, self.user_agent
        );
        let token = self.token.as_ref().map_or("", Token::expose);
        if !token.is_empty() {
            head.push_str(&format!("X-Authorization: Bearer {token}\r\n"));
        }
        head.push_str("\r\n");
        let values = [&self.target, &self.host, &self.user_agent, token];
        let is_clean = values
            .iter()
            .all(|value| !value.bytes().any(|b| b.is_ascii_control()));
        is_clean.then_some(head)
    }
}

/// Reads up to the empty line; returns where the head ends in `received`.
async fn read_head(
    transport: &mut Box<dyn Transport>,
    received: &mut Vec<u8>,
) -> Result<(usize, Response), ConnectionError> {
    loop {
        if transport.read_buf(received).await.map_err(lost)? == 0 {
            return Err(protocol("connection closed during the upgrade"));
        }
        if let Some(parsed) =
            Response::try_parse(received).map_err(|error| protocol(&error.to_string()))?
        {
            return Ok(parsed);
        }
        if received.len() > MAX_RESPONSE_BYTES {
            return Err(protocol("the answer to the upgrade is too long"));
        }
    }
}

/// Reads as much of the body as its length says, within limits. Errors only cut it short: the status counts.
async fn read_body(
    transport: &mut Box<dyn Transport>,
    mut body: Vec<u8>,
    headers: &HeaderMap,
) -> Vec<u8> {
    let announced = header(headers, "content-length").and_then(|length| length.parse().ok());
    let wanted = announced.unwrap_or(body.len()).min(MAX_RESPONSE_BYTES);
    while body.len() < wanted {
        match transport.read_buf(&mut body).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    body.truncate(wanted);
    body
}

fn refusal(response: &Response, body: &[u8]) -> ConnectionError {
    let headers = response.headers();
    let answer = http::Response {
        status: response.status().as_u16(),
        content_type: header(headers, "content-type"),
        retry_after: header(headers, "retry-after"),
        body,
    };
    http::classify(answer, SystemTime::now())
}

/// RFC 6455 §4.1: what a server must answer, and must not answer unasked.
fn check_accepted(headers: &HeaderMap, key: &str) -> Result<(), ConnectionError> {
    let has_token = |name, wanted: &str| {
        header(headers, name).is_some_and(|value| {
            value
                .split(',')
                .any(|word| word.trim().eq_ignore_ascii_case(wanted))
        })
    };
    if !has_token("upgrade", "websocket") || !has_token("connection", "upgrade") {
        return Err(protocol("the answer is no WebSocket upgrade"));
    }
    if header(headers, "sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(protocol("the answer belongs to another upgrade"));
    }
    let unasked = ["sec-websocket-extensions", "sec-websocket-protocol"];
    match unasked.into_iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(protocol(&format!(
            "the answer contains {name}, which was not asked for"
        ))),
        None => Ok(()),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn lost(error: std::io::Error) -> ConnectionError {
    ConnectionError::Transport(error.to_string())
}

fn protocol(what: &str) -> ConnectionError {
    ConnectionError::Transport(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            target: "/gateway/websocket?name=x".to_owned(),
            host: "portal.example:8080".to_owned(),
            user_agent: "Ubuntu/24.04 connlib/1.5.0".to_owned(),
            token: Some(Token::new(".secret")),
        }
    }

    #[test]
    fn portal_10_request_has_exactly_the_known_headers() {
        assert_eq!(
            request().head("KEY").unwrap(),
            "GET /gateway/websocket?name=x HTTP/1.1\r\nHost: portal.example:8080\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\
             User-Agent: Ubuntu/24.04 connlib/1.5.0\r\nX-Authorization: Bearer .secret\r\n\r\n"
        );
    }

    #[test]
    fn without_a_token_there_is_no_header_for_it() {
        let request = Request {
            token: None,
            ..request()
        };
        assert!(!request.head("KEY").unwrap().contains("uthorization"));
    }

    #[test]
    fn values_cannot_break_out_of_their_line() {
        let request = Request {
            user_agent: "x\r\nCookie: y".to_owned(),
            ..request()
        };
        assert!(request.head("KEY").is_none());
    }

    #[test]
    fn unasked_extensions_are_refused() {
        let accept = derive_accept_key(b"KEY");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert!(check_accepted(&headers, "KEY").is_err(), "no accept key");
        headers.insert("sec-websocket-accept", accept.parse().unwrap());
        assert_eq!(check_accepted(&headers, "KEY"), Ok(()));
        headers.insert(
            "sec-websocket-extensions",
            "permessage-deflate".parse().unwrap(),
        );
        assert!(check_accepted(&headers, "KEY").is_err());
    }
}
