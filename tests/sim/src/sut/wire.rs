//! Datagrams between hosts.

use std::net::SocketAddr;

use connlib_snownet::Transmit;
use netsim::{Delivery, DropReason, HostId, Sent, Transport, Tuple};

use super::{World, relay::Outgoing};
use crate::{
    assertions::wire,
    logs,
    trace::{Class, Entry, Wire},
    transition::Component,
};

/// IP and UDP headers, for rates.
const OVERHEAD: usize = 28;

impl World {
    /// A node's datagram. It vanishes if the host has no address of its family, as from a real socket.
    pub(super) fn transmit(&mut self, from: Component, transmit: Transmit) {
        let attachment = match from {
            Component::Client(index) if index < self.clients.len() => {
                &self.clients[index].attachment
            }
            Component::Client(_) => match &self.rogue {
                Some(rogue) => &rogue.attachment,
                None => return,
            },
            Component::Gateway(index) => &self.gateways[index].attachment,
            Component::Relay(_) => return,
        };
        let Some(source) = attachment.source(&transmit) else {
            return;
        };
        if !attachment.has_socket(source) {
            let text = format!("{from:?} sends from {source}, which is none of its sockets");
            let at = self.elapsed();
            return self.trace.violation(at, 19, text);
        }
        let host = attachment.host;
        self.put_on_wire(from, host, source, transmit.dst, transmit.payload);
    }

    /// What a relay sends.
    pub(super) fn relay_outputs(&mut self, index: usize, outputs: Vec<Outgoing>) {
        let host = self.relays[index].host;
        for output in outputs {
            self.put_on_wire(
                Component::Relay(index),
                host,
                output.source,
                output.destination,
                output.payload,
            );
        }
    }

    fn put_on_wire(
        &mut self,
        from: Component,
        host: HostId,
        source: SocketAddr,
        destination: SocketAddr,
        payload: Vec<u8>,
    ) {
        let at = self.elapsed();
        let seen = Wire {
            at,
            from,
            source,
            destination,
            len: payload.len(),
            class: Class::of(&payload),
        };
        for (assertion, text) in wire::check(&seen) {
            self.trace.violation(at, assertion, text);
        }
        self.trace.push(at, Entry::Wire(seen));

        let tuple = Tuple::new(Transport::Udp, source, destination);
        let size = payload.len() + OVERHEAD;
        let sent = self.net.send(host, tuple, size, payload, self.clock.now());
        if let Sent::Dropped(reason) = &sent {
            logs::note(|| format!("~~~ lost: {reason:?}"));
        }
        match sent {
            Sent::Dropped(DropReason::NoRoute)
                if !self.known_addresses.contains(&destination.ip()) =>
            {
                let text = format!("{from:?} sends to {destination}, which nobody ever had");
                self.trace.violation(at, 15, text);
            }
            Sent::Dropped(DropReason::BadSource) if matches!(from, Component::Relay(_)) => {
                let text = format!("{from:?} sends from {source}, a family it does not have");
                self.trace.violation(at, 15, text);
            }
            Sent::InFlight | Sent::Dropped(_) => {}
        }
    }

    /// Takes one datagram to its receiver. Whoever is not running does not see it.
    pub(super) fn deliver(&mut self, delivery: Delivery<Vec<u8>>) {
        let (to, from) = (delivery.tuple.destination, delivery.tuple.source);
        let now = self.clock.now();
        let owner = self.owners.get(&delivery.host).copied();
        logs::note(|| {
            let (class, len) = (Class::of(&delivery.payload), delivery.payload.len());
            format!("+++ {owner:?} {to} < {from} {class:?} {len} B")
        });
        match owner {
            Some(Component::Relay(index)) => {
                let outputs = self.relays[index].handle(to, from, &delivery.payload, now);
                self.relay_outputs(index, outputs);
            }
            Some(component) if component == self.rogue_component() => {
                self.rogue_receives(to, from, &delivery.payload);
            }
            Some(Component::Client(index)) => {
                let client = &mut self.clients[index];
                if client.stalled || !client.attachment.has_socket(to) {
                    return;
                }
                let packets = client.handle_network(to, from, &delivery.payload, now);
                for packet in packets {
                    self.deliver_to_application(index, packet);
                }
                self.drain_client(index);
            }
            Some(Component::Gateway(index)) => {
                let gateway = &mut self.gateways[index];
                if !gateway.running || !gateway.attachment.has_socket(to) {
                    return;
                }
                let packets = gateway.handle_network(to, from, &delivery.payload, now);
                for packet in packets {
                    self.deliver_to_server(index, packet);
                }
                self.drain_gateway(index);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    /// A15: a relay that lacks a family, and a host that never existed.
    #[test]
    fn datagrams_that_cannot_be_are_noticed() {
        let broken = |source: &str, destination: &str| {
            let mut world = World::new(&Topology::default());
            world.trace.entries.clear();
            let outgoing = Outgoing {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                payload: vec![0; 20],
            };
            world.relay_outputs(0, vec![outgoing]);
            let entries = world.trace.entries.iter();
            let numbers = entries.filter_map(|(_, entry)| match entry {
                Entry::Violation { assertion, .. } => Some(*assertion),
                _ => None,
            });
            numbers.collect::<Vec<_>>()
        };
        let (relay, client) = ("185.7.0.1:3478", "185.7.0.3:52625");
        assert_eq!(broken(relay, client), [] as [u8; 0]);
        assert_eq!(broken("0.0.0.0:3478", client), [15]);
        assert_eq!(broken(relay, "198.18.0.1:9"), [15]);
    }
}
