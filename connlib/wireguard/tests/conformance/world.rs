//! Two peers, a link with latency and loss, and one clock that jumps from deadline to deadline.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_wireguard::{
    Event, HandshakeLimiter, Inbound, IndexTable, LimitError, MAX_DATAGRAM, OpenError, Opened,
    Peer, PeerConfig, PrivateKey, PublicKey, Role, SealSink, Sealed, SpareOutcome, WallClock,
    classify, parse_init,
};
use ip_packet::{IpPacket, PacketBatch, Single};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

pub const CLIENT_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub const GATEWAY_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// What the wall clock shows at the start of every test.
pub const UNIX: Duration = Duration::from_secs(1_700_000_000);

pub const INIT: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const DATA: u8 = 4;

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Gateway,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Side::Client => Side::Gateway,
            Side::Gateway => Side::Client,
        }
    }

    fn ip(self) -> IpAddr {
        match self {
            Side::Client => CLIENT_IP,
            Side::Gateway => GATEWAY_IP,
        }
    }
}

/// One datagram on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Since the start of the world.
    pub at: Duration,
    pub from: Side,
    pub kind: u8,
    pub len: usize,
    /// Bytes 4..8: the sender's index of a handshake message, the receiver's index of everything else.
    pub index: u32,
    pub lost: bool,
}

impl Record {
    pub fn is_keepalive(&self) -> bool {
        self.kind == DATA && self.len == 32
    }
}

/// One of the two nodes, as far as a single peer needs one.
pub struct End {
    pub peer: Peer,
    pub private: PrivateKey,
    pub remote: PublicKey,
    pub limiter: HandshakeLimiter,
    pub indices: IndexTable,
    clock: WallClock,
    pub events: Vec<(Duration, Event)>,
    pub inbox: Vec<(Duration, u32)>,
    pub errors: Vec<(Duration, OpenError)>,
    /// When this end established the session that it sends under, by the receiver index it sends to.
    pub established: BTreeMap<u32, Instant>,
    /// Not driven at all while set: no timers, no datagrams.
    pub stalled: bool,
    backlog: Vec<Vec<u8>>,
    seed: u8,
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub client: End,
    pub gateway: End,
    pub latency: Duration,
    /// Added to the latency of each datagram, drawn from zero to this: reorders.
    pub jitter: Duration,
    pub trace: Vec<Record>,
    /// Datagrams for which this says `true` are lost.
    pub lose: Box<dyn FnMut(&Record) -> bool>,
    /// Every datagram that got onto the wire, for replays.
    pub capture: Vec<Vec<u8>>,
    wire: BTreeMap<(Instant, u64), (Side, Vec<u8>)>,
    sequence: u64,
    rng: ChaCha20Rng,
}

impl World {
    /// Two peers with the same preshared key; no path yet.
    pub fn new(seed: u8, latency: Duration) -> Self {
        Self::with_psks(seed, latency, [[9; 32], [9; 32]])
    }

    pub fn with_psks(
        seed: u8,
        latency: Duration,
        [client_psk, gateway_psk]: [[u8; 32]; 2],
    ) -> Self {
        let now = Instant::now();
        let client_key = PrivateKey::from_seed([seed ^ 0x11; 32]);
        let gateway_key = PrivateKey::from_seed([seed ^ 0x22; 32]);
        let (client_public, gateway_public) = (client_key.public(), gateway_key.public());

        Self {
            start: now,
            now,
            client: End::new(
                Role::Initiator,
                client_key,
                gateway_public,
                client_psk,
                seed,
                now,
            ),
            gateway: End::new(
                Role::Responder,
                gateway_key,
                client_public,
                gateway_psk,
                seed.wrapping_add(1),
                now,
            ),
            latency,
            jitter: Duration::ZERO,
            trace: Vec::new(),
            lose: Box::new(|_| false),
            capture: Vec::new(),
            wire: BTreeMap::new(),
            sequence: 0,
            rng: ChaCha20Rng::from_seed([seed; 32]),
        }
    }

    /// A world with a session, made at the returned time (at the client).
    pub fn connected(seed: u8, latency: Duration) -> (Self, Duration) {
        let mut world = Self::new(seed, latency);
        world.connect();
        let at = world.elapsed();
        (world, at)
    }

    /// Nominates a path and waits until the session is confirmed at the gateway; the clock then stands there.
    pub fn connect(&mut self) {
        self.path_ready();
        self.run_for(self.latency * 2 + self.jitter * 2);
        assert!(
            self.client.peer.is_usable(self.now),
            "client has no session"
        );
        self.run_for(self.latency + self.jitter);
        assert!(
            self.gateway.peer.is_usable(self.now),
            "gateway has no session"
        );
    }

