//! The gateway: session, portal channel and look-ups on their threads.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use connlib_messages::gateway::{FromPortal, ToPortal};
use connlib_model::DomainName;
use connlib_session::{GatewaySession, GatewaySessionEvent, PortalInput, PortalOutput};
use connlib_snownet::{DatagramSink, Transmit};
use connlib_tun::Tun;
use connlib_tunnel::{
    GatewayStats, PublicKey, ResolveError, ResolveId, TunAddresses, TunPacket, segment::Coalescer,
};
use ip_packet::{Ecn, IpPacket};
use phoenix_channel::{FatalError, LoginUrl, Options};
use tokio::sync::mpsc;

use crate::{
    resolver,
    role::Role,
    start::{self, DataThread, StartError},
};

/// Events that wait for the program.
const EVENT_QUEUE: usize = 64;
/// Names that wait for the resolver task.
const NAME_QUEUE: usize = 1024;

/// What a gateway is started with.
pub struct GatewayOptions {
    /// Where and as whom to log in.
    pub login: LoginUrl,
    /// Settings of the portal channel. Its sockets and resolver are replaced by ones that bypass the tunnel.
    pub channel: Options,
    /// Whether the kernel's UDP offloads are used.
    pub offload: bool,
}

/// Something that the program around the gateway must act on.
#[derive(Debug)]
pub enum GatewayRuntimeEvent {
    /// Set the TUN interface to these addresses; its routes are the tunnel ranges.
    TunAddresses(TunAddresses),
    /// The session is over.
    Disconnected(FatalError),
    /// The data thread ended because of the operating system.
    Failed(std::io::Error),
}

/// A running gateway. Dropping it stops its threads without a farewell; [`Self::stop`] says goodbye first.
pub struct Gateway {
    data: DataThread<GatewayRole>,
    events: mpsc::Receiver<GatewayRuntimeEvent>,
}

impl Gateway {
    /// Starts the threads. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If no UDP socket can be had or the portal channel cannot be configured.
    pub fn start(options: GatewayOptions, tun: Tun) -> Result<Self, StartError> {
        let (event_tx, events) = mpsc::channel(EVENT_QUEUE);
        let (name_tx, name_rx) = mpsc::channel(NAME_QUEUE);
        let failed = event_tx.clone();
        let data = start::start(
            options.login,
            options.channel,
            tun,
            options.offload,
            |seed, now, unix_now| GatewayRole {
                session: GatewaySession::new(seed, now, unix_now),
                events: event_tx,
                names: name_tx,
                reported: BTreeMap::new(),
            },
            move |error| {
                let _ = failed.try_send(GatewayRuntimeEvent::Failed(error));
            },
        )?;
        let commands = data.commands();
        tokio::spawn(resolver::serve(name_rx, move |id, result| {
            commands.try_send(GatewayCommand::Resolved(id, result));
        }));
        Ok(Self { data, events })
    }

    /// The next event. `None` once the gateway has ended.
    pub async fn next_event(&mut self) -> Option<GatewayRuntimeEvent> {
        self.events.recv().await
    }

    /// Starts over after a change of network: new sockets, new key, new connections.
    pub fn reset(&self) {
        self.data.reset();
    }

    /// Says goodbye to all clients and the portal and ends the threads; takes at most a second.
    pub async fn stop(self) {
        self.data.stop().await;
    }
}

/// What the data thread gets from the gateway's other tasks.
pub(crate) enum GatewayCommand {
    Resolved(ResolveId, Result<Vec<IpAddr>, ResolveError>),
}

/// The gateway's session with its side outputs.
pub(crate) struct GatewayRole {
    session: GatewaySession,
    events: mpsc::Sender<GatewayRuntimeEvent>,
    names: mpsc::Sender<(ResolveId, DomainName)>,
    /// Counters as last handed to the metrics recorder.
    reported: BTreeMap<&'static str, u64>,
}

impl GatewayRole {
    /// Publishes what the counters grew by. Once per batch at most, and only if a recorder is installed.
    fn report(&mut self, stats: GatewayStats) {
        let counters = [
            ("gateway_packets_from_clients_total", stats.from_clients),
            ("gateway_packets_to_clients_total", stats.to_clients),
            ("gateway_packets_prohibited_total", stats.prohibited),
            ("gateway_packets_unreachable_total", stats.unreachable),
            ("gateway_packets_filtered_total", stats.filtered),
            ("gateway_packets_malformed_total", stats.malformed),
            ("gateway_packets_spoofed_total", stats.spoofed),
            ("gateway_datagrams_rejected_total", stats.rejected_datagrams),
            ("gateway_nat_exhausted_total", stats.nat_exhausted),
            ("gateway_packets_not_connected_total", stats.not_connected),
        ];
        for (name, value) in counters {
            let last = self.reported.entry(name).or_default();
            if value > *last {
                metrics::counter!(name).increment(value - *last);
                *last = value;
            }
        }
    }
}

impl Role for GatewayRole {
    type FromPortal = FromPortal;
    type ToPortal = ToPortal;
    type Command = GatewayCommand;

    fn public_key(&self) -> PublicKey {
        self.session.public_key()
    }

    fn handle_tun(&mut self, packet: TunPacket<'_>, now: Instant, sink: &mut impl DatagramSink) {
        self.session.tunnel_mut().handle_tun(packet, now, sink);
    }

    fn handle_network(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &[u8],
        now: Instant,
        out: &mut Coalescer,
    ) {
        self.session
            .tunnel_mut()
            .handle_network(local, from, ecn, datagram, now, out);
    }

    fn handle_portal(&mut self, input: PortalInput<FromPortal, ToPortal>, now: Instant) {
        self.session.handle_portal(input, now);
    }

    fn handle_command(&mut self, command: GatewayCommand, now: Instant) {
        match command {
            GatewayCommand::Resolved(id, result) => self.session.handle_resolved(id, result, now),
        }
    }

    fn reset(&mut self, now: Instant) {
        self.session.reset(now);
    }

    fn shutdown(&mut self, now: Instant) {
        self.session.shutdown(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.report(self.session.tunnel().stats());
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.session.tunnel_mut().poll_transmit()
    }

    fn poll_packet(&mut self) -> Option<IpPacket> {
        None
    }

    fn poll_portal(&mut self, now: Instant) -> Option<PortalOutput<ToPortal>> {
        self.session.poll_portal(now)
    }

    fn drain_events(&mut self, now: Instant) {
        while self.events.capacity() > 0 && self.names.capacity() > 0 {
            let Some(event) = self.session.poll_event() else {
                break;
            };
            match event {
                GatewaySessionEvent::TunAddresses(addresses) => {
                    let event = GatewayRuntimeEvent::TunAddresses(addresses);
                    let _ = self.events.try_send(event);
                }
                GatewaySessionEvent::Failed(error) => {
                    let event = GatewayRuntimeEvent::Disconnected(error);
                    let _ = self.events.try_send(event);
                }
                GatewaySessionEvent::ResolveDns { id, domain } => {
                    if self.names.try_send((id, domain)).is_err() {
                        self.session
                            .handle_resolved(id, Err(ResolveError::Failed), now);
                    }
                }
            }
        }
    }
}
