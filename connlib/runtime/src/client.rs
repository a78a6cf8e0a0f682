//! The client: session, portal channel and host-side DNS on their threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use connlib_dns::{RecursiveQuery, RecursiveResponse};
use connlib_messages::client::{FromPortal, ToPortal};
use connlib_model::{GatewayId, ResourceId, ResourceKind, ResourceView, TunConfig};
use connlib_session::{ClientSession, ClientSessionEvent, PortalInput, PortalOutput};
use connlib_snownet::{DatagramSink, PathKind, Transmit};
use connlib_tun::Tun;
use connlib_tunnel::{PublicKey, Train, TunPacket, segment::Coalescer};
use ip_packet::{Ecn, IpPacket};
use phoenix_channel::{FatalError, LoginUrl, Options};
use tokio::sync::mpsc;

use crate::{
    desk::Alone,
    recursive,
    role::Role,
    start::{self, Common, DataThreads, StartError},
};

/// Events that wait for the program; only the newest of each kind matters, so few are enough.
const EVENT_QUEUE: usize = 64;
/// Look-ups that wait for the resolver task.
const QUERY_QUEUE: usize = 1024;

/// What a client is started with.
pub struct ClientOptions {
    /// Where and as whom to log in.
    pub login: LoginUrl,
    /// Settings of the portal channel. Its sockets and resolver are replaced by ones that bypass the tunnel.
    pub channel: Options,
    /// The host's resolvers, for names that are no resource.
    pub system_resolvers: Vec<IpAddr>,
    /// Whether the internet resource is used.
    pub use_internet_resource: bool,
    /// Whether the kernel's UDP offloads are used.
    pub offload: bool,
}

/// Something that the program around the client must act on.
#[derive(Debug)]
pub enum ClientEvent {
    /// Set the TUN interface and the host's DNS to this.
    TunConfigUpdated(TunConfig),
    /// The resources or their states changed.
    ResourcesChanged(Vec<ResourceView>),
    /// The session is over.
    Disconnected(FatalError),
    /// The data thread ended because of the operating system.
    Failed(std::io::Error),
}

/// A running client. Dropping it stops its threads without a farewell; [`Self::stop`] says goodbye first.
pub struct Client {
    data: DataThreads<ClientRole>,
    events: mpsc::Receiver<ClientEvent>,
}

impl Client {
    /// Starts the threads. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If no UDP socket can be had or the portal channel cannot be configured.
    pub fn start(options: ClientOptions, tun: Tun) -> Result<Self, StartError> {
        let (event_tx, events) = mpsc::channel(EVENT_QUEUE);
        let (query_tx, query_rx) = mpsc::channel(QUERY_QUEUE);
        let failed = event_tx.clone();
        let use_internet_resource = options.use_internet_resource;
        let data = start::start(
            Common {
                login: options.login,
                channel: options.channel,
                offload: options.offload,
            },
            vec![tun],
            |thread| ClientRole {
                session: ClientSession::new(thread.seed, thread.now, thread.unix_now),
                events: event_tx.clone(),
                queries: query_tx.clone(),
                use_internet_resource,
                disabled: BTreeSet::new(),
                paths: BTreeMap::new(),
            },
            |inboxes, _| Alone(inboxes),
            move |error| {
                let _ = failed.try_send(ClientEvent::Failed(error));
            },
        )?;
        let commands = data.commands().to_vec();
        tokio::spawn(recursive::serve(query_rx, move |response| {
            commands[0].try_send(ClientCommand::Resolved(response));
        }));
        let this = Self { data, events };
        this.set_system_resolvers(options.system_resolvers);
        Ok(this)
    }

    /// The next event. `None` once the client has ended.
    pub async fn next_event(&mut self) -> Option<ClientEvent> {
        self.events.recv().await
    }

    /// Starts over after a change of network: new sockets, new key, new connections.
    pub fn reset(&self) {
        self.data.reset();
    }

    /// Sets the host's resolvers.
    pub fn set_system_resolvers(&self, resolvers: Vec<IpAddr>) {
        self.data.commands()[0].try_send(ClientCommand::SystemResolvers(resolvers));
    }

    /// Says goodbye to all gateways and the portal and ends the threads; takes at most a second.
    pub async fn stop(self) {
        self.data.stop().await;
    }
}

/// Wishes of the program, as the data thread gets them.
pub(crate) enum ClientCommand {
    SystemResolvers(Vec<IpAddr>),
    Resolved(RecursiveResponse),
}