    pub fn path_ready(&mut self) {
        self.gateway.peer.path_ready(self.now);
        self.client.peer.path_ready(self.now);
        self.drain();
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Gateway => &mut self.gateway,
        }
    }

    /// Seals one packet that carries `id`.
    pub fn send(&mut self, side: Side, id: u32) -> Sealed {
        self.send_many(side, id..=id)
    }

    /// Seals a batch of packets.
    pub fn send_many(&mut self, side: Side, ids: impl IntoIterator<Item = u32>) -> Sealed {
        let now = self.now;
        let mut sink = VecSink::default();
        let mut total = Sealed::default();
        for id in ids {
            let packet = packet(id);
            let sealed = self
                .end(side)
                .peer
                .seal(&mut Single::from(&packet), now, &mut sink);
            total.sent += sealed.sent;
            total.buffered += sealed.buffered;
            total.dropped += sealed.dropped;
        }
        for datagram in sink.datagrams {
            self.transmit(side, datagram);
        }
        self.drain();

        total
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.elapsed() + duration);
    }

    /// Advances exactly from event to event.
    pub fn run_until(&mut self, until: Duration) {
        let until = self.start + until;
        let mut rounds_at_instant = 0;

        self.drain();
        while let Some(next) = self.next_event().filter(|next| *next <= until) {
            rounds_at_instant = if next > self.now {
                0
            } else {
                rounds_at_instant + 1
            };
            assert!(rounds_at_instant < 100, "busy loop at {:?}", self.elapsed());
            self.now = self.now.max(next);

            self.deliver();
            for side in [Side::Client, Side::Gateway] {
                self.timeout(side);
            }
        }
        self.now = self.now.max(until);
    }

    /// Lets an end run again; what arrived meanwhile is handled first.
    pub fn resume(&mut self, side: Side) {
        self.end(side).stalled = false;
        for datagram in std::mem::take(&mut self.end(side).backlog) {
            self.open(side, &datagram);
        }
    }

    /// Hands a datagram to an end, the way a node does.
    pub fn open(&mut self, side: Side, datagram: &[u8]) -> Option<Result<Opened, OpenError>> {
        let now = self.now;
        let at = self.elapsed();
        let result = self.end(side).open(datagram, side.other().ip(), now, at);
        self.drain();

        result
    }

    /// Replaces the client by one with the same key and no memory, as after a lost connection.
    pub fn recreate_client(&mut self, psk: [u8; 32]) {
        self.recreate_client_with(psk, &[]);
    }

    /// The client starts over with `psk` and hears of further keys before it has a path.
    pub fn recreate_client_with(&mut self, psk: [u8; 32], further: &[[u8; 32]]) {
        self.drain();
        let now = self.now;
        self.client.recreate(Role::Initiator, psk, now);
        for psk in further {
            self.client.add_spare_psk(*psk);
        }
        self.client.peer.path_ready(now);
        self.drain();
    }

    pub fn sent(&self, from: Side, kind: u8) -> Vec<Record> {
        self.trace
            .iter()
            .filter(|record| record.from == from && record.kind == kind)
            .cloned()
            .collect()
    }

    pub fn inits_since(&self, since: Duration) -> Vec<Duration> {
        self.trace
            .iter()
            .filter(|record| record.kind == INIT && record.at >= since)
            .map(|record| record.at)
            .collect()
    }

    fn next_event(&self) -> Option<Instant> {
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let client = (!self.client.stalled)
            .then(|| self.client.peer.poll_timeout())
            .flatten();
        let gateway = (!self.gateway.stalled)
            .then(|| self.gateway.peer.poll_timeout())
            .flatten();

        [arrival, client, gateway].into_iter().flatten().min()
    }

    fn deliver(&mut self) {
        while let Some(entry) = self
            .wire
            .first_entry()
            .filter(|entry| entry.key().0 <= self.now)
        {
            let (side, datagram) = entry.remove();
            if self.end(side).stalled {
                self.end(side).backlog.push(datagram);
            } else {
                self.open(side, &datagram);
            }
        }
    }

    fn timeout(&mut self, side: Side) {
        let now = self.now;
        let end = self.end(side);
        if end.stalled || end.peer.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        end.peer.handle_timeout(now);
        self.drain();

        let deadline = self.end(side).peer.poll_timeout();
        assert!(
            deadline.is_none_or(|at| at > now),
            "{side:?} made no progress at {:?}",
            self.elapsed()
        );
    }

    fn drain(&mut self) {
        for side in [Side::Client, Side::Gateway] {
            let at = self.elapsed();
            let end = self.end(side);
            let mut datagrams = Vec::new();
            while let Some(datagram) = end.peer.poll_transmit() {
                datagrams.push(datagram.bytes.to_vec());
            }
            while let Some(event) = end.peer.poll_event() {
                end.events.push((at, event));
            }
            for datagram in datagrams {
                self.transmit(side, datagram);
            }
        }
    }

    fn transmit(&mut self, from: Side, datagram: Vec<u8>) {
        let now = self.now;
        let mut record = Record {
            at: self.elapsed(),
            from,
            kind: datagram[0],
            len: datagram.len(),
            index: u32::from_le_bytes(datagram[4..8].try_into().unwrap()),
            lost: false,
        };
        self.end(from).check(&record, now);

        record.lost = (self.lose)(&record);
        self.trace.push(record.clone());
        if record.lost {
            return;
        }
        let delay = self.latency + self.jitter.mul_f64(self.rng.random_range(0.0..=1.0));
        self.capture.push(datagram.clone());
        self.sequence += 1;
        self.wire
            .insert((now + delay, self.sequence), (from.other(), datagram));
    }
}

