//! Several workers behind one port: C-60.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use super::{
    process::{Launch, PATIENCE, Relay, block, receive, socket},
    raw::{Raw, allocate, framed, refresh},
};

/// Enough that every worker has some of the clients.
const CLIENTS: usize = 24;
const ALLOCATIONS: u16 = 128;

fn four_workers() -> Relay {
    let first = block(ALLOCATIONS);
    let arguments = ["--standalone", "--profile", "portal", "--workers", "4"];
    Launch {
        allocations: ALLOCATIONS,
        ..Launch::new(first, &arguments)
    }
    .ready()
}

#[test]
fn relay_60_a_client_stays_with_its_worker() {
    let relay = four_workers();
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let peer = socket("127.0.0.1:0");
    let peer_address = peer.local_addr().unwrap();
    let mut ports = BTreeSet::new();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|user| {
            let mut client = Raw::new(server, &format!("user{user}"));
            assert!(ports.insert(client.allocate().port()), "one port twice");
            client.bind(0x4000, peer_address);
            client
        })
        .collect();
    for round in 0..20_u8 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&framed(0x4000, &[round, index as u8]));
            let (payload, from) = receive(&peer);
            assert_eq!(payload, [round, index as u8]);
            assert!(ports.contains(&from.port()));
            peer.send_to(&payload, from).unwrap();
            let (reply, _) = receive(&client.socket);
            assert_eq!(reply, framed(0x4000, &payload));
        }
    }
}

/// Ports of an allocation belong to a worker in pairs, so this tells whose an allocation is.
fn worker_of(port: u16) -> u16 {
    port / 2 % 4
}

#[test]
fn relay_60_hairpin_between_workers() {
    let relay = four_workers();
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|user| {
            let mut client = Raw::new(server, &format!("user{user}"));
            let relayed = client.allocate();
            (client, relayed)
        })
        .collect();
    let (a, relayed_a) = clients.pop().unwrap();
    let other = clients
        .iter()
        .position(|it| worker_of(it.1.port()) != worker_of(relayed_a.port()));
    let (mut b, relayed_b) = clients.swap_remove(other.expect("clients are spread"));
    let mut a = a;
    a.bind(0x4001, relayed_b);
    b.bind(0x4002, relayed_a);
    for size in [0, 5, 1280, 1280, 1280, 700, 9000] {
        let payload = vec![size as u8; size];
        a.send(&framed(0x4001, &payload));
        assert_eq!(receive(&b.socket).0, framed(0x4002, &payload));
        b.send(&framed(0x4002, &payload));
        assert_eq!(receive(&a.socket).0, framed(0x4001, &payload));
    }
}

#[test]
fn relay_60_one_allocation_per_user_over_all_workers() {
    let relay = four_workers();
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Raw::new(server, "user")).collect();
    let mut ports = Vec::new();
    for client in &mut clients {
        ports.push(client.allocate().port());
    }
    assert!(
        ports
            .iter()
            .map(|port| worker_of(*port))
            .collect::<BTreeSet<_>>()
            .len()
            > 1,
        "{ports:?}"
    );
    let (last, others) = clients.split_last_mut().unwrap();
    // The message to another worker takes a moment.
    let deadline = Instant::now() + PATIENCE;
    for other in others {
        while other.code(refresh(None)) != Some(437) {
            assert!(Instant::now() < deadline, "an old allocation lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(last.code(refresh(None)), None);
    // Ports are drawn at random: the last client may have one that was another's before.
    let held = ports.pop();
    for port in ports.iter().filter(|port| Some(**port) != held) {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)).unwrap();
    }
    assert_eq!(last.code(allocate()), Some(437));
}
