//! Transitions, carried out on the running system.

use std::{net::SocketAddr, time::Duration};

use super::{
    World,
    apps::{client::own_address, probe},
    is_nat, portal_config,
};
use crate::{
    topology::{Edge, Families, HostSpec, RelaySpec, ids},
    trace::Entry,
    transition::{Component, Destination, End, Probe, Protocol, Query, Side, Transition},
};

/// Relays come back so quickly that the portal tells nobody (its quiet period is a second).
const FLAP: Duration = Duration::from_millis(200);
/// Gateways that cannot be told of a revocation are away for this long.
const PARTITION: Duration = Duration::from_secs(3);

impl World {
    /// Carries out a transition. Time passes only as far as the transition says itself.
    pub fn apply(&mut self, transition: &Transition) {
        match transition {
            Transition::Send { client, probes } => {
                let first = self.next_probe;
                self.next_probe += probes.len() as u64;
                self.send(*client, probes, first);
            }
            Transition::Burst {
                client,
                to,
                port,
                count,
            } => {
                let probe = Probe {
                    to: to.clone(),
                    how: Protocol::Udp(*port),
                    source: None,
                };
                let first = self.next_probe;
                self.next_probe += *count as u64;
                self.send(*client, &vec![probe; *count], first);
            }
            Transition::Query { client, queries } => self.query(*client, queries),
            Transition::OpenTcp {
                client,
                to,
                port,
                keep_alive,
            } => self.open_tcp(*client, to, *port, *keep_alive),
            Transition::UseTcp { connection, from } => self.use_tcp(*connection, *from),
            Transition::CloseTcp { connection } => self.close_tcp(*connection),
            Transition::Idle { seconds } => self.run_for(Duration::from_secs(*seconds)),
            Transition::Stall {
                client,
                seconds,
                then,
            } => self.stall(*client, *seconds, then),
            Transition::Rogue(act) => self.rogue_acts(act),
            Transition::Grant { .. }
            | Transition::Revoke { .. }
            | Transition::RevokeWhilePartitioned { .. }
            | Transition::SetDisabled { .. }
            | Transition::ChangeResource { .. } => self.change_access(transition),
            Transition::SystemDns { .. }
            | Transition::UpstreamDns { .. }
            | Transition::SearchDomain { .. }
            | Transition::SetRecords { .. } => self.change_names(transition),
            Transition::Roam { .. }
            | Transition::ReconnectPortal { .. }
            | Transition::RestartClient { .. }
            | Transition::RestartGateway { .. } => self.move_component(transition),
            Transition::DeployRelays { .. }
            | Transition::PartitionRelays { .. }
            | Transition::RebootRelays
            | Transition::MoveRelays
            | Transition::BlockDirect(_)
            | Transition::FlushEdge { .. } => self.change_network(transition),
        }
    }

    /// Sends probes, numbered from `first`.
    pub(crate) fn send(&mut self, client: usize, probes: &[Probe], first: u64) {
        for (number, probe) in (first..).zip(probes) {
            let host = &self.clients[client];
            let (Some(config), Some(to)) = (&host.config, host.apps.address(&probe.to)) else {
                continue;
            };
            let source = probe.source.unwrap_or_else(|| own_address(config, to));
            let Some(packet) = probe::packet(number, source, to, probe.how) else {
                continue;
            };
            let entry = Entry::Request {
                client,
                probe: number,
                packet: packet.clone(),
            };
            self.trace.push(self.clock.elapsed(), entry);
            self.application_sends(client, &packet);
            self.drain_client(client);
        }
    }

    fn query(&mut self, client: usize, queries: &[Query]) {
        for query in queries {
            let number = self.next_query;
            self.next_query += 1;
            self.ask(client, query, number);
        }
    }

    /// Asks a query, perhaps not for the first time.
    pub(crate) fn ask(&mut self, client: usize, query: &Query, number: u64) {
        let now = self.clock.now();
        let host = &mut self.clients[client];
        let Some(config) = &host.config else { return };
        let sentinels = &config.dns_sentinels;
        if sentinels.is_empty() {
            return;
        }
        let server = sentinels[query.server % sentinels.len()];
        let source = own_address(config, server);
        host.apps.ask(number, query, server, source, now);
        self.drain_client(client);
    }

    fn open_tcp(&mut self, client: usize, to: &Destination, port: u16, keep_alive: bool) {
        let index = self.connections.len();
        let now = self.clock.now();
        let host = &mut self.clients[client];
        let address = host.apps.address(to);
        let mut connection = super::Connection {
            client,
            source_port: 0,
            exchanged: 0,
        };
        if let (Some(config), Some(ip)) = (&host.config, address) {
            let source = own_address(config, ip);
            let to = SocketAddr::new(ip, port);
            connection.source_port = host.apps.tcp.open(index, source, to, keep_alive, now);
        }
        self.connections.push(connection);
        self.drain_client(client);
    }

