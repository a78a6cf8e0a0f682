//! A small TURN relay for tests: enough of RFC 8656 to relay by channels, with switches for misbehaviour.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use connlib_snownet::RelayConfig;
use connlib_stun::channel::{ChannelData, encode_header};
use connlib_stun::{ChannelNumber, ChannelRange};
use connlib_stun::{
    Class, Envelope, ErrorCode, ErrorResponse, Integrity, Key, Method, Outcome, PacketKind,
    Request, RequestBody, Response, Success, classify,
};
use netsim::HostId;

pub const TURN_PORT: u16 = 3478;
const LIFETIME: Duration = Duration::from_secs(600);

/// A datagram that the relay sends: source, destination, payload.
pub type Output = (SocketAddr, SocketAddr, Vec<u8>);

pub struct Relay {
    pub id: u32,
    pub host: HostId,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// A dead relay swallows everything.
    pub alive: bool,
    /// A full relay refuses new allocations (486).
    pub full: bool,
    pub password: String,
    /// Requests seen, by method.
    pub requests: Vec<(Instant, Method)>,
    incarnation: u32,
    next_port: u16,
    allocations: BTreeMap<SocketAddr, Allocation>,
}

struct Allocation {
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    expires: Instant,
    channels: BTreeMap<ChannelNumber, (SocketAddr, Instant)>,
}

