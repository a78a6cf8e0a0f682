//! A TURN client that does nothing by itself: every datagram is written out in the test.

use std::net::{SocketAddr, UdpSocket};

use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, ChannelNumber, Envelope, Integrity, Key, Outcome,
    Refresh, Request, RequestBody, Response, Success, TransactionId, channel,
};

use super::process::{credentials, receive, socket};

pub(crate) struct Raw {
    pub(crate) socket: UdpSocket,
    pub(crate) server: SocketAddr,
    username: String,
    password: String,
    nonce: Option<String>,
    transactions: u64,
}

impl Raw {
    pub(crate) fn new(server: SocketAddr, salt: &str) -> Self {
        Self::with_credentials(server, credentials(salt))
    }

    pub(crate) fn with_credentials(server: SocketAddr, credentials: (String, String)) -> Self {
        let own = match server.is_ipv4() {
            true => "127.0.0.1:0",
            false => "[::1]:0",
        };
        Self {
            socket: socket(own),
            server,
            username: credentials.0,
            password: credentials.1,
            nonce: None,
            transactions: 0,
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key::long_term(&self.username, "firezone", &self.password)
    }

    /// The next request, signed.
    pub(crate) fn signed(&mut self, body: RequestBody) -> Vec<u8> {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        let request = Request {
            transaction_id: TransactionId::new(id),
            auth: AuthAttributes {
                username: Some(self.username.clone()),
                realm: Some("firezone".to_owned()),
                nonce: self.nonce.clone(),
            },
            software: None,
            body,
        };
        request.encode(Some(&self.key())).unwrap()
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.server).unwrap();
    }

    /// One round trip; whether the reply is signed with the client's key.
    pub(crate) fn round_trip(&mut self, body: RequestBody) -> (Outcome, bool) {
        let request = self.signed(body);
        self.send(&request);
        let (reply, _) = receive(&self.socket);
        let envelope = Envelope::parse(&reply).unwrap();
        let is_signed = envelope.verify_integrity(&self.key()) == Integrity::Valid;
        (Response::decode(&envelope).unwrap().outcome, is_signed)
    }

    /// A request with as many round trips as its challenges take.
    pub(crate) fn ask(&mut self, body: RequestBody) -> Outcome {
        for _ in 0..3 {
            match self.round_trip(body.clone()).0 {
                Outcome::Error(error) if matches!(error.code.get(), 401 | 438) => {
                    self.nonce = error.nonce;
                }
                outcome => return outcome,
            }
        }
        panic!("the relay does not accept its own nonces");
    }

    /// The error code of a request, if any.
    pub(crate) fn code(&mut self, body: RequestBody) -> Option<u16> {
        match self.ask(body) {
            Outcome::Error(error) => Some(error.code.get()),
            Outcome::Success(_) => None,
        }
    }

    /// Allocates an IPv4 address; returns it.
    pub(crate) fn allocate(&mut self) -> SocketAddr {
        match self.ask(allocate()) {
            Outcome::Success(Success::Allocate { relayed, .. }) => relayed[0],
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr) {
        let outcome = self.ask(bind(number, peer));
        assert!(matches!(outcome, Outcome::Success(_)), "{outcome:?}");
    }
}

pub(crate) fn allocate() -> RequestBody {
    RequestBody::Allocate(Allocate {
        requested_transport: Some(Allocate::UDP),
        ..Allocate::default()
    })
}

pub(crate) fn bind(number: u16, peer: SocketAddr) -> RequestBody {
    RequestBody::ChannelBind(ChannelBind {
        number: ChannelNumber::new(number),
        peer: Some(peer),
    })
}

pub(crate) fn refresh(lifetime: Option<u32>) -> RequestBody {
    RequestBody::Refresh(Refresh {
        lifetime,
        ..Refresh::default()
    })
}

/// Channel data.
pub(crate) fn framed(number: u16, payload: &[u8]) -> Vec<u8> {
    let number = ChannelNumber::new(number).unwrap();
    let mut bytes = channel::encode_header(number, payload.len() as u16).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}
