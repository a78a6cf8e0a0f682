//! A TURN client that knows no more than a load needs: allocate, bind one channel, refresh (RFC 8656).
//!
//! It is not `connlib-turn-client`, because that one holds servers to what Firezone's clients demand (every reply signed,
//! even the first challenge), and other servers do not sign that one.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, ChannelNumber, Envelope, ErrorCode, ErrorResponse,
    Family, Integrity, Key, Outcome, Refresh, Request, RequestBody, Response, Success,
    TransactionId,
};

use crate::{load::Version, turn::credentials::Credentials};

/// The first wait for a reply; each further one is twice as long.
const FIRST_TIMEOUT: Duration = Duration::from_millis(250);
/// How often a request is sent before the server counts as silent: after 8 s.
const ATTEMPTS: u32 = 5;
/// How often a request may be asked for in another form: by 400 for an unsigned one, by 401 for one with realm and nonce,
/// by 438 for one with a newer nonce, and with success.
const FORMS: u32 = 4;
/// Room for a reply.
const REPLY_BYTES: usize = 2048;

/// One client, with a socket connected to the server.
#[derive(Debug)]
pub(crate) struct Client {
    socket: UdpSocket,
    credentials: Credentials,
    realm: String,
    authentication: Authentication,
    key: Key,
    next_transaction: u64,
}

/// How requests are signed.
#[derive(Debug)]
enum Authentication {
    /// At first, with a guess of the realm: our relay limits the rate of replies to unsigned requests.
    WithoutNonce,
    /// For servers that refuse that: not at all, until they send a challenge.
    Unsigned,
    /// As a challenge has asked for.
    WithNonce(String),
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    /// What its response will repeat.
    pub(crate) transaction_id: TransactionId,
    /// When it was sent.
    pub(crate) sent_at: Instant,
}

/// What a response meant.
#[derive(Debug)]
enum Verdict {
    Success(Success),
    Refused(ErrorCode),
    /// What it asks for is noted; the request should be sent again.
    Challenged,
}

