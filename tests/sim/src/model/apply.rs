//! What transitions do to the model.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Expectations, ExpectedProbe, Fates, Model, Reach, Reply, TcpModel, TcpState,
    routing::{Route, Traffic},
};
use crate::{
    topology::{Edge, Families, Os, RelaySpec, ResourceSpec, Target},
    transition::{Component, Destination, Probe, Protocol, Query, Transition},
};

/// Seconds within which a path that was cut has to be replaced: the peer's death is noticed within 20 s with active
/// timings, or at the next consent check when idle (25 s, and as long again for its time-outs).
const RECOVERY_S: u64 = 120;

/// Of a burst to a resource that is not connected, this many of the newest packets must arrive.
const BURST_KEPT: usize = 16;

/// The cadence at which a host refreshes the state of its edge (snownet §3.10).
const REFRESHED_EVERY_S: u64 = 25;

/// No initiator sends under a session of this age (snownet T15).
const SESSION_S: u64 = 170;

impl Model {
    /// Applies a transition and says what it must lead to.
    pub fn apply(&mut self, transition: &Transition) -> Expectations {
        let mut expected = Expectations {
            settle_ms: 1_000,
            ..Expectations::default()
        };
        let wakes_unknown = self.wakes_unknown(transition);
        self.note_obstacles(transition);
        self.apply_to(transition, &mut expected);
        if wakes_unknown {
            for probe in &mut expected.probes {
                probe.fates.silence = true;
            }
        }
        // A late answer of the portal holds up what it says afterwards.
        expected.settle_ms += self.topology.portal.answer_delay_ms;
        expected
    }

    fn apply_to(&mut self, transition: &Transition, expected: &mut Expectations) {
        match transition {
            Transition::Send { client, probes } => self.send(*client, probes, expected),
            Transition::Burst {
                client,
                to,
                port,
                count,
            } => self.burst(*client, to, *port, *count, expected),
            Transition::Stall {
                client,
                seconds,
                then,
            } => {
                expected.idle_s = *seconds;
                self.send(*client, then, expected);
                if self.is_forgotten_in_stall(*client, *seconds) {
                    expected.recovery_s = Some(RECOVERY_S);
                }
                // Its gateways have heard nothing of it for this long and may have given it up.
                self.clients[*client].doubt_connections();
                self.doubt_connections_of(|tcp| tcp.client == *client);
            }
            Transition::Query { client, queries } => self.query(*client, queries, expected),
            Transition::OpenTcp {
                client, to, port, ..
            } => {
                self.open_tcp(*client, to, *port, expected);
            }
            Transition::UseTcp { connection, .. } => {
                if self.is_open(*connection) {
                    expected.used.push(*connection);
                    self.connections[*connection].state = TcpState::Open;
                    let &TcpModel {
                        client, resource, ..
                    } = &self.connections[*connection];
                    self.clients[client].connected.insert(resource, false);
                }
            }
            Transition::CloseTcp { connection } => {
                if let Some(tcp) = self.connections.get_mut(*connection) {
                    tcp.state = TcpState::Unknown;
                }
            }
            Transition::Idle { seconds } => expected.idle_s = *seconds,
            Transition::Grant { .. }
            | Transition::Revoke { .. }
            | Transition::RevokeWhilePartitioned { .. }
            | Transition::SetDisabled { .. }
            | Transition::ChangeResource { .. } => self.change_access(transition),
            Transition::SystemDns { client, servers } => {
                self.clients[*client].system_dns.clone_from(servers);
                self.update_servers();
            }
            Transition::UpstreamDns { servers } => {
                self.upstream_dns.clone_from(servers);
                self.update_servers();
            }
            Transition::SearchDomain { domain } => self.search_domain.clone_from(domain),
            Transition::SetRecords { name, v4, v6 } => {
                if let Some(versions) = self.names.get_mut(name) {
                    let mut new = versions.last().cloned().unwrap_or_default();
                    new.v4.clone_from(v4);
                    new.v6.clone_from(v6);
                    versions.push(new);
                }
            }
            Transition::Rogue(act) => {
                expected.settle_ms = 3_000;
                expected.rogue = self.rogue_acts(act);
            }
            _ => self.disturb(transition, expected),
        }
    }

