//! Transitions, carried out on the running system.

use std::time::Duration;

use super::{
    World,
    apps::{client::own_address, probe},
};
use crate::{
    trace::Entry,
    transition::{Probe, Query, Transition},
};

impl World {
    /// Begins a transition. Time passes only as far as the transition says itself.
    pub fn apply(&mut self, transition: &Transition) {
        match transition {
            Transition::Send { client, probes } => self.send(*client, probes),
            Transition::Query { client, queries } => self.query(*client, queries),
            Transition::Idle { seconds } => self.run_for(Duration::from_secs(*seconds)),
            _ => {}
        }
    }

    fn send(&mut self, client: usize, probes: &[Probe]) {
        for probe in probes {
            let number = self.next_probe;
            self.next_probe += 1;
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
            self.from_application(client, &packet);
            self.drain_client(client);
        }
    }

    fn query(&mut self, client: usize, queries: &[Query]) {
        let now = self.clock.now();
        for query in queries {
            let number = self.next_query;
            self.next_query += 1;
            let host = &mut self.clients[client];
            let Some(config) = &host.config else { continue };
            let sentinels = &config.dns_sentinels;
            if sentinels.is_empty() {
                continue;
            }
            let server = sentinels[query.server % sentinels.len()];
            let source = own_address(config, server);
            host.apps.ask(number, query, server, source, now);
            self.drain_client(client);
        }
    }
}
