//! The relay: whoever is not authenticated costs nothing, whoever is costs what the limits allow.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, ChannelNumber, Envelope, Family, Key, Outcome, Refresh,
    Request, RequestBody, Response, TransactionId, relay_password,
};
use relay_core::{
    AllocationPort, Command, Config, Forwarder, PublicAddresses, Route, Server, Train,
};

use crate::{KIB, MIB, assert_bounded, assert_levels_off};

const UNIX: u64 = 1_700_000_000;

struct Ignore;

impl Forwarder for Ignore {
    fn forward(&mut self, _route: Route, _payload: &[u8]) {}
}

struct World {
    server: Server,
    now: Instant,
    count: u64,
}

impl World {
    fn new(config: impl FnOnce(PublicAddresses) -> Config) -> Self {
        let now = Instant::now();
        let public = PublicAddresses::Dual([198, 51, 100, 7].into(), Ipv6Addr::from(7 << 64));
        let server = Server::new(config(public), [7; 32], now, Duration::from_secs(UNIX));
        let server = server.unwrap();
        Self {
            server,
            now,
            count: 0,
        }
    }

    /// Sends bytes and returns the last reply.
    fn send(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let train = Train::single(bytes);
        self.server
            .handle_client_input(from, train, self.now, &mut Ignore);
        let mut reply = None;
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { bytes, .. } => reply = Some(bytes),
                Command::CreateAllocation { port, family } => {
                    self.server.handle_port_bound(port, family, self.now);
                }
                _ => {}
            }
        }
        reply
    }

    fn request(
        &mut self,
        name: &str,
        nonce: Option<String>,
        key: &Key,
        body: RequestBody,
    ) -> Vec<u8> {
        self.count += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.count.to_be_bytes());
        let request = Request {
            transaction_id: TransactionId::new(id),
            auth: AuthAttributes {
                username: Some(name.to_owned()),
                realm: Some("firezone".to_owned()),
                nonce,
            },
            software: None,
            body,
        };
        request.encode(Some(key)).unwrap()
    }

    /// The whole exchange, as a user with good credentials.
    fn ask(&mut self, from: SocketAddr, salt: &str, body: RequestBody) -> Outcome {
        let name = format!("{}:{salt}", UNIX + 100_000);
        let password = relay_password(UNIX + 100_000, self.server.stamp_secret().expose(), salt);
        let key = Key::long_term(&name, "firezone", &password);
        let challenge = self.request(&name, None, &key, RequestBody::Refresh(Refresh::default()));
        let challenge = self.send(from, &challenge).unwrap();
        let Outcome::Error(error) = outcome(&challenge) else {
            panic!("not challenged");
        };
        let request = self.request(&name, error.nonce, &key, body);
        outcome(&self.send(from, &request).unwrap())
    }
}

fn outcome(reply: &[u8]) -> Outcome {
    let envelope = Envelope::parse(reply).unwrap();
    Response::decode(&envelope).unwrap().outcome
}

fn v4(n: u32) -> SocketAddr {
    let ip = Ipv4Addr::from(0x0B00_0000 + n);
    SocketAddr::new(ip.into(), 1000 + (n % 50_000) as u16)
}

fn allocate() -> RequestBody {
    RequestBody::Allocate(Allocate {
        requested_transport: Some(Allocate::UDP),
        additional_family: Some(Family::V6),
        ..Allocate::default()
    })
}

// relay C-13
#[test]
fn relay_13_challenges_to_distinct_sources_cost_nothing() {
    let mut world = World::new(Config::portal);
    let key = Key::from_bytes(b"wrong");
    let mut challenged = 0;
    assert_bounded(64 * KIB, 100_000, |n| {
        let name = format!("{}:{n}", UNIX + 100);
        let request = world.request(&name, None, &key, allocate());
        challenged += usize::from(world.send(v4(n), &request).is_some());
    });
    assert!(challenged > 50_000, "{challenged}");
    assert_eq!(world.server.allocation_count(), 0);
}

#[test]
fn bindings_and_garbage_of_distinct_sources_cost_nothing() {
    let mut world = World::new(Config::open);
    let binding = Request {
        transaction_id: TransactionId::new([1; 12]),
        auth: AuthAttributes::default(),
        software: None,
        body: RequestBody::Binding,
    };
    let binding = binding.encode(None).unwrap();
    assert_bounded(64 * KIB, 100_000, |n| {
        let from = match n % 2 {
            0 => v4(n),
            _ => SocketAddr::new(IpAddr::from(Ipv6Addr::from(u128::from(n) << 64 | 1)), 9),
        };
        world.send(from, &binding).unwrap();
        world.send(from, &[0x40, 0, 0, 1, n as u8]);
        world.send(from, &binding[..19]);
        let port = AllocationPort::new(n as u16);
        let train = Train::single(&binding);
        let now = world.now;
        world
            .server
            .handle_peer_input(port, from, train, now, &mut Ignore);
    });
}

/// Coming and going leaves nothing behind, however often and under whatever name.
#[test]
fn allocations_that_ended_cost_nothing() {
    let mut world = World::new(Config::portal);
    assert_levels_off(4 * MIB, 128 * KIB, (1_000, 5_000), |n| {
        let salt = n.to_string();
        assert!(matches!(
            world.ask(v4(n), &salt, allocate()),
            Outcome::Success(_)
        ));
        let bind = ChannelBind {
            number: Some(ChannelNumber::MIN),
            peer: Some(SocketAddr::from(([203, 0, 113, 1], 9))),
        };
        world.ask(v4(n), &salt, RequestBody::ChannelBind(bind));
        let refresh = Refresh {
            lifetime: Some(0),
            ..Refresh::default()
        };
        world.ask(v4(n), &salt, RequestBody::Refresh(refresh));
    });
    assert_eq!(world.server.allocation_count(), 0);
    assert_eq!(world.server.poll_timeout(), None);
}

/// One user can ask for as many channels as there are numbers, and no more.
#[test]
fn channels_of_one_user_are_bounded() {
    let mut world = World::new(Config::open);
    world.ask(v4(0), "a", allocate());
    assert_levels_off(8 * MIB, 64 * KIB, (4_200, 12_000), |n| {
        let bind = ChannelBind {
            number: ChannelNumber::new(0x4000 + (n % 0x4000) as u16),
            peer: Some(SocketAddr::new(
                Ipv4Addr::from(0xCB00_7100 + n % 200).into(),
                n as u16 | 1,
            )),
        };
        world.ask(v4(0), "a", RequestBody::ChannelBind(bind));
    });
    assert!(
        (200..=4096).contains(&world.server.channel_count()),
        "{}",
        world.server.channel_count()
    );
}
