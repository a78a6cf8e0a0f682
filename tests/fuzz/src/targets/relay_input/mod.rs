//! `relay-core`: a sequence of time steps, datagrams of clients and peers, and the driver's own doings.
//!
//! A grammar makes valid requests with right and wrong credentials and nonces, and then perhaps damages them, since random
//! bytes never get past the first signature. The oracle ([`world`]) knows the stamp secret, and thereby which datagrams are
//! authentic. It checks:
//!
//! * a datagram that is not authentic changes neither allocations nor channels;
//! * at most one reply per request, to whoever asked, no larger than the request calls for, and within the rate limit;
//! * data is only relayed on channels that an authenticated client bound within ten minutes, between the right ends, never
//!   to a peer that the policy refuses, and only from sockets that the driver holds (A15);
//! * two workers ([`workers`]) do together what one does, and each only with ports of its own;
//! * sockets, allocations and channels agree with one another, and stay within the configured bounds;
//! * the next deadline is in the future once time was handled.

mod model;
mod requests;
mod workers;
mod world;

use std::time::Duration;

use crate::input::Input;
use world::World;

/// Most steps of one run.
const MAX_STEPS: usize = 200;
/// Largest datagram that is made (bytes).
const MAX_DATAGRAM: usize = 1500;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut input, &mut world);
        world.check();
    }
    world.advance(Duration::from_secs(2 * 3600));
    world.check_idle();
}

fn step(input: &mut Input<'_>, world: &mut World) {
    match input.below(16) {
        0 => world.advance(input.duration()),
        1 => {
            let (client, bytes) = (world.client(input), input.bytes(MAX_DATAGRAM));
            world.client_sends(client, bytes, bytes.len());
        }
        2 => {
            let (client, size) = (world.client(input), usize::from(input.u8()));
            world.client_sends(client, input.bytes(MAX_DATAGRAM), size);
        }
        3 => {
            let (peer, port) = (world.peer(input), world.port(input));
            world.peer_sends(port, peer, input.bytes(MAX_DATAGRAM));
        }
        4 | 5 => {
            let (client, datagram) = (world.client(input), requests::channel_data(input));
            world.client_sends(client, &datagram, datagram.len());
        }
        6 => {
            let (client, datagram) = (world.client(input), requests::send_indication(input, world));
            world.client_sends(client, &datagram, datagram.len());
        }
        7 => world.set_refusing_ports(input.u8()),
        8 => world.set_unix_time(input.u32()),
        9 if input.u8() == 0 => world.drain(),
        10 => {
            let port = world.port(input);
            world.fail_port(port);
        }
        _ => {
            let client = world.client(input);
            let datagram = requests::request(input, world, client);
            world.client_sends(client, &datagram, datagram.len());
        }
    }
}

/// Allocation, channel, data both ways, time, and the end; plus one request of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut life = vec![0; 4];
    for body in 0..6u8 {
        life.extend([11, 0, 0, 1, 1, body]);
        life.extend([0; 12]);
        life.extend([4, 0, 0, 1, 0, 4, 1, 2, 3, 4, 3, 0, 1, 0, 4, 1, 2, 3, 4]);
        life.extend([0, 200, 2]);
    }
    let mut life_of_two = life.clone();
    life_of_two[1] = 1;
    let single = (0..6u8).map(|body| vec![0, 0, 0, 0, 11, 0, 0, 1, 1, body, 0, 0, 0, 0]);
    single.chain([life, life_of_two]).collect()
}

/// Requests as clients send them, for other targets' seeds.
pub fn sample_requests() -> Vec<Vec<u8>> {
    let mut input = Input::new(&[]);
    let mut world = World::new(&mut input);
    let client = world.client(&mut input);
    (0..6u8)
        .map(|body| requests::request(&mut Input::new(&[0, 1, 1, body]), &mut world, client))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// The grammar's bytes for: no software, a new transaction, no damage.
    const PLAIN: [u8; 3] = [0, 1, 0];

    fn ask(world: &mut World, client: SocketAddr, body: &[u8]) {
        let bytes = [body, &PLAIN].concat();
        let request = requests::request(&mut Input::new(&bytes), world, client);
        world.client_sends(client, &request, request.len());
    }

    /// The two-worker half of the target does what it is there for.
    #[test]
    fn workers_hand_datagrams_to_each_other() {
        let mut world = World::new(&mut Input::new(&[0, 1, 15]));
        let clients = [1000, 1001].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        for (client, user) in clients.into_iter().zip(0..) {
            // A good nonce, signed: Allocate for UDP and 600 s.
            ask(&mut world, client, &[user, 1, 1, 5, 0, 0, 0, 5, 0, 0, 0]);
        }
        let indices = clients.map(|client| world.port_index(client).expect("it was granted"));
        for (client, user) in clients.into_iter().zip(0..) {
            // ChannelBind of 0x4000 to the other's relayed address.
            let other = indices[1 - usize::from(user)];
            ask(&mut world, client, &[user, 1, 1, 3, 2, 0, 0, 5, other]);
        }
        let datagram = [0x40, 0, 0, 1, 9];
        world.client_sends(clients[0], &datagram, datagram.len());
        world.check();
        assert_eq!(world.crossed(), 1);
    }
}
