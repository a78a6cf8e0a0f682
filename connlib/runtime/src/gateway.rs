//! The gateway: session, portal channel and look-ups on their threads.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use connlib_messages::gateway::{FromPortal, ToPortal};
use connlib_model::DomainName;
use connlib_session::{GatewaySession, GatewaySessionEvent, PortalInput, PortalOutput};
use connlib_snownet::{DatagramSink, Transmit};
use connlib_tun::Tun;
use connlib_tunnel::{
    GatewayStats, PublicKey, ResolveError, ResolveId, Train, TunAddresses, TunPacket,
    segment::Coalescer,
};
use ip_packet::{Ecn, IpPacket};
use mio::Waker;
use phoenix_channel::{FatalError, LoginUrl, Options};
use tokio::sync::mpsc;

use crate::{
    desk::{Alone, GatewayDesk, Shared},
    resolver,
    role::Role,
    siblings::{Mailbox, Siblings},
    start::{self, Common, DataThreads, StartError},
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
    data: DataThreads<GatewayRole>,
    events: mpsc::Receiver<GatewayRuntimeEvent>,
}

impl Gateway {
    /// Starts a worker for each queue of the TUN device, at least one, and the other threads. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// If no UDP socket can be had or the portal channel cannot be configured.
    pub fn start(options: GatewayOptions, tuns: Vec<Tun>) -> Result<Self, StartError> {
        let (event_tx, events) = mpsc::channel(EVENT_QUEUE);
        let (name_tx, name_rx) = mpsc::channel(NAME_QUEUE);
        let failed = event_tx.clone();
        let mut mailboxes = None;
        let data = start::start(
            Common {
                login: options.login,
                channel: options.channel,
                offload: options.offload,
            },
            tuns,
            |thread| {
                let mailboxes = mailboxes.get_or_insert_with(|| mailboxes_of(thread.wakers));
                let siblings =
                    (mailboxes.len() > 1).then(|| Siblings::new(thread.index, mailboxes.clone()));
                let session = GatewaySession::new(thread.seed, thread.now, thread.unix_now);
                GatewayRole {
                    session: session.with_key_seed(thread.key_seed),
                    index: thread.index,
                    siblings,
                    events: event_tx.clone(),
                    names: name_tx.clone(),
                    reported: BTreeMap::new(),
                    reported_clients: None,
                }
            },
            |inboxes, key| match inboxes.len() {
                1 => GatewayDesk::Alone(Alone(inboxes)),
                _ => GatewayDesk::Shared(Shared::new(inboxes, key)),
            },
            move |error| {
                let _ = failed.try_send(GatewayRuntimeEvent::Failed(error));
            },
        )?;
        let commands = data.commands().to_vec();
        tokio::spawn(resolver::serve(name_rx, move |(worker, id), result| {
            let worker: usize = worker;
            commands[worker].try_send(GatewayCommand::Resolved(id, result));
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
    /// The client with these addresses is another worker's.
    Owner {
        addresses: TunAddresses,
        worker: usize,
    },
}

fn mailboxes_of(wakers: &[Arc<Waker>]) -> Vec<Arc<Mailbox>> {
    let mailbox = |waker| Arc::new(Mailbox::new(Arc::clone(waker)));
    wakers.iter().map(mailbox).collect()
}

/// The gateway's session with its side outputs.
pub(crate) struct GatewayRole {
    session: GatewaySession,
    /// Number among the workers.
    index: usize,
    /// The other workers, if there are any.
    siblings: Option<Siblings>,
    events: mpsc::Sender<GatewayRuntimeEvent>,
    names: mpsc::Sender<((usize, ResolveId), DomainName)>,
    /// Counters as last handed to the metrics recorder.
    reported: BTreeMap<&'static str, u64>,
    /// Clients as last handed to it.
    reported_clients: Option<usize>,
}

impl GatewayRole {
    /// Publishes what the counters grew by. Once per batch at most, and only if a recorder is installed.
    fn report(&mut self, stats: GatewayStats) {
        let siblings = self.siblings.as_ref();
        let (handed_over, handover_lost) =
            siblings.map_or((0, 0), |siblings| (siblings.handed_over, siblings.dropped));
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
            ("gateway_packets_handed_over_total", handed_over),
            ("gateway_packets_handover_lost_total", handover_lost),
        ];
        for (name, value) in counters {
            let last = self.reported.entry(name).or_default();
            if value > *last {
                metrics::counter!(name).increment(value - *last);
                *last = value;
            }
        }
    }

    fn report_clients(&mut self) {
        let clients = self.session.tunnel().client_count();
        if self.reported_clients.replace(clients) != Some(clients) {
            let worker = self.index.to_string();
            metrics::gauge!("gateway_clients", "worker" => worker).set(clients as f64);
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
        if let Some(siblings) = &mut self.siblings
            && siblings.pack(&packet)
        {
            return;
        }
        self.session.tunnel_mut().handle_tun(packet, now, sink);
    }

    fn handle_train(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        train: &mut Train<'_>,
        now: Instant,
        out: &mut Coalescer,
    ) {
        self.session
            .tunnel_mut()
            .handle_train(local, from, ecn, train, now, out);
    }

    fn handle_portal(&mut self, input: PortalInput<FromPortal, ToPortal>, now: Instant) {
        if let Some(siblings) = &mut self.siblings
            && let PortalInput::Message(FromPortal::AuthorizeFlow(flow)) = &input
        {
            siblings.set_own(TunAddresses {
                v4: flow.client.ipv4,
                v6: flow.client.ipv6,
            });
        }
        self.session.handle_portal(input, now);
    }

    fn handle_command(&mut self, command: GatewayCommand, now: Instant) {
        match command {
            GatewayCommand::Resolved(id, result) => self.session.handle_resolved(id, result, now),
            GatewayCommand::Owner { addresses, worker } => {
                self.session.tunnel_mut().release_addresses(addresses);
                if let Some(siblings) = &mut self.siblings {
                    siblings.set_owner(addresses, worker);
                }
            }
        }
    }

    fn reset(&mut self, key_seed: [u8; 32], now: Instant) {
        self.session.reset_with_key_seed(key_seed, now);
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
        // Clients also leave by a datagram, after which nothing may be due for long.
        self.report_clients();
        while self.events.capacity() > 0 && self.names.capacity() > 0 {
            let Some(event) = self.session.poll_event() else {
                break;
            };
            match event {
                // What the portal tells all workers, the first one passes on.
                GatewaySessionEvent::TunAddresses(_) | GatewaySessionEvent::Failed(_)
                    if self.index != 0 => {}
                GatewaySessionEvent::TunAddresses(addresses) => {
                    let event = GatewayRuntimeEvent::TunAddresses(addresses);
                    let _ = self.events.try_send(event);
                }
                GatewaySessionEvent::Failed(error) => {
                    let event = GatewayRuntimeEvent::Disconnected(error);
                    let _ = self.events.try_send(event);
                }
                GatewaySessionEvent::ResolveDns { id, domain } => {
                    if self.names.try_send(((self.index, id), domain)).is_err() {
                        self.session
                            .handle_resolved(id, Err(ResolveError::Failed), now);
                    }
                }
            }
        }
    }

    fn hand_over(&mut self) {
        if let Some(siblings) = &mut self.siblings {
            siblings.dispatch();
        }
    }

    fn was_handed(&self) -> bool {
        self.siblings.as_ref().is_some_and(Siblings::is_waiting)
    }

    fn handle_handed(&mut self, now: Instant, sink: &mut impl DatagramSink) -> bool {
        let (Some(siblings), tunnel) = (&mut self.siblings, self.session.tunnel_mut()) else {
            return false;
        };
        siblings.unpack(|packet| tunnel.handle_tun(packet, now, sink))
    }
}
