//! One client of the swarm: session, portal channel and socket in one task.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use connlib_messages::{
    Dialect, Message as _,
    client::{FromPortal, ToPortal},
};
use connlib_session::{ClientSession, ClientSessionEvent, PortalInput, PortalOutput};
use connlib_tunnel::segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta};
use connlib_tunnel::{DatagramSink, TunPacket};
use ip_packet::{Ecn, checksum, make};
use phoenix_channel::{
    Channel, Component, DeviceInfo, Event, LoginUrl, Options, Outgoing, SendError, Token,
};
use quinn_udp::{Transmit, UdpSocketState};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, broadcast},
};

use super::{Order, Shared};

/// Port behind the gateway where a socket takes everything and reads nothing.
pub(crate) const DISCARD_PORT: u16 = 9;
/// UDP payload of a datagram of the load.
const SEGMENT: usize = 1200;
/// Datagrams of a super-packet.
const SEGMENTS: usize = 48;
/// A member that has no path is told by another packet after so long.
const RETRY: Duration = Duration::from_secs(1);
/// Room for a datagram.
const RECEIVE: usize = 2048;

/// Connects and does what is ordered, for ever.
pub(super) async fn run(
    number: usize,
    shared: Arc<Shared>,
    mut orders: broadcast::Receiver<Order>,
) -> Result<()> {
    let mut member = Member::new(number, &shared).await?;
    let mut permit = Some(permission(&shared).await?);
    member.session_connect();
    let mut buffer = [0; RECEIVE];
    let mut load_until = None;
    loop {
        member.drain()?;
        let connected = member.answers > 0;
        if permit.is_some() {
            let mut missing = shared.tally.missing();
            missing.insert(number, member.address);
            if connected {
                missing.remove(&number);
                shared.tally.connected.fetch_add(1, Ordering::Relaxed);
                permit = None;
            }
        }
        let deadline = member.session.poll_timeout();
        let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        let is_loading = load_until.is_some_and(|until| Instant::now() < until);
        tokio::select! {
            biased;
            received = member.socket.recv_from(&mut buffer) => {
                let (len, from) = received?;
                let answers = member.receive(from, &buffer[..len]);
                shared.tally.answered.fetch_add(answers, Ordering::Relaxed);
            }
            event = member.channel.next() => member.hear(event.context("the portal")?),
            order = orders.recv() => match order? {
                Order::Ping => member.ping()?,
                Order::Load(time) => load_until = Some(Instant::now() + time),
            },
            () = tokio::time::sleep_until(deadline.into()) => {
                member.session.handle_timeout(Instant::now());
            }
            () = tokio::time::sleep(RETRY), if !connected => {
                if member.address.is_some() {
                    member.ping()?;
                }
            }
            () = tokio::task::yield_now(), if is_loading => {
                member.socket.writable().await?;
                let sent = member.burst()?;
                shared.tally.sent.fetch_add(sent, Ordering::Relaxed);
            }
        }
    }
}

async fn permission(shared: &Arc<Shared>) -> Result<OwnedSemaphorePermit> {
    let turnstile = Arc::clone(&shared.turnstile);
    Ok(turnstile.acquire_owned().await?)
}

struct Member {
    session: ClientSession,
    channel: Channel,
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Assigned by the portal.
    address: Option<std::net::Ipv4Addr>,
    target: std::net::Ipv4Addr,
    /// Packets from the gateway so far.
    answers: u64,
    coalescer: Coalescer,
    outgoing: Train,
    /// A super-packet of the load, and room to work on a copy.
    template: Vec<u8>,
    scratch: Vec<u8>,
}