    /// Whether the misbehaving client may lose its gateway or its path.
    fn disturbs_rogue(&self, transition: &Transition) -> bool {
        match transition {
            Transition::RestartGateway { gateway, .. } => {
                let site = self.topology.gateways[*gateway].site;
                self.rogue.as_ref().is_some_and(|rogue| rogue.site == site)
            }
            Transition::DeployRelays { .. }
            | Transition::PartitionRelays { .. }
            | Transition::RebootRelays
            | Transition::MoveRelays
            | Transition::BlockDirect(_) => true,
            _ => false,
        }
    }

    /// Things that cut or move paths.
    fn disturb(&mut self, transition: &Transition, expected: &mut Expectations) {
        let disturbs_rogue = self.disturbs_rogue(transition);
        if let Some(rogue) = &mut self.rogue {
            rogue.may_be_gone |= disturbs_rogue;
        }
        match transition {
            Transition::Roam {
                client, families, ..
            } => {
                let client = *client;
                self.clients[client].families = *families;
                self.clients[client].connected.clear();
                let of_client = |tcp: &&mut TcpModel| tcp.client == client;
                for tcp in self.connections.iter_mut().filter(of_client) {
                    if tcp.state == TcpState::Open {
                        tcp.state = TcpState::Cold;
                    }
                }
                expected.settle_ms = 12_000;
            }
            Transition::ReconnectPortal { who, away_ms } => {
                if let Component::Gateway(gateway) = who {
                    let site = self.topology.gateways[*gateway].site;
                    self.note_futile_requests(|resource| resource.site == site);
                }
                expected.settle_ms = away_ms + 3_000;
            }
            Transition::RestartClient { client, .. } => {
                self.clients[*client].forget_process();
                self.clients[*client].servers.clear();
                self.update_servers();
                self.update_preferences(*client);
                self.doubt_connections_of(|tcp| tcp.client == *client);
                expected.settle_ms = 3_000;
            }
            Transition::RestartGateway { gateway, end } => {
                let site = self.topology.gateways[*gateway].site;
                let resources = &self.resources;
                for client in &mut self.clients {
                    for (resource, sure) in &mut client.connected {
                        *sure &= resources[*resource].site != site;
                    }
                }
                let in_site = |tcp: &TcpModel| resources[tcp.resource].site == site;
                for tcp in self.connections.iter_mut().filter(|tcp| in_site(tcp)) {
                    tcp.state = TcpState::Unknown;
                }
                expected.settle_ms = 3_000;
                // A goodbye is sent once, best effort (tunnel §4). It may be overtaken by the end of the allocation that it goes through.
                if *end == crate::transition::End::Killed || self.topology.reordered > 0 {
                    expected.recovery_s = Some(RECOVERY_S);
                }
            }
            Transition::DeployRelays { count } => {
                let spec = RelaySpec::default();
                self.topology.relays = vec![spec; *count];
                self.relays_changed(expected);
            }
            Transition::PartitionRelays { .. } => {
                self.note_futile_requests(|_| true);
                self.relays_changed(expected);
            }
            Transition::RebootRelays | Transition::MoveRelays => self.relays_changed(expected),
            Transition::BlockDirect(blocked) => {
                self.direct_blocked = *blocked;
                self.paths_cut(expected);
            }
            Transition::FlushEdge { .. } => self.paths_cut(expected),
            _ => {}
        }
    }

    /// Whether the edge of a client that does not run for so long forgets it while its session lives on. What the client
    /// sends then goes out on a mapping that nobody knows, as after a flush, until it hears from a relay. Under an expired
    /// session nothing is sent before the new one, which proves the path.
    fn is_forgotten_in_stall(&self, client: usize, seconds: u64) -> bool {
        let host = &self.topology.clients[client].host;
        self.clients[client].edge != Edge::Open
            && host.expiry_s <= seconds + REFRESHED_EVERY_S
            && seconds < SESSION_S
    }

    /// Whether a client wakes on a forgotten mapping and may depend on a relay, which drops what comes from an address that
    /// it does not know yet.
    fn wakes_unknown(&self, transition: &Transition) -> bool {
        match transition {
            Transition::Stall {
                client, seconds, ..
            } => self.is_forgotten_in_stall(*client, *seconds) && !self.is_direct(*client),
            _ => false,
        }
    }

