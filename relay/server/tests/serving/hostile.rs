//! What crashes or bloats others (relay spec §6): over real sockets, with the process's memory in view. C-3, C-17, C-37,
//! C-43.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use connlib_stun::{
    AuthAttributes, Envelope, Outcome, Request, RequestBody, Response, Success, TransactionId,
    relay_password,
};

use super::{
    process::{PUBLIC_V4, Relay, SECRET, receive, socket},
    raw::{Raw, allocate, bind, framed, refresh},
};

/// Time in which a reply on loopback would have come.
const SILENCE: Duration = Duration::from_millis(200);

fn binding() -> Vec<u8> {
    let request = Request {
        transaction_id: TransactionId::new([3; 12]),
        auth: AuthAttributes::default(),
        software: None,
        body: RequestBody::Binding,
    };
    request.encode(None).unwrap()
}

/// The relay lives and is in its right mind.
fn assert_serves(server: SocketAddr) {
    let socket = socket("127.0.0.1:0");
    socket.send_to(&binding(), server).unwrap();
    let (reply, _) = receive(&socket);
    let response = Response::decode(&Envelope::parse(&reply).unwrap()).unwrap();
    let mapped = Some(socket.local_addr().unwrap());
    assert_eq!(
        response.outcome,
        Outcome::Success(Success::Binding { mapped })
    );
}

/// A header of any type that announces so many bytes.
fn header(message_type: u16, length: u16, cookie: u32) -> Vec<u8> {
    let mut bytes = message_type.to_be_bytes().to_vec();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&[9; 12]);
    bytes
}

const COOKIE: u32 = 0x2112_A442;

#[test]
fn relay_03_malformed_datagrams() {
    let relay = Relay::standalone(&[]);
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let socket = socket("127.0.0.1:0");
    let cut = |length: usize| binding()[..length].to_vec();
    let mut silent = vec![
        vec![],
        vec![0],
        cut(1),
        cut(19),
        header(0x0001, 4, COOKIE),
        header(0x0001, 0xFFFC, COOKIE),
        header(0x0001, 3, COOKIE),
        header(0x0001, 0, !COOKIE),
        header(0xC001, 0, COOKIE),
        header(0x0101, 0, COOKIE),
        header(0x0111, 0, COOKIE),
        header(0x0016, 0, COOKIE),
        [binding(), vec![0; 4]].concat(),
        vec![0x40],
        vec![0x40, 0, 0],
        vec![0x40, 0, 0xFF, 0xFF],
        vec![0x40, 0, 0, 5, 1, 2, 3, 4],
        vec![0x4F, 0xFF, 0, 0],
        vec![0x80; 100],
        vec![0xFF; 65_507],
        vec![0x40; 65_507],
        vec![0; 65_507],
    ];
    // A response with a broken attribute must not be answered by an error.
    let mut broken = header(0x0111, 4, COOKIE);
    broken.extend_from_slice(&[0, 6, 0xFF, 0xFF]);
    silent.push(broken);
    for datagram in &silent {
        socket.send_to(datagram, server).unwrap();
    }
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(socket.recv(&mut [0; 1500]).is_err(), "a reply");
    assert_serves(server);
}

#[test]
fn relay_17_hostile_requests_with_valid_signatures() {
    let relay = Relay::standalone(&[]);
    let server = relay.server(Ipv4Addr::LOCALHOST);
    for expiry in [u64::MAX, 1 << 63, (1 << 63) - 1, 0] {
        let password = relay_password(expiry, SECRET, "s");
        let user = (format!("{expiry}:s"), password);
        let mut client = Raw::with_credentials(server, user);
        let request = client.signed(allocate());
        client.send(&request);
        receive(&client.socket);
    }
    let mut client = Raw::new(server, "user");
    client.allocate();
    assert_eq!(client.code(refresh(Some(u32::MAX))), None);
    assert_eq!(
        client.code(bind(0x4000, "0.0.0.0:9".parse().unwrap())),
        Some(403)
    );
    let mapped = "[::ffff:127.0.0.1]:9".parse().unwrap();
    assert!(matches!(client.code(bind(0x4000, mapped)), Some(403 | 443)));
    let own_port = SocketAddr::new(PUBLIC_V4.parse().unwrap(), relay.port);
    assert_eq!(client.code(bind(0x4000, own_port)), Some(403));
    assert_serves(server);
}

#[test]
fn relay_37_data_in_one_burst_with_its_bind() {
    let relay = Relay::standalone(&[]);
    let mut client = Raw::new(relay.server(Ipv4Addr::LOCALHOST), "user");
    client.allocate();
    let peer = socket("127.0.0.1:0");
    let request = client.signed(bind(0x4000, peer.local_addr().unwrap()));
    client.send(&request);
    for index in 0..50 {
        client.send(&framed(0x4000, &[index]));
    }
    for index in 0..50 {
        assert_eq!(receive(&peer).0, [index]);
    }
}

#[test]
fn relay_43_one_source_floods_another_is_served() {
    let relay = Relay::standalone(&["--workers", "2"]);
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let flooder = socket("127.0.0.1:0");
    for _ in 0..1000 {
        flooder.send_to(&header(0x0004, 0, COOKIE), server).unwrap();
    }
    flooder.set_read_timeout(Some(SILENCE)).unwrap();
    let replies = std::iter::from_fn(|| flooder.recv(&mut [0; 1500]).ok()).count();
    // A burst of 100, and a little that becomes due meanwhile.
    assert!((1..=120).contains(&replies), "{replies}");
    let other = socket("127.0.0.2:0");
    other.send_to(&header(0x0004, 0, COOKIE), server).unwrap();
    receive(&other);
    // Who signs is served even from the flooding address.
    Raw::new(server, "user").allocate();
}

/// Resident memory of a process in KiB.
#[cfg(target_os = "linux")]
fn memory(relay: &Relay) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn relay_13_floods_from_many_sources_cost_no_memory() {
    let relay = Relay::standalone(&["--workers", "1"]);
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let flood = |third: u8| {
        for fourth in 1..=100 {
            let source = UdpSocket::bind((Ipv4Addr::new(127, 1, third, fourth), 0)).unwrap();
            for _ in 0..5 {
                source.send_to(&header(0x0003, 0, COOKIE), server).unwrap();
                source.send_to(&binding(), server).unwrap();
                source.send_to(&framed(0x4001, &[0; 1000]), server).unwrap();
            }
        }
        assert_serves(server);
    };
    // Buffers of the process find their sizes first.
    (0..10).for_each(flood);
    let before = memory(&relay);
    (10..60).for_each(flood);
    let after = memory(&relay);
    assert!(after < before + 1024, "{before} KiB, then {after} KiB");
}