    /// An application gives a connection that is not established up, and makes it anew.
    pub(crate) fn connect_again(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (client, now) = (connection.client, self.clock.now());
        if let Some(port) = self.clients[client].apps.tcp.connect_again(index, now) {
            connection.source_port = port;
            self.drain_client(client);
        }
    }

    pub(crate) fn use_tcp(&mut self, index: usize, from: Side) {
        let now = self.clock.now();
        let connection = &mut self.connections[index];
        connection.exchanged += 1;
        let bytes = connection.exchanged.to_be_bytes();
        let (client, port) = (connection.client, connection.source_port);
        match from {
            Side::Application => {
                self.clients[client].apps.tcp.send(index, &bytes, now);
                self.drain_client(client);
            }
            Side::Resource => {
                let Some(config) = self.clients[client].config.clone() else {
                    return;
                };
                for gateway in 0..self.gateways.len() {
                    let servers = &mut self.gateways[gateway].servers;
                    for own in [config.ipv4.into(), config.ipv6.into()] {
                        servers.speak(own, port, &bytes, now);
                    }
                    self.drain_gateway(gateway);
                }
            }
        }
    }

    fn close_tcp(&mut self, index: usize) {
        let client = self.connections[index].client;
        let now = self.clock.now();
        self.clients[client].apps.tcp.close(index, now);
        self.drain_client(client);
    }

    fn stall(&mut self, client: usize, seconds: u64, then: &[Probe]) {
        self.clients[client].stalled = true;
        self.run_for(Duration::from_secs(seconds));
        self.clients[client].stalled = false;
        let first = self.next_probe;
        self.next_probe += then.len() as u64;
        self.send(client, then, first);
        // The portal has long given the silent connection up.
        self.portal
            .interrupt(Component::Client(client), Duration::ZERO, &self.clock);
        self.drain_client(client);
    }

    fn change_access(&mut self, transition: &Transition) {
        match transition {
            Transition::Grant {
                client,
                resource,
                for_s: None,
            } => self
                .portal
                .reload(|c| portal_config::grant(c, *client, *resource), &self.clock),
            Transition::Grant {
                client,
                resource,
                for_s: Some(seconds),
            } => {
                let end = self.clock.unix().as_secs() + seconds;
                self.portal.reload(
                    |c| portal_config::grant_until(c, *client, *resource, end),
                    &self.clock,
                );
            }
            Transition::Revoke { client, resource } => self.portal.reload(
                |c| portal_config::revoke(c, *client, *resource),
                &self.clock,
            ),
            Transition::RevokeWhilePartitioned { client, resource } => {
                for gateway in 0..self.gateways.len() {
                    let component = Component::Gateway(gateway);
                    self.portal.interrupt(component, PARTITION, &self.clock);
                }
                self.portal.reload(
                    |c| portal_config::revoke(c, *client, *resource),
                    &self.clock,
                );
                self.run_for(PARTITION);
            }
            Transition::SetDisabled { client, resources } => {
                let now = self.clock.now();
                let host = &mut self.clients[*client];
                host.settings.disabled.clone_from(resources);
                host.apply_settings(now);
                self.drain_client(*client);
            }
            Transition::ChangeResource {
                resource,
                target,
                site,
                filters,
            } => {
                let spec = &mut self.topology.resources[*resource];
                spec.target = target.clone().unwrap_or_else(|| spec.target.clone());
                spec.site = site.unwrap_or(spec.site);
                spec.filters = filters.clone().unwrap_or_else(|| spec.filters.clone());
                let new = portal_config::resource(*resource, spec);
                self.portal.reload(
                    |config| {
                        config.resources.insert(ids::resource(*resource), new);
                    },
                    &self.clock,
                );
            }
            _ => {}
        }
        self.forget_names();
    }

    /// The operating systems' caches of names are flushed, as they are when resources change.
    pub(crate) fn forget_names(&mut self) {
        for client in &mut self.clients {
            client.apps.forget();
        }
    }

    fn change_names(&mut self, transition: &Transition) {
        match transition {
            Transition::SystemDns { client, servers } => {
                let now = self.clock.now();
                let host = &mut self.clients[*client];
                host.settings.system_dns.clone_from(servers);
                host.session.set_system_resolvers(servers.clone(), now);
                self.drain_client(*client);
            }
            Transition::UpstreamDns { servers } => {
                let servers = servers.clone();
                self.portal
                    .reload(|config| config.dns_servers = servers, &self.clock);
            }
            Transition::SearchDomain { domain } => {
                let domain = domain.clone();
                self.portal
                    .reload(|config| config.search_domain = domain, &self.clock);
            }
            Transition::SetRecords { name, v4, v6 } => self.records.set(name, v4, v6),
            _ => {}
        }
    }