    fn relays_changed(&mut self, expected: &mut Expectations) {
        self.paths_cut(expected);
        expected.settle_ms = 5_000;
    }

    /// Applications repeat what they sent on connections that were not made, also while gateways are away from the portal, or know
    /// no relay. Those do not acknowledge access then (portal 80), and the portal says after 15 s that nobody is online.
    fn note_futile_requests(&mut self, is_meant: impl Fn(&ResourceSpec) -> bool) {
        for tcp in self.connections.clone() {
            if self.is_known(tcp.client, &tcp.to)
                && let Route::To { resources, .. } =
                    self.route(tcp.client, &tcp.to, Traffic::Tcp(tcp.port))
            {
                let resources = resources.into_iter();
                let futile = resources.filter(|resource| is_meant(&self.resources[*resource]));
                self.clients[tcp.client].out_of_reach.extend(futile);
            }
        }
    }

    fn paths_cut(&mut self, expected: &mut Expectations) {
        self.clients
            .iter_mut()
            .for_each(super::ClientModel::doubt_connections);
        expected.recovery_s = Some(RECOVERY_S);
        // Some systems give a silent connection up before the path is replaced.
        let clients = &self.topology.clients;
        for tcp in &mut self.connections {
            if clients[tcp.client].os != Os::Linux {
                tcp.state = TcpState::Unknown;
            }
        }
    }

    fn doubt_connections_of(&mut self, matches: impl Fn(&TcpModel) -> bool) {
        for tcp in self.connections.iter_mut().filter(|tcp| matches(tcp)) {
            tcp.state = TcpState::Unknown;
        }
    }

    fn change_access(&mut self, transition: &Transition) {
        match transition {
            Transition::Grant {
                client,
                resource,
                for_s,
            } => {
                self.clients[*client].granted.insert(*resource);
                if let Some(seconds) = for_s {
                    let end = Duration::from_secs(self.now.as_secs() + seconds);
                    self.limits.insert((*client, *resource), end);
                }
            }
            Transition::Revoke { client, resource }
            | Transition::RevokeWhilePartitioned { client, resource } => {
                self.limits.remove(&(*client, *resource));
                self.clients[*client].granted.remove(resource);
                self.clients[*client].connected.remove(resource);
            }
            Transition::SetDisabled { client, resources } => {
                let model = &mut self.clients[*client];
                let new: BTreeSet<usize> = resources.iter().copied().collect();
                model.connected.retain(|id, _| !new.contains(id));
                model.disabled = new;
            }
            Transition::ChangeResource {
                resource,
                target,
                site,
                filters,
            } => {
                let spec = &mut self.resources[*resource];
                let old = spec.clone();
                spec.target = target.clone().unwrap_or_else(|| spec.target.clone());
                spec.site = site.unwrap_or(spec.site);
                spec.filters = filters.clone().unwrap_or_else(|| spec.filters.clone());
                let is_replaced = (&spec.target, spec.site) != (&old.target, old.site);
                let is_changed = *spec != old;
                if is_replaced {
                    self.take_away_for_a_moment(*resource);
                    // What was granted ends with the resource that it was granted for, and the rogue does not ask again.
                    if let Some(rogue) = &mut self.rogue {
                        rogue.granted.retain(|id| id != resource);
                    }
                }
                for client in &mut self.clients {
                    if is_replaced {
                        client.connected.remove(resource);
                    } else if is_changed && let Some(sure) = client.connected.get_mut(resource) {
                        *sure = false;
                    }
                }
            }
            _ => {}
        }
        for client in 0..self.clients.len() {
            // The operating system's cache of names is flushed when resources change.
            self.clients[client].resolved.clear();
            self.update_preferences(client);
        }
        // Routes may have moved: which connections survive that is not modelled.
        self.doubt_connections_of(|_| true);
    }

    /// When the next access ends by itself.
    pub fn next_end(&self) -> Option<Duration> {
        self.limits.values().min().copied()
    }

