//! The progress loop (testing §5.9): deliver what has arrived, fire what is due, jump to what comes next.

use std::time::{Duration, Instant};

use super::World;
use crate::transition::Component;

/// Iterations without time advancing (A19).
const MAX_SPIN: u32 = 5_000;

impl World {
    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.step(end) {}
        self.clock.advance_to(end);
    }

    /// Lets time pass until `done`, at most `limit`; whether it was.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.clock.now() + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.clock.advance_to(end);
                return done(self);
            }
        }
    }

    /// Advances to the next thing before `end` and does everything that is due then. False when there is none.
    fn step(&mut self, end: Instant) -> bool {
        let Some(next) = self.next_instant().filter(|at| *at <= end) else {
            return false;
        };
        let before = self.clock.now();
        self.clock.advance_to(next);
        self.count_spin(before);
        self.deliver_due();
        self.fire_due();
        true
    }

    /// The earlier of next arrival and next deadline, exactly: a grid hides deadlines that are off by one.
    fn next_instant(&self) -> Option<Instant> {
        let clients = self.clients.iter().filter(|client| !client.stalled);
        let clients = clients.filter_map(|client| client.deadline);
        let gateways = self.gateways.iter().filter_map(|gateway| gateway.deadline);
        let relays = self.relays.iter().filter(|relay| relay.alive);
        let relays = relays.filter_map(|relay| relay.deadline);
        let rogue = self.rogue.iter().filter_map(|rogue| rogue.deadline);
        clients
            .chain(rogue)
            .chain(gateways)
            .chain(relays)
            .chain(self.net.poll_timeout())
            .chain(self.portal.poll_timeout())
            .min()
    }

    fn count_spin(&mut self, before: Instant) {
        if self.clock.now() > before {
            self.spin = 0;
            return;
        }
        self.spin += 1;
        if self.spin == MAX_SPIN {
            let at = self.elapsed();
            self.trace
                .violation(at, 19, "time stands still: somebody is always due");
            // Goes on, so that the rest of the picture can be seen.
            self.clock.advance_to(before + Duration::from_millis(1));
            self.spin = 0;
        }
    }

    fn deliver_due(&mut self) {
        while let Some(delivery) = self.net.poll_delivery(self.clock.now()) {
            self.deliver(delivery);
        }
        while let Some((component, event)) = self.portal.poll(&self.clock) {
            self.deliver_from_portal(component, event);
        }
    }

    /// Fires timeouts, but only those that are due: more calls than in production would hide missing deadlines.
    fn fire_due(&mut self) {
        let now = self.clock.now();
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        for index in 0..self.clients.len() {
            if !self.clients[index].stalled && is_due(self.clients[index].deadline) {
                self.wake_client(index);
            }
        }
        self.wake_rogue();
        for index in 0..self.gateways.len() {
            if is_due(self.gateways[index].deadline) {
                self.wake_gateway(index);
            }
        }
        for index in 0..self.relays.len() {
            if self.relays[index].alive && is_due(self.relays[index].deadline) {
                let outputs = self.relays[index].handle_timeout(now);
                self.relay_outputs(index, outputs);
                self.check_deadline(Component::Relay(index), self.relays[index].deadline);
            }
        }
    }

    fn wake_client(&mut self, index: usize) {
        let now = self.clock.now();
        let client = &mut self.clients[index];
        while let Some(response) = client.due_lookup(now) {
            let tunnel = client.session.tunnel_mut();
            tunnel.handle_recursive_response(response, now);
        }
        if client.apps.poll_timeout().is_some_and(|at| at <= now) {
            client.apps.tcp.handle_timeout(now);
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(client.session.poll_timeout()) {
            client.session.handle_timeout(now);
            self.drain_client(index);
            let deadline = self.clients[index].session.poll_timeout();
            self.check_deadline(Component::Client(index), deadline);
        } else {
            self.drain_client(index);
        }
    }

    fn wake_gateway(&mut self, index: usize) {
        let now = self.clock.now();
        let gateway = &mut self.gateways[index];
        gateway.finish_lookups(&self.records, now);
        if gateway.servers.poll_timeout().is_some_and(|at| at <= now) {
            gateway.servers.handle_timeout(&self.records, now);
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if gateway.running && is_due(gateway.session.poll_timeout()) {
            gateway.session.handle_timeout(now);
            self.drain_gateway(index);
            let deadline = self.gateways[index].session.poll_timeout();
            self.check_deadline(Component::Gateway(index), deadline);
        } else {
            self.drain_gateway(index);
        }
    }

    /// After a time-out was handled and everything drained, the next one lies ahead (A19, T5).
    fn check_deadline(&mut self, who: Component, deadline: Option<Instant>) {
        let (now, at) = (self.clock.now(), self.elapsed());
        if let Some(text) = crate::assertions::time::stays_due(who, deadline, now) {
            self.trace.violation(at, 19, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{topology::Topology, trace::Entry};

    /// A19: whoever is always due stops time; that is noticed, and time goes on.
    #[test]
    fn time_that_stands_still_is_noticed() {
        let mut world = World::new(&Topology::default());
        world.trace.entries.clear();
        let start = world.clock.now();
        for _ in 0..MAX_SPIN {
            world.count_spin(start);
        }
        assert!(matches!(
            world.trace.entries.as_slice(),
            [(_, Entry::Violation { assertion: 19, .. })]
        ));
        assert!(world.clock.now() > start);
    }
}