    fn move_component(&mut self, transition: &Transition) {
        match transition {
            Transition::Roam {
                client,
                families,
                edge,
                dead_ms,
                portal_ms,
            } => self.roam(*client, *families, *edge, *dead_ms, *portal_ms),
            Transition::ReconnectPortal { who, away_ms } => {
                let who = match who {
                    Component::Relay(nth) => Component::Relay(self.nth_relay(*nth)),
                    other => *other,
                };
                let away = Duration::from_millis(*away_ms);
                self.portal.interrupt(who, away, &self.clock);
            }
            Transition::RestartClient { client, end } => self.restart_client(*client, *end),
            Transition::RestartGateway { gateway, end } => self.restart_gateway(*gateway, *end),
            _ => {}
        }
    }

    /// Three phases (testing §5.10): no network, a new network without portal, everything.
    fn roam(
        &mut self,
        client: usize,
        families: Families,
        edge: Edge,
        dead_ms: u64,
        portal_ms: u64,
    ) {
        let (dead, portal) = (
            Duration::from_millis(dead_ms),
            Duration::from_millis(portal_ms),
        );
        let component = Component::Client(client);
        let host = self.clients[client].attachment.host;
        self.net.move_host(host, None, None, None);
        self.portal.interrupt(component, dead + portal, &self.clock);
        self.run_for(dead);

        let place = self.cursor.next_place();
        let spec = HostSpec {
            families,
            edge,
            ..self.topology.clients[client].host.clone()
        };
        let edge_id = self.add_edge(&spec, place);
        let attachment = &mut self.clients[client].attachment;
        attachment.place = place;
        attachment.edge = edge_id;
        attachment.families = families;
        attachment.is_behind_nat = is_nat(edge);
        attachment.rebind();
        let attachment = attachment.clone();
        self.move_to(&attachment);
        let now = self.clock.now();
        self.clients[client].drop_lookups();
        self.clients[client].session.reset(now);
        self.drain_client(client);
        self.run_for(portal);
    }

    fn restart_client(&mut self, client: usize, end: End) {
        let now = self.clock.now();
        if end == End::Graceful {
            self.clients[client].session.shutdown(now);
            self.drain_client(client);
        }
        self.portal.close(Component::Client(client), &self.clock);
        let spec = self.topology.clients[client].clone();
        let seed = self.draw_seed();
        self.clients[client].restart(&spec, seed, &self.clock);
        self.trace
            .push(self.clock.elapsed(), Entry::Restarted { client });
        let identity = self.clients[client].identity();
        self.portal
            .open(Component::Client(client), identity, &self.clock);
        self.drain_client(client);
    }

    fn restart_gateway(&mut self, gateway: usize, end: End) {
        let now = self.clock.now();
        if end == End::Graceful {
            self.gateways[gateway].session.shutdown(now);
            self.drain_gateway(gateway);
        }
        self.portal.close(Component::Gateway(gateway), &self.clock);
        let seed = self.draw_seed();
        self.gateways[gateway].restart(seed, &self.clock);
        let identity = self.gateways[gateway].identity();
        self.portal
            .open(Component::Gateway(gateway), identity, &self.clock);
        self.drain_gateway(gateway);
    }

    fn change_network(&mut self, transition: &Transition) {
        match transition {
            Transition::DeployRelays { count } => {
                for relay in self.living_relays() {
                    self.relays[relay].alive = false;
                    self.portal.close(Component::Relay(relay), &self.clock);
                }
                for _ in 0..*count {
                    self.topology.relays.push(RelaySpec::default());
                    self.add_relay(self.relays.len());
                }
            }
            Transition::PartitionRelays { away_ms } => {
                let away = Duration::from_millis(*away_ms);
                for relay in self.living_relays() {
                    self.portal
                        .interrupt(Component::Relay(relay), away, &self.clock);
                }
                self.run_for(away);
            }
            Transition::RebootRelays => {
                for relay in self.living_relays() {
                    self.relays[relay].reboot(&self.clock);
                    self.portal
                        .interrupt(Component::Relay(relay), FLAP, &self.clock);
                }
            }
            Transition::MoveRelays => {
                for relay in self.living_relays() {
                    self.move_relay(relay);
                }
            }
            Transition::BlockDirect(blocked) => self.block_direct(*blocked),
            Transition::FlushEdge { client } => {
                if let Some(edge) = self.clients[*client].attachment.edge {
                    self.net.flush_edge(edge);
                }
            }
            _ => {}
        }
    }

    fn move_relay(&mut self, index: usize) {
        let place = self.cursor.next_place();
        self.know(place);
        let relay = &mut self.relays[index];
        relay.relocate(place, &self.clock);
        let (host, v4, v6) = (relay.host, relay.v4, relay.v6);
        self.net.move_host(host, v4, v6, None);
        self.open_relay_channel(index);
    }

    fn living_relays(&self) -> Vec<usize> {
        let relays = self.relays.iter().enumerate();
        relays.filter(|(_, r)| r.alive).map(|(i, _)| i).collect()
    }

    fn nth_relay(&self, nth: usize) -> usize {
        let living = self.living_relays();
        living[nth % living.len()]
    }
}