impl End {
    fn new(
        role: Role,
        private: PrivateKey,
        remote: PublicKey,
        psk: [u8; 32],
        seed: u8,
        now: Instant,
    ) -> Self {
        let limiter = HandshakeLimiter::new(&private, role);
        let mut indices = IndexTable::new([seed; 32]);
        let mut clock = WallClock::new(now, UNIX);
        let peer = Peer::new(
            PeerConfig {
                role,
                private: &private,
                remote,
                psk,
                indices: indices.allocate().unwrap(),
                clock: clock.next_connection(),
                seed: [seed; 32],
            },
            now,
        );

        Self {
            peer,
            private,
            remote,
            limiter,
            indices,
            clock,
            events: Vec::new(),
            inbox: Vec::new(),
            errors: Vec::new(),
            established: BTreeMap::new(),
            stalled: false,
            backlog: Vec::new(),
            seed,
        }
    }

    fn recreate(&mut self, role: Role, psk: [u8; 32], now: Instant) {
        self.seed = self.seed.wrapping_add(16);
        self.indices.release(self.peer.indices());
        self.peer = Peer::new(
            PeerConfig {
                role,
                private: &self.private,
                remote: self.remote,
                psk,
                indices: self.indices.allocate().unwrap(),
                clock: self.clock.next_connection(),
                seed: [self.seed; 32],
            },
            now,
        );
    }

    pub fn ids(&self) -> Vec<u32> {
        self.inbox.iter().map(|(_, id)| *id).collect()
    }

    pub fn add_spare_psk(&mut self, psk: [u8; 32]) -> SpareOutcome {
        self.peer.add_spare_psk(psk)
    }

    pub fn failures(&self) -> Vec<Duration> {
        self.events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Failed(_)))
            .map(|(at, _)| *at)
            .collect()
    }

    fn open(
        &mut self,
        datagram: &[u8],
        from: IpAddr,
        now: Instant,
        at: Duration,
    ) -> Option<Result<Opened, OpenError>> {
        let inbound = classify(datagram).ok()?;
        if matches!(inbound, Inbound::Init | Inbound::Response { .. }) {
            match self.limiter.check(datagram, from, now) {
                Ok(()) => {}
                Err(LimitError::UnderLoad(_)) => {
                    panic!("no test with two peers comes near the limit")
                }
                Err(LimitError::Invalid) => return None,
            }
        }
        match inbound.peer_index() {
            Some(index) if !self.peer.indices().contains(&index) => return None,
            None if parse_init(&self.private, datagram) != Ok(self.remote) => return None,
            Some(_) | None => {}
        }

        let mut out = [0; MAX_DATAGRAM];
        let result = self.peer.open(datagram, from, now, &mut out);
        match result {
            Ok(Opened::Packet { len }) => self.inbox.push((at, id_of(&out[..len]))),
            Ok(Opened::Handshake) => {
                self.established
                    .insert(u32::from_le_bytes(datagram[4..8].try_into().unwrap()), now);
            }
            Ok(Opened::Keepalive) => {}
            Err(error) => self.errors.push((at, error)),
        }

        Some(result)
    }

    /// What must hold for every datagram of every test.
    fn check(&self, record: &Record, now: Instant) {
        match (record.from, record.kind) {
            (Side::Client, INIT | DATA) | (Side::Gateway, RESPONSE | DATA) => {}
            (side, kind) => panic!("{side:?} sent a message of type {kind}"),
        }
        if record.kind != DATA {
            return;
        }

        let limit = match record.from {
            Side::Client => secs(170),
            Side::Gateway => secs(180),
        };
        let established = self
            .established
            .get(&record.index)
            .expect("sealed under a session that was never made");
        let age = now - *established;
        assert!(
            age < limit,
            "{:?} sealed under a session aged {age:?}",
            record.from
        );
    }
}

#[derive(Default)]
pub struct VecSink {
    pub datagrams: Vec<Vec<u8>>,
    slot: Vec<u8>,
}

impl SealSink for VecSink {
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.slot = vec![0; len];
        &mut self.slot
    }

    fn commit(&mut self, len: usize) {
        if len > 0 {
            self.datagrams.push(self.slot[..len].to_vec());
        }
    }
}

/// A batch of any bytes.
pub struct Raw<'a>(pub Option<&'a [u8]>);

impl PacketBatch for Raw<'_> {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.0.take()
    }
}

pub fn packet(id: u32) -> IpPacket {
    let address = |last| SocketAddr::from(([100, 64, 0, last], 1000));

    ip_packet::make::udp_packet(address(1), address(2), &id.to_be_bytes()).unwrap()
}

fn id_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[28..32].try_into().unwrap())
}