impl Client {
    /// A client on a blocking socket that is connected to the server.
    pub(crate) fn new(socket: UdpSocket, credentials: Credentials) -> Self {
        Self {
            socket,
            realm: credentials.realm.clone(),
            authentication: Authentication::WithoutNonce,
            key: credentials.key(&credentials.realm),
            credentials,
            next_transaction: 0,
        }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Asks for a relayed address of a version and returns it.
    ///
    /// # Errors
    ///
    /// If the server refuses or does not answer.
    pub(crate) fn allocate(&mut self, version: Version) -> Result<SocketAddr> {
        let family = match version {
            // The default of every server.
            Version::V4 => None,
            Version::V6 => Some(Family::V6),
        };
        let success = self.request(RequestBody::Allocate(Allocate {
            requested_transport: Some(Allocate::UDP),
            requested_family: family,
            ..Allocate::default()
        }))?;
        let Success::Allocate { relayed, .. } = success else {
            bail!("the server answered Allocate by something else");
        };
        relayed
            .into_iter()
            .find(|relayed| Version::of(relayed.ip()) == version)
            .context("the server gave no address of the family that was asked for")
    }

    /// Binds a channel to a peer.
    ///
    /// # Errors
    ///
    /// As [`Self::allocate`].
    pub(crate) fn bind(&mut self, number: ChannelNumber, peer: SocketAddr) -> Result<()> {
        self.request(RequestBody::ChannelBind(ChannelBind {
            number: Some(number),
            peer: Some(peer),
        }))
        .map(drop)
    }

    /// Deletes the allocation.
    ///
    /// # Errors
    ///
    /// As [`Self::allocate`].
    pub(crate) fn free(&mut self) -> Result<()> {
        self.socket.set_nonblocking(false)?;
        self.request(RequestBody::Refresh(Refresh {
            lifetime: Some(0),
            ..Refresh::default()
        }))
        .map(drop)
    }

    /// Sends a Refresh without waiting; its response goes to [`Self::handle`].
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn send_refresh(&mut self, now: Instant) -> Result<Pending> {
        let (transaction_id, bytes) = self.encode(RequestBody::Refresh(Refresh::default()))?;
        self.socket.send(&bytes)?;
        Ok(Pending {
            transaction_id,
            sent_at: now,
        })
    }

    /// Takes a datagram that may be the response to `pending`: `None` if it is not, else whether it is a success. After
    /// a challenge, which is none, the next Refresh will pass.
    pub(crate) fn handle(&mut self, datagram: &[u8], pending: Pending) -> Option<bool> {
        match self.judge(datagram, pending.transaction_id).ok()?? {
            Verdict::Success(_) => Some(true),
            Verdict::Refused(_) | Verdict::Challenged => Some(false),
        }
    }

    fn request(&mut self, body: RequestBody) -> Result<Success> {
        let method = body.method();
        for _ in 0..FORMS {
            match self.exchange(&body)? {
                Verdict::Success(success) => return Ok(success),
                Verdict::Refused(code) => bail!("the server refused {method:?}: {code}"),
                Verdict::Challenged => {}
            }
        }
        bail!("the server does not accept user name and password for {method:?}");
    }

    /// Sends until there is a response.
    fn exchange(&mut self, body: &RequestBody) -> Result<Verdict> {
        let (transaction_id, bytes) = self.encode(body.clone())?;
        let mut timeout = FIRST_TIMEOUT;
        for _ in 0..ATTEMPTS {
            self.send(&bytes)?;
            let deadline = Instant::now() + timeout;
            while let Some(reply) = self.receive_until(deadline)? {
                if let Some(verdict) = self.judge(&reply, transaction_id)? {
                    return Ok(verdict);
                }
            }
            timeout *= 2;
        }
        bail!("the server at {} does not answer", self.socket.peer_addr()?);
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        match self.socket.send(bytes) {
            // An earlier datagram met a closed port; the next wait will tell.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    fn receive_until(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut buffer = vec![0; REPLY_BYTES];
        match self.socket.recv(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                bail!("nothing listens at {}", self.socket.peer_addr()?)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn encode(&mut self, body: RequestBody) -> Result<(TransactionId, Vec<u8>)> {
        self.next_transaction += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.next_transaction.to_be_bytes());
        let transaction_id = TransactionId::new(id);
        let signed = |nonce| AuthAttributes {
            username: Some(self.credentials.username.clone()),
            realm: Some(self.realm.clone()),
            nonce,
        };
        let (auth, key) = match &self.authentication {
            Authentication::WithoutNonce => (signed(None), Some(&self.key)),
            Authentication::Unsigned => (AuthAttributes::default(), None),
            Authentication::WithNonce(nonce) => (signed(Some(nonce.clone())), Some(&self.key)),
        };
        let request = Request {
            transaction_id,
            auth,
            software: None,
            body,
        };
        Ok((transaction_id, request.encode(key)?))
    }

    /// `None` if the datagram is no response to the request.
    fn judge(&mut self, datagram: &[u8], request: TransactionId) -> Result<Option<Verdict>> {
        let Ok(envelope) = Envelope::parse(datagram) else {
            return Ok(None);
        };
        if envelope.transaction_id() != request {
            return Ok(None);
        }
        let response = Response::decode(&envelope).context("unreadable response")?;
        Ok(Some(match response.outcome {
            Outcome::Success(success) => {
                ensure!(
                    matches!(envelope.verify_integrity(&self.key), Integrity::Valid),
                    "the server's response is not signed with the key of this user"
                );
                Verdict::Success(success)
            }
            Outcome::Error(error) => self.handle_error(error),
        }))
    }

    fn handle_error(&mut self, error: ErrorResponse) -> Verdict {
        if let (ErrorCode::BAD_REQUEST, Authentication::WithoutNonce) =
            (error.code, &self.authentication)
        {
            self.authentication = Authentication::Unsigned;
            return Verdict::Challenged;
        }
        let is_challenge = [ErrorCode::UNAUTHORIZED, ErrorCode::STALE_NONCE].contains(&error.code);
        let Some(nonce) = error.nonce.filter(|_| is_challenge) else {
            return Verdict::Refused(error.code);
        };
        self.authentication = Authentication::WithNonce(nonce);
        if let Some(realm) = error.realm.filter(|realm| *realm != self.realm) {
            self.key = self.credentials.key(&realm);
            self.realm = realm;
        }
        Verdict::Challenged
    }
}