/// The client's session with its side outputs.
pub(crate) struct ClientRole {
    session: ClientSession,
    events: mpsc::Sender<ClientEvent>,
    queries: mpsc::Sender<Option<RecursiveQuery>>,
    use_internet_resource: bool,
    disabled: BTreeSet<ResourceId>,
    paths: BTreeMap<GatewayId, KnownPath>,
}

impl ClientRole {
    /// Keeps the internet resource off unless it is wanted, whenever it comes into the list.
    fn apply_internet_choice(&mut self, resources: &[ResourceView], now: Instant) {
        if self.use_internet_resource {
            return;
        }
        let disabled = resources
            .iter()
            .filter(|resource| resource.kind == ResourceKind::Internet)
            .map(|resource| resource.id)
            .collect::<BTreeSet<_>>();
        if disabled != self.disabled {
            self.disabled.clone_from(&disabled);
            self.session.set_disabled_resources(disabled, now);
        }
    }

    /// Logs paths that are new or changed; scripts and the demo read these lines. Allocates only when one did.
    fn log_paths(&mut self) {
        let known = self.paths.iter().map(|(gateway, path)| (*gateway, *path));
        if self.current_paths().eq(known) {
            return;
        }
        let current = self.current_paths().collect::<BTreeMap<_, _>>();
        for (gateway, path) in &current {
            if path.is_established && self.paths.get(gateway) != Some(path) {
                tracing::info!(
                    %gateway,
                    path = %path.kind,
                    local = %path.local,
                    remote = %path.remote,
                    "Path to gateway in use"
                );
            }
        }
        self.paths = current;
    }

    fn current_paths(&self) -> impl Iterator<Item = (GatewayId, KnownPath)> + '_ {
        self.session.tunnel().gateways().filter_map(|view| {
            let path = view.path?;
            let known = KnownPath {
                kind: path.kind,
                local: path.local,
                remote: path.remote,
                is_established: path.established.is_some(),
            };
            Some((view.gateway, known))
        })
    }
}

/// What was logged about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KnownPath {
    kind: PathKind,
    local: SocketAddr,
    remote: SocketAddr,
    is_established: bool,
}

impl Role for ClientRole {
    type FromPortal = FromPortal;
    type ToPortal = ToPortal;
    type Command = ClientCommand;

    fn public_key(&self) -> PublicKey {
        self.session.public_key()
    }

    fn handle_tun(&mut self, packet: TunPacket<'_>, now: Instant, sink: &mut impl DatagramSink) {
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
        self.session.handle_portal(input, now);
    }

    fn handle_command(&mut self, command: ClientCommand, now: Instant) {
        match command {
            ClientCommand::SystemResolvers(resolvers) => {
                self.session.set_system_resolvers(resolvers, now);
            }
            ClientCommand::Resolved(response) => {
                self.session
                    .tunnel_mut()
                    .handle_recursive_response(response, now);
            }
        }
    }

    fn reset(&mut self, _key_seed: [u8; 32], now: Instant) {
        // Look-ups in flight went out on the old network.
        let _ = self.queries.try_send(None);
        self.session.reset(now);
    }

    fn shutdown(&mut self, now: Instant) {
        self.session.shutdown(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.session.tunnel_mut().poll_transmit()
    }

    fn poll_packet(&mut self) -> Option<IpPacket> {
        self.session.tunnel_mut().poll_packet()
    }

    fn poll_portal(&mut self, now: Instant) -> Option<PortalOutput<ToPortal>> {
        self.session.poll_portal(now)
    }

    fn drain_events(&mut self, now: Instant) {
        while self.events.capacity() > 0 {
            let Some(event) = self.session.poll_event() else {
                break;
            };
            let event = match event {
                ClientSessionEvent::TunConfigUpdated(config) => {
                    ClientEvent::TunConfigUpdated(config)
                }
                ClientSessionEvent::ResourcesChanged(list) => {
                    self.apply_internet_choice(&list, now);
                    ClientEvent::ResourcesChanged(list)
                }
                ClientSessionEvent::Failed(error) => ClientEvent::Disconnected(error),
            };
            let _ = self.events.try_send(event);
        }
        while self.queries.capacity() > 0 {
            let Some(query) = self.session.tunnel_mut().poll_recursive_query() else {
                break;
            };
            let _ = self.queries.try_send(Some(query));
        }
        self.log_paths();
    }
}
