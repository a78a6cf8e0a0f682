//! Few file descriptors, few ports, little bandwidth: C-27, C-28, C-54.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use super::{
    process::{Launch, PORTS, Relay, ports, receive, socket},
    raw::{Raw, allocate, framed},
};

const ARGUMENTS: [&str; 5] = ["--standalone", "--profile", "portal", "--workers", "1"];

fn limited(prelude: &str) -> (Relay, SocketAddr) {
    let relay = Launch {
        prelude,
        ..Launch::new(ports(), &ARGUMENTS)
    }
    .ready();
    let server = relay.server(Ipv4Addr::LOCALHOST);
    (relay, server)
}

/// The soft limit on open files of a process.
fn soft_limit(id: u32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    line.unwrap().split_whitespace().nth(3).unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn relay_54_the_soft_limit_of_descriptors_is_raised() {
    let (relay, _) = limited("ulimit -S -n 1024 && ulimit -H -n 3000");
    assert_eq!(soft_limit(relay.id()), "3000");
}

#[test]
fn relay_54_as_many_allocations_as_there_are_descriptors() {
    // A hundred are kept for other things, and a dual-stack relay may need two each.
    let (relay, server) = limited("ulimit -n 106");
    let mut clients: Vec<_> = (0..4)
        .map(|user| Raw::new(server, &format!("user{user}")))
        .collect();
    let codes: Vec<_> = clients.iter_mut().map(|it| it.code(allocate())).collect();
    assert_eq!(codes, [None, None, None, Some(508)]);
    assert_eq!(relay.get("/healthz").unwrap().0, 200);
}

#[test]
fn relay_28_full_descriptor_table() {
    let (mut relay, server) = limited("ulimit -n 130");
    let health = relay.health();
    let mut client = Raw::new(server, "user");
    // Somebody opens connections until nothing is left.
    let hoard: Vec<_> = (0..130)
        .map_while(|_| TcpStream::connect(health).ok())
        .collect();
    let mut refused = None;
    for _ in 0..100 {
        refused = client.code(allocate());
        if refused.is_some() {
            break;
        }
        // The connections are not all accepted yet.
        client.code(super::raw::refresh(Some(0)));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(refused, Some(508));
    assert!(relay.is_running());
    drop(hoard);
    relay.wait_for("/healthz", 200);
    assert_eq!(client.code(allocate()), None);
}

#[test]
fn relay_27_full_port_range() {
    let (_relay, server) = limited("true");
    let mut clients: Vec<_> = (0..=PORTS)
        .map(|user| Raw::new(server, &format!("user{user}")))
        .collect();
    let codes = clients.iter_mut().map(|it| it.code(allocate()));
    let refused = codes.filter(|code| *code == Some(508)).count();
    assert_eq!(refused, 1);
}

#[test]
fn bandwidth_of_one_allocation() {
    let arguments = [&ARGUMENTS[..], &["--max-bytes-per-second", "10000"]].concat();
    let relay = Launch::new(ports(), &arguments).ready();
    let mut client = Raw::new(relay.server(Ipv4Addr::LOCALHOST), "user");
    let peer = socket("127.0.0.1:0");
    client.allocate();
    client.bind(0x4000, peer.local_addr().unwrap());
    for _ in 0..100 {
        client.send(&framed(0x4000, &[7; 1000]));
    }
    // A burst of one second and what is saved up until the last one arrives.
    for _ in 0..10 {
        assert_eq!(receive(&peer).0, [7; 1000]);
    }
    peer.set_read_timeout(Some(std::time::Duration::from_millis(50)))
        .unwrap();
    let more = std::iter::from_fn(|| peer.recv(&mut [0; 2000]).ok()).count();
    assert!(more < 80, "{more}");
}