    /// When access has ended that ends at `end`, or not later than `pause` after the end of another that is counted.
    pub fn last_end_from(&self, end: Duration, pause: Duration) -> Duration {
        let mut ends = self.limits.values().copied().collect::<Vec<_>>();
        ends.sort_unstable();
        let close = |last: Duration, next: Duration| match next <= last + pause {
            true => last.max(next),
            false => last,
        };
        ends.into_iter().fold(end, close)
    }

    /// Access that was granted until `now` or earlier ends.
    pub fn end_access(&mut self, now: Duration) {
        let limits = self.limits.iter();
        let over: Vec<_> = limits
            .filter(|(_, end)| **end <= now)
            .map(|(who, _)| *who)
            .collect();
        for (client, resource) in over {
            self.change_access(&Transition::Revoke { client, resource });
        }
    }

    /// What is replaced goes and comes back: meanwhile its network belongs to others, who keep it if they are connected.
    fn take_away_for_a_moment(&mut self, resource: usize) {
        for client in 0..self.clients.len() {
            if self.clients[client].granted.remove(&resource) {
                self.clients[client].connected.remove(&resource);
                self.update_preferences(client);
                self.clients[client].granted.insert(resource);
            }
        }
    }

    fn send(&mut self, client: usize, probes: &[Probe], expected: &mut Expectations) {
        for probe in probes {
            let number = self.next_probe;
            self.next_probe += 1;
            let traffic = match probe.how {
                Protocol::Icmp => Traffic::Icmp,
                Protocol::Udp(port) => Traffic::Udp(port),
            };
            let route = match probe.source {
                Some(_) => Route::None,
                None => self.route(client, &probe.to, traffic),
            };
            let fates = self.fates(client, &route);
            if fates.silence {
                expected.settle_ms = 3_000;
            }
            expected.probes.push(ExpectedProbe {
                number,
                client,
                to: probe.to.clone(),
                how: probe.how,
                fates,
            });
        }
    }

    /// Of packets that wait for access, the oldest give way.
    fn burst(
        &mut self,
        client: usize,
        to: &Destination,
        port: u16,
        count: usize,
        expected: &mut Expectations,
    ) {
        let probe = Probe {
            to: to.clone(),
            how: Protocol::Udp(port),
            source: None,
        };
        let first = expected.probes.len();
        self.send(client, &vec![probe; count], expected);
        let may_be_lost = count.saturating_sub(BURST_KEPT);
        for probe in expected.probes[first..].iter_mut().take(may_be_lost) {
            probe.fates.silence = true;
        }
    }

    fn fates(&mut self, client: usize, route: &Route) -> Fates {
        match route {
            Route::None => Fates::silence(),
            Route::Refused => Fates {
                refused: true,
                ..Fates::default()
            },
            Route::To {
                resources,
                addresses,
                may_lack_family,
            } => {
                self.connect(client, resources);
                if !self.has_paths() {
                    self.clients[client].doubt_connections();
                    self.clients[client].out_of_reach.extend(resources);
                    return Fates::silence();
                }
                let reached = &mut self.clients[client].out_of_reach;
                reached.retain(|resource| !resources.contains(resource));
                Fates {
                    reach: (!addresses.is_empty()).then(|| self.reach(resources, addresses)),
                    no_family: *may_lack_family,
                    ..Fates::default()
                }
            }
        }
    }

    /// Whether there is any way between clients and gateways.
    fn has_paths(&self) -> bool {
        !self.direct_blocked || !self.topology.relays.is_empty()
    }

    fn reach(&self, resources: &BTreeSet<usize>, addresses: &BTreeSet<std::net::IpAddr>) -> Reach {
        let sites = resources.iter().map(|id| self.resources[*id].site);
        Reach {
            gateways: sites.flat_map(|site| self.gateways_of(site)).collect(),
            destinations: addresses.clone(),
        }
    }

    /// Traffic flows to a resource; if it may be one of several, none of them for sure.
    pub(super) fn connect(&mut self, client: usize, resources: &BTreeSet<usize>) {
        for resource in resources {
            // With loss, a connection may be given up and made again at any time.
            let sure = resources.len() == 1 && !self.is_repeating();
            self.clients[client].connected.insert(*resource, sure);
        }
    }

    fn query(&mut self, client: usize, queries: &[Query], expected: &mut Expectations) {
        for query in queries {
            let answer = self.expect_query(client, query);
            self.learn(client, query, &answer.reply);
            if answer.reply == Reply::Silence {
                expected.settle_ms = 6_000;
            }
            expected.queries.push(answer);
        }
    }