impl Relay {
    pub fn new(id: u32, host: HostId, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Self {
        Self {
            id,
            host,
            v4,
            v6,
            alive: true,
            full: false,
            password: "password".to_owned(),
            requests: Vec::new(),
            incarnation: 0,
            next_port: 49152,
            allocations: BTreeMap::new(),
        }
    }

    pub fn config(&self) -> RelayConfig<u32> {
        RelayConfig {
            id: self.id,
            v4: self.v4.map(|ip| SocketAddrV4::new(ip, TURN_PORT)),
            v6: self.v6.map(|ip| SocketAddrV6::new(ip, TURN_PORT, 0, 0)),
            username: "user".to_owned(),
            password: self.password.clone(),
            realm: "firezone".to_owned(),
        }
    }

    /// Forgets all state, as a new process under the same identity would.
    pub fn restart(&mut self, password: &str) {
        self.allocations.clear();
        self.incarnation += 1;
        self.password = password.to_owned();
    }

    pub fn handle(
        &mut self,
        to: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Output> {
        if !self.alive {
            return None;
        }
        self.allocations.retain(|_, a| now < a.expires);
        if to.port() != TURN_PORT {
            return self.relay_in(to, from, datagram, now);
        }
        match classify(datagram, ChannelRange::Strict) {
            PacketKind::Stun => self.request(to, from, datagram, now),
            PacketKind::ChannelData => self.relay_out(from, datagram, now),
            PacketKind::Other => None,
        }
    }

    fn relay_out(&mut self, client: SocketAddr, datagram: &[u8], now: Instant) -> Option<Output> {
        let data = ChannelData::parse(datagram, ChannelRange::Strict).ok()?;
        let allocation = self.allocations.get(&client)?;
        let (peer, bound_at) = allocation.channels.get(&data.number)?;
        if now >= *bound_at + LIFETIME {
            return None;
        }
        let source = if peer.is_ipv4() {
            allocation.v4
        } else {
            allocation.v6
        };
        Some((source?, *peer, data.payload.to_vec()))
    }

    fn relay_in(
        &mut self,
        relayed: SocketAddr,
        peer: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Output> {
        let (client, allocation) = self
            .allocations
            .iter()
            .find(|(_, a)| a.v4 == Some(relayed) || a.v6 == Some(relayed))?;
        let (number, _) = allocation
            .channels
            .iter()
            .find(|(_, (p, at))| *p == peer && now < *at + LIFETIME)?;
        let mut payload = encode_header(*number, datagram.len() as u16).to_vec();
        payload.extend_from_slice(datagram);
        Some((self.server_for(*client)?, *client, payload))
    }

    fn request(
        &mut self,
        to: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Output> {
        let envelope = Envelope::parse(datagram).ok()?;
        if envelope.class() != Class::Request {
            return None;
        }
        let request = Request::decode(&envelope).ok()?;
        self.requests.push((now, request.method()));
        let key = Key::long_term("user", "firezone", &self.password);
        let mut signed = true;
        let outcome = if request.body == RequestBody::Binding {
            signed = false;
            Ok(Success::Binding { mapped: Some(from) })
        } else if envelope.verify_integrity(&key) != Integrity::Valid {
            signed = false;
            Err(self.challenge(ErrorCode::UNAUTHORIZED))
        } else if request.auth.nonce.as_deref() != Some(&self.nonce()) {
            // Signed, as the client acts only on authentic refusals.
            Err(self.challenge(if request.auth.nonce.is_none() {
                ErrorCode::UNAUTHORIZED
            } else {
                ErrorCode::STALE_NONCE
            }))
        } else {
            self.serve(request.body, from, now)
                .map_err(ErrorResponse::new)
        };
        let response = Response {
            transaction_id: request.transaction_id,
            method: envelope.method(),
            software: None,
            outcome: match outcome {
                Ok(success) => Outcome::Success(success),
                Err(error) => Outcome::Error(error),
            },
        };
        let bytes = response.encode(signed.then_some(&key)).ok()?;
        Some((to, from, bytes))
    }

    fn serve(
        &mut self,
        body: RequestBody,
        client: SocketAddr,
        now: Instant,
    ) -> Result<Success, ErrorCode> {
        match body {
            RequestBody::Allocate(_) => self.allocate(client, now),
            RequestBody::Refresh(refresh) => {
                let allocation = self
                    .allocations
                    .get_mut(&client)
                    .ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
                if refresh.lifetime == Some(0) {
                    self.allocations.remove(&client);
                    return Ok(Success::Refresh { lifetime: Some(0) });
                }
                allocation.expires = now + LIFETIME;
                Ok(Success::Refresh {
                    lifetime: Some(LIFETIME.as_secs() as u32),
                })
            }
            RequestBody::ChannelBind(bind) => {
                let allocation = self
                    .allocations
                    .get_mut(&client)
                    .ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
                let number = bind.number.ok_or(ErrorCode::BAD_REQUEST)?;
                let peer = bind.peer.ok_or(ErrorCode::BAD_REQUEST)?;
                allocation.channels.insert(number, (peer, now));
                Ok(Success::ChannelBind)
            }
            RequestBody::Binding | RequestBody::CreatePermission(_) => Err(ErrorCode::BAD_REQUEST),
        }
    }

    fn allocate(&mut self, client: SocketAddr, now: Instant) -> Result<Success, ErrorCode> {
        if self.allocations.contains_key(&client) {
            return Err(ErrorCode::ALLOCATION_MISMATCH);
        }
        if self.full {
            return Err(ErrorCode::QUOTA_REACHED);
        }
        let port = self.next_port;
        self.next_port += 1;
        let v4 = self.v4.map(|ip| SocketAddr::new(ip.into(), port));
        let v6 = self.v6.map(|ip| SocketAddr::new(ip.into(), port));
        self.allocations.insert(
            client,
            Allocation {
                v4,
                v6,
                expires: now + LIFETIME,
                channels: BTreeMap::new(),
            },
        );
        Ok(Success::Allocate {
            relayed: v4.into_iter().chain(v6).collect(),
            mapped: Some(client),
            lifetime: Some(LIFETIME.as_secs() as u32),
            address_error: None,
        })
    }

    fn challenge(&self, code: ErrorCode) -> ErrorResponse {
        ErrorResponse {
            realm: Some("firezone".to_owned()),
            nonce: Some(self.nonce()),
            ..ErrorResponse::new(code)
        }
    }

    fn nonce(&self) -> String {
        format!("nonce-{}", self.incarnation)
    }

    fn server_for(&self, client: SocketAddr) -> Option<SocketAddr> {
        let ip: IpAddr = if client.is_ipv4() {
            self.v4?.into()
        } else {
            self.v6?.into()
        };
        Some(SocketAddr::new(ip, TURN_PORT))
    }
}