impl Member {
    async fn new(number: usize, shared: &Shared) -> Result<Self> {
        let arguments = &shared.arguments;
        let local = arguments.local[number % arguments.local.len()];
        let socket = UdpSocket::bind((local, 0)).await?;
        let mut seed = [0; 32];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut seed);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        let token = Some(Token::new(&arguments.token));
        let name = format!("swarm {number}");
        let login = LoginUrl::client(&arguments.portal, token, &id, &name, DeviceInfo::default())?;
        let options = Options::for_program(Component::Connlib, env!("CARGO_PKG_VERSION"))?;
        Ok(Self {
            session: ClientSession::new(seed, Instant::now(), unix),
            channel: Channel::new(login, options)?,
            state: UdpSocketState::new((&socket).into())?,
            local: socket.local_addr()?,
            socket,
            address: None,
            target: arguments.target,
            answers: 0,
            coalescer: Coalescer::new(Coalescing::OFF),
            outgoing: Train::default(),
            template: Vec::new(),
            scratch: Vec::new(),
        })
    }

    fn session_connect(&mut self) {
        let key = self.session.public_key();
        self.connect(key);
    }

    fn connect(&mut self, key: connlib_tunnel::PublicKey) {
        let key = BASE64_STANDARD.encode(key.0);
        self.channel.connect(vec![("public_key".to_owned(), key)]);
    }

    fn hear(&mut self, event: Event) {
        let now = Instant::now();
        let input = match event {
            Event::Connected => PortalInput::Connected,
            Event::Message(message) => {
                let Ok(message) = FromPortal::parse(&message.event, message.payload) else {
                    return;
                };
                PortalInput::Message(message)
            }
            Event::Hiccup { .. } | Event::Closed => PortalInput::Disconnected,
        };
        self.session.handle_portal(input, now);
    }

    /// Hands on everything that the session has made.
    fn drain(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(output) = self.session.poll_portal(now) {
            match output {
                PortalOutput::Send(message) => self.tell(message, now),
                PortalOutput::Reconnect { public_key } => self.connect(public_key),
            }
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                ClientSessionEvent::TunConfigUpdated(config) => {
                    let is_first = self.address.is_none();
                    self.address = Some(config.ipv4);
                    if is_first {
                        // The first packet asks for access.
                        self.ping()?;
                    }
                }
                ClientSessionEvent::ResourcesChanged(_) => {}
                ClientSessionEvent::Failed(error) => bail!("{error}"),
            }
        }
        let tunnel = self.session.tunnel_mut();
        while tunnel.poll_packet().is_some() || tunnel.poll_recursive_query().is_some() {}
        while let Some(transmit) = self.session.tunnel_mut().poll_transmit() {
            // A full socket loses datagrams, as the network does.
            let _ = self.socket.try_send_to(&transmit.payload, transmit.dst);
        }
        Ok(())
    }

    fn tell(&mut self, message: ToPortal, now: Instant) {
        let outgoing = Outgoing::new(message.event(Dialect::Unversioned), message.payload());
        match self.channel.send(outgoing) {
            Ok(()) => {}
            Err(SendError::NotConnected(_) | SendError::QueueFull(_)) => {
                self.session
                    .handle_portal(PortalInput::Unsent(message), now);
            }
        }
    }

    /// The result is the number of packets that the datagram carried.
    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) -> u64 {
        let now = Instant::now();
        self.session.tunnel_mut().handle_network(
            self.local,
            from,
            Ecn::NotEct,
            datagram,
            now,
            &mut self.coalescer,
        );
        let packets = self.coalescer.drain().count() as u64;
        self.answers += packets;
        packets
    }

    /// Sends an echo request.
    fn ping(&mut self) -> Result<()> {
        let address = self.address.context("no address yet")?;
        let packet = make::icmp_echo_request(
            IpAddr::from(address),
            IpAddr::from(self.target),
            1,
            1,
            &[7; 32],
        )?;
        self.scratch.clear();
        self.scratch.extend_from_slice(packet.as_slice());
        self.send_scratch(GsoMeta::NONE)?;
        Ok(())
    }

    /// Sends one super-packet of the load. The result is its payload in bytes, if the socket took it.
    fn burst(&mut self) -> Result<u64> {
        if self.template.is_empty() {
            self.template = self.load()?;
        }
        self.scratch.clone_from(&self.template);
        let sent = self.send_scratch(GsoMeta {
            kind: GsoKind::Udp,
            segment_size: SEGMENT as u16,
            checksum: ChecksumState::Partial {
                start: 20,
                offset: 6,
            },
        })?;
        Ok(if sent { (SEGMENT * SEGMENTS) as u64 } else { 0 })
    }

    fn load(&self) -> Result<Vec<u8>> {
        let address = self.address.context("no address yet")?;
        let (from, to) = ((address, 5000).into(), (self.target, DISCARD_PORT).into());
        let mut bytes = make::udp_packet(from, to, &[7; SEGMENT])?
            .as_slice()
            .to_vec();
        bytes.resize(28 + SEGMENT * SEGMENTS, 7);
        let total = u16::try_from(bytes.len())?;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[24..26].copy_from_slice(&(total - 20).to_be_bytes());
        bytes[10..12].fill(0);
        let sum = checksum::of(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        Ok(bytes)
    }

    /// Seals and sends the packet in the scratch buffer. The result says whether the socket took it.
    fn send_scratch(&mut self, gso: GsoMeta) -> Result<bool> {
        let packet = TunPacket {
            buf: &mut self.scratch,
            gso,
        };
        self.outgoing.clear();
        self.session
            .tunnel_mut()
            .handle_tun(packet, Instant::now(), &mut self.outgoing);
        let Some(destination) = self.outgoing.destination else {
            return Ok(false);
        };
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: &self.outgoing.bytes,
            segment_size: Some(self.outgoing.segment),
            src_ip: None,
        };
        let sent = self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.socket).into(), &transmit)
        });
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("cannot send"),
        }
    }
}

/// Datagrams of one super-packet, one behind the other: equal in size and destination.
#[derive(Default)]
struct Train {
    bytes: Vec<u8>,
    committed: usize,
    segment: usize,
    destination: Option<SocketAddr>,
}

impl Train {
    fn clear(&mut self) {
        self.bytes.clear();
        self.committed = 0;
        self.segment = 0;
        self.destination = None;
    }
}

impl DatagramSink for Train {
    fn reserve(&mut self, _: Option<SocketAddr>, dst: SocketAddr, _: Ecn, len: usize) -> &mut [u8] {
        self.destination = Some(dst);
        self.bytes.resize(self.committed + len, 0);
        &mut self.bytes[self.committed..]
    }

    fn commit(&mut self, len: usize) {
        self.committed += len;
        self.bytes.truncate(self.committed);
        self.segment = self.segment.max(len);
    }
}
