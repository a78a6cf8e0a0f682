//! A gateway: the production session on a simulated host, with servers behind its TUN device.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_model::DomainName;
use connlib_session::GatewaySession;
use connlib_snownet::Transmit;
use connlib_tunnel::{ResolveError, ResolveId};
use ip_packet::{Ecn, IpPacket};
use serde_json::Value;

use super::{apps::server::Servers, portal::Identity, portal_config, socket::Attachment, tun::Tun};
use crate::{
    clock::Clock,
    dns::server::Records,
    topology::{DnsAnswer, Topology},
};

/// A look-up in the site takes this long.
const LOOKUP: Duration = Duration::from_millis(20);

/// A gateway.
pub(crate) struct GatewayHost {
    pub(crate) index: usize,
    pub(crate) site: usize,
    pub(crate) session: GatewaySession,
    pub(crate) attachment: Attachment,
    pub(crate) servers: Servers,
    pub(crate) deadline: Option<Instant>,
    pub(crate) running: bool,
    tun: Tun,
    lookups: BTreeMap<(Instant, u64), (ResolveId, DomainName)>,
    sequence: u64,
}

impl GatewayHost {
    pub(crate) fn new(
        index: usize,
        topology: &Topology,
        attachment: Attachment,
        seed: [u8; 32],
        clock: &Clock,
    ) -> Self {
        Self {
            index,
            site: topology.gateways[index].site,
            session: GatewaySession::new(seed, clock.now(), clock.unix()),
            attachment,
            servers: Servers::new(topology, u64::from(seed[0]) + 99, clock.now()),
            deadline: None,
            running: true,
            tun: Tun::new(),
            lookups: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// A new process on the same host. What is behind the gateway goes on.
    pub(crate) fn restart(&mut self, seed: [u8; 32], clock: &Clock) {
        self.attachment.restart();
        self.session = GatewaySession::new(seed, clock.now(), clock.unix());
        self.lookups.clear();
        self.running = true;
    }

    /// How it logs in.
    pub(crate) fn identity(&self) -> Identity {
        let key = connlib_messages::Key(self.session.public_key().0);
        Identity {
            token: portal_config::site_token(self.site),
            external_id: format!("gateway {}", self.index),
            query: vec![
                ("public_key", key.to_string()),
                ("name", format!("gateway {}", self.index)),
            ],
            join_payload: Value::Null,
            user_agent: "Ubuntu/24.04 connlib/1.5.0 (x86_64)",
        }
    }

    /// A packet from a server.
    pub(crate) fn handle_tun(&mut self, packet: &IpPacket, now: Instant) -> VecDeque<Transmit> {
        let tunnel = self.session.tunnel_mut();
        Tun::read(packet, |packet, sink| tunnel.handle_tun(packet, now, sink))
    }

    /// A datagram from the network; what comes out of it for servers.
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

    /// Starts a look-up of a name in the site.
    pub(crate) fn look_up(&mut self, id: ResolveId, domain: DomainName, now: Instant) {
        self.sequence += 1;
        self.lookups
            .insert((now + LOOKUP, self.sequence), (id, domain));
    }

    /// Answers look-ups that are done.
    pub(crate) fn finish_lookups(&mut self, records: &Records, now: Instant) -> bool {
        let mut any = false;
        while let Some(entry) = self.lookups.first_entry().filter(|e| e.key().0 <= now) {
            let (id, domain) = entry.remove();
            let name = domain.as_str();
            let result: Result<Vec<IpAddr>, _> = match records.manner(name) {
                DnsAnswer::Records => Ok(records.addresses(name)),
                DnsAnswer::NameError => Ok(Vec::new()),
                DnsAnswer::ServerFailure | DnsAnswer::Unreachable => Err(ResolveError::Failed),
                DnsAnswer::Silence => Err(ResolveError::TimedOut),
            };
            self.session.handle_resolved(id, result, now);
            any = true;
        }
        any
    }

    /// When this host wants to be woken.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let lookup = self.lookups.keys().next().map(|(at, _)| *at);
        let session = self.running.then(|| self.session.poll_timeout()).flatten();
        [session, self.servers.poll_timeout(), lookup]
            .into_iter()
            .flatten()
            .min()
    }
}
