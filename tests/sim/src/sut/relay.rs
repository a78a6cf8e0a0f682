//! The relay's production core on a simulated host.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use connlib_stun::channel::encode_header;
use netsim::HostId;
use relay_core::{
    AllocationPort, ClientSocket, Command, Config, Forwarder, PublicAddresses, Route, Server,
    StampSecret, Train,
};

use crate::{clock::Clock, topology::Families, topology::addresses::Place};

/// Port of the service.
pub(crate) const TURN_PORT: u16 = 3478;

/// A datagram that the relay sends.
pub(crate) struct Outgoing {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

/// A relay.
pub(crate) struct RelayHost {
    pub(crate) host: HostId,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
    /// A relay that is gone swallows everything.
    pub(crate) alive: bool,
    pub(crate) deadline: Option<Instant>,
    server: Server,
    seed: [u8; 32],
}

impl RelayHost {
    pub(crate) fn new(
        host: HostId,
        place: Place,
        families: Families,
        seed: [u8; 32],
        clock: &Clock,
    ) -> Self {
        let v4 = families.has_v4().then_some(place.public_v4);
        let v6 = families.has_v6().then_some(place.v6);
        let server = server(v4, v6, None, seed, clock);
        Self {
            host,
            v4,
            v6,
            alive: true,
            deadline: server.poll_timeout(),
            server,
            seed,
        }
    }

    /// A new process with the same secret, hence the same identity, that knows of nobody.
    pub(crate) fn reboot(&mut self, clock: &Clock) {
        self.seed[31] = self.seed[31].wrapping_add(1);
        let secret = self.server.stamp_secret().clone();
        self.server = server(self.v4, self.v6, Some(secret), self.seed, clock);
        self.deadline = self.server.poll_timeout();
    }

    /// A new process with the same secret at another place.
    pub(crate) fn relocate(&mut self, place: Place, clock: &Clock) {
        self.v4 = self.v4.map(|_| place.public_v4);
        self.v6 = self.v6.map(|_| place.v6);
        self.reboot(clock);
    }

    pub(crate) fn stamp_secret(&self) -> &str {
        self.server.stamp_secret().expose()
    }

    pub(crate) fn allocation_count(&self) -> usize {
        self.server.allocation_count()
    }

    pub(crate) fn handle(
        &mut self,
        to: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Vec<Outgoing> {
        if !self.alive {
            return Vec::new();
        }
        let mut forwarded = Forwarded::default();
        let train = Train::single(datagram);
        if to.port() == TURN_PORT {
            self.server
                .handle_client_input(from, train, now, &mut forwarded);
        } else {
            let port = AllocationPort::new(to.port());
            self.server
                .handle_peer_input(port, from, train, now, &mut forwarded);
        }
        let mut outputs = self.carry_out(now);
        for (route, payload) in forwarded.0 {
            outputs.extend(self.output(route, payload));
        }
        self.deadline = self.server.poll_timeout();
        outputs
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Outgoing> {
        self.server.handle_timeout(now);
        let outputs = self.carry_out(now);
        self.deadline = self.server.poll_timeout();
        outputs
    }

    fn carry_out(&mut self, now: Instant) -> Vec<Outgoing> {
        let mut outputs = Vec::new();
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { to, bytes } => outputs.push(Outgoing {
                    source: self.server_socket(to),
                    destination: to.address(),
                    payload: bytes,
                }),
                Command::CreateAllocation { port, family } => {
                    self.server.handle_port_bound(port, family, now);
                }
                // One server alone counts its users by itself.
                Command::FreeAllocation { .. }
                | Command::UserGained { .. }
                | Command::UserLost { .. } => {}
            }
        }
        outputs
    }

    fn output(&self, route: Route, payload: Vec<u8>) -> Option<Outgoing> {
        Some(match route {
            Route::ToPeer { port, peer } => Outgoing {
                source: SocketAddr::new(self.own_ip(peer.address()), port.get()),
                destination: peer.address(),
                payload,
            },
            Route::ToClient { client, number } => {
                let len = u16::try_from(payload.len()).expect("datagrams fit into 16 bits");
                let mut framed = encode_header(number, len).to_vec();
                framed.extend(payload);
                Outgoing {
                    source: self.server_socket(client),
                    destination: client.address(),
                    payload: framed,
                }
            }
            Route::ToSibling { .. } => return None,
        })
    }

    fn server_socket(&self, client: ClientSocket) -> SocketAddr {
        SocketAddr::new(self.own_ip(client.address()), TURN_PORT)
    }

    /// Our address of the family of `other`. Unspecified if there is none, which the network refuses and the
    /// assertions report (A15).
    fn own_ip(&self, other: SocketAddr) -> IpAddr {
        if other.is_ipv4() {
            self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).into()
        } else {
            self.v6.unwrap_or(Ipv6Addr::UNSPECIFIED).into()
        }
    }
}

#[derive(Default)]
struct Forwarded(Vec<(Route, Vec<u8>)>);

impl Forwarder for Forwarded {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        self.0.push((route, payload.to_vec()));
    }
}

fn server(
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    stamp_secret: Option<StampSecret>,
    seed: [u8; 32],
    clock: &Clock,
) -> Server {
    let public = PublicAddresses::new(v4, v6).expect("a relay has an address");
    let config = Config {
        stamp_secret,
        ..Config::portal(public)
    };
    Server::new(config, seed, clock.now(), clock.unix()).expect("the default settings work")
}
