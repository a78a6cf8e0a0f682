//! A client: the production session on a simulated host, with applications above its TUN device.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use connlib_dns::{RecursiveError, RecursiveResponse};
use connlib_messages::client::ToPortal;
use connlib_model::{ResourceView, TunConfig};
use connlib_session::ClientSession;
use connlib_snownet::Transmit;
use ip_packet::{Ecn, IpPacket};
use serde_json::Value;

use super::{apps::client::Apps, portal::Identity, portal_config, socket::Attachment, tun::Tun};
use crate::{clock::Clock, topology::ClientSpec};

/// Look-ups outside the tunnel take this long.
const LOOKUP: std::time::Duration = std::time::Duration::from_millis(30);
/// What the runtime waits for an answer.
const LOOKUP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A client.
pub(crate) struct ClientHost {
    pub(crate) index: usize,
    pub(crate) session: ClientSession,
    pub(crate) attachment: Attachment,
    pub(crate) apps: Apps,
    /// As the session wanted the TUN device last.
    pub(crate) config: Option<TunConfig>,
    /// As announced last.
    pub(crate) resources: Vec<ResourceView>,
    pub(crate) deadline: Option<Instant>,
    /// The process does not run at present.
    pub(crate) stalled: bool,
    /// What survives a restart of the process: settings of the operating system and of the user.
    pub(crate) settings: Settings,
    tun: Tun,
    lookups: BTreeMap<(Instant, u64), RecursiveResponse>,
    sequence: u64,
}

/// What a client is told by its host, again after each start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) system_dns: Vec<std::net::IpAddr>,
    pub(crate) disabled: Vec<usize>,
}

impl ClientHost {
    pub(crate) fn new(
        index: usize,
        spec: &ClientSpec,
        attachment: Attachment,
        seed: [u8; 32],
        clock: &Clock,
    ) -> Self {
        Self {
            index,
            session: ClientSession::new(seed, clock.now(), clock.unix()),
            attachment,
            apps: Apps::new(index, u64::from(seed[0]) + 1, spec.os, clock.now()),
            config: None,
            resources: Vec::new(),
            deadline: None,
            stalled: false,
            settings: Settings {
                system_dns: spec.system_dns.clone(),
                disabled: Vec::new(),
            },
            tun: Tun::new(),
            lookups: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// A new process on the same host: nothing is remembered but the settings.
    pub(crate) fn restart(&mut self, spec: &ClientSpec, seed: [u8; 32], clock: &Clock) {
        let settings = std::mem::take(&mut self.settings);
        let mut attachment = self.attachment.clone();
        attachment.restart();
        *self = Self::new(self.index, spec, attachment, seed, clock);
        self.settings = settings;
        self.apply_settings(clock.now());
    }

    /// Tells the session what the host and the user want.
    pub(crate) fn apply_settings(&mut self, now: Instant) {
        let disabled = self.settings.disabled.iter();
        let disabled = disabled.map(|index| crate::topology::ids::resource(*index));
        self.session.set_disabled_resources(disabled.collect(), now);
        self.session
            .set_system_resolvers(self.settings.system_dns.clone(), now);
    }

    /// How it logs in.
    pub(crate) fn identity(&self) -> Identity {
        let key = connlib_messages::Key(self.session.public_key().0);
        Identity {
            token: portal_config::client_token(self.index),
            external_id: format!("client {}", self.index),
            query: vec![
                ("public_key", key.to_string()),
                ("name", format!("client {}", self.index)),
            ],
            join_payload: Value::Null,
            user_agent: "Ubuntu/24.04 connlib/1.5.0 (x86_64)",
        }
    }

    /// A packet from an application.
    pub(crate) fn handle_tun(&mut self, packet: &IpPacket, now: Instant) -> VecDeque<Transmit> {
        let tunnel = self.session.tunnel_mut();
        Tun::read(packet, |packet, sink| tunnel.handle_tun(packet, now, sink))
    }

    /// A datagram from the network; what comes out of it for applications.
    pub(crate) fn handle_network(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Vec<IpPacket> {
        let tunnel = self.session.tunnel_mut();
        self.tun
            .write(|tun| tunnel.handle_network(local, from, Ecn::NotEct, datagram, now, tun))
    }

    /// Starts a look-up outside the tunnel.
    pub(crate) fn look_up(
        &mut self,
        id: connlib_dns::QueryId,
        result: Result<Vec<u8>, RecursiveError>,
        now: Instant,
    ) {
        let at = match result {
            Err(RecursiveError::TimedOut) => now + LOOKUP_TIMEOUT,
            Ok(_) | Err(_) => now + LOOKUP,
        };
        self.sequence += 1;
        self.lookups
            .insert((at, self.sequence), RecursiveResponse { id, result });
    }

    /// A change of network ends look-ups that are under way.
    pub(crate) fn drop_lookups(&mut self) {
        self.lookups.clear();
    }

    /// The next look-up that is done.
    pub(crate) fn due_lookup(&mut self, now: Instant) -> Option<RecursiveResponse> {
        let entry = self.lookups.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// When this host wants to be woken.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let lookup = self.lookups.keys().next().map(|(at, _)| *at);
        [
            self.session.poll_timeout(),
            self.apps.poll_timeout(),
            lookup,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// The resource that a request for access is about.
pub(crate) fn requested_resource(message: &ToPortal) -> Option<usize> {
    match message {
        ToPortal::CreateFlow(flow) => crate::topology::ids::resource_index(flow.resource_id),
        _ => None,
    }
}