    fn open_tcp(
        &mut self,
        client: usize,
        to: &Destination,
        port: u16,
        expected: &mut Expectations,
    ) {
        let index = self.connections.len();
        let route = self.route(client, to, Traffic::Tcp(port));
        let fates = self.fates(client, &route);
        let reach = fates.reach.clone().unwrap_or_default();
        let is_reachable = |ip: &std::net::IpAddr| self.failure_at(*ip).is_none();
        let reachable = reach
            .destinations
            .iter()
            .filter(|ip| is_reachable(ip))
            .count();
        let is_certain = !fates.no_family
            && reachable == reach.destinations.len()
            && !reach.destinations.is_empty();
        let resource = match &route {
            Route::To { resources, .. } if resources.len() == 1 => resources.first().copied(),
            _ => None,
        };
        if is_certain || reachable == 0 {
            expected.opened.push((index, reach, is_certain));
        }
        if !is_certain && let Route::To { resources, .. } = &route {
            // Nobody waits for the answer, so nobody knows when the way is there.
            for resource in resources {
                self.clients[client].connected.insert(*resource, false);
            }
        }
        // Nothing announces that a connection does not come about.
        expected.settle_ms = if is_certain { 2_000 } else { 8_000 };
        let state = match (is_certain, resource) {
            (true, Some(_)) => TcpState::Open,
            (_, _) => TcpState::Unknown,
        };
        self.connections.push(TcpModel {
            client,
            to: to.clone(),
            port,
            resource: resource.unwrap_or_default(),
            state,
        });
    }

    /// A packet that goes to a resource and nowhere else.
    pub fn example(&self, client: usize, resource: usize) -> Option<Probe> {
        let destinations: Vec<Destination> = match &self.resources[resource].target {
            Target::Cidr(network) => {
                let hosts = network.hosts().take(3);
                hosts.map(Destination::Host).collect()
            }
            Target::Internet => vec![Destination::Host([8, 8, 4, 4].into())],
            Target::Dns(..) => {
                let names = self.clients[client].resolved.keys();
                names
                    .map(|(name, family)| Destination::Name(name.clone(), *family, 0))
                    .collect()
            }
        };
        let protocols = [Protocol::Icmp, Protocol::Udp(80), Protocol::Udp(5000)];
        for to in destinations {
            for how in protocols {
                let traffic = match how {
                    Protocol::Icmp => Traffic::Icmp,
                    Protocol::Udp(port) => Traffic::Udp(port),
                };
                if let Route::To {
                    resources,
                    addresses,
                    ..
                } = self.route(client, &to, traffic)
                    && resources == BTreeSet::from([resource])
                    && !addresses.is_empty()
                {
                    let source = None;
                    return Some(Probe { to, how, source });
                }
            }
        }
        None
    }

    /// Whether a connection must still work.
    pub fn is_open(&self, connection: usize) -> bool {
        let tcp = self.connections.get(connection);
        tcp.is_some_and(|tcp| tcp.state != TcpState::Unknown)
    }

    /// Networks that a client must route into its TUN device besides the fixed ranges; `None` is the internet.
    pub fn routes(&self, client: usize) -> Vec<Option<ipnet::IpNet>> {
        let active = self.clients[client].active();
        active
            .filter_map(|id| match &self.resources[id].target {
                Target::Cidr(network) => Some(Some(network.trunc())),
                Target::Internet => Some(None),
                Target::Dns(..) => None,
            })
            .collect()
    }

    /// Families at both ends of a pair, if it has any in common.
    pub fn common_families(&self, client: usize, gateway: usize) -> (bool, bool) {
        let a: Families = self.clients[client].families;
        let b = self.topology.gateways[gateway].host.families;
        (a.has_v4() && b.has_v4(), a.has_v6() && b.has_v6())
    }

    /// Whether the component takes part in the case.
    pub fn exists(&self, component: Component) -> bool {
        match component {
            Component::Client(index) => index < self.clients.len(),
            Component::Gateway(index) => index < self.topology.gateways.len(),
            Component::Relay(index) => index < self.topology.relays.len(),
        }
    }
}
