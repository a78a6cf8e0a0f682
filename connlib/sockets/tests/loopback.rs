//! Real sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use connlib_sockets::{Family, GsoQueue, ReceiveBuffers, SocketOptions, Sockets, UdpSocket};
use ip_packet::Ecn;

const LOCALHOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// A datagram as it was received, with an owned payload.
#[derive(Clone, PartialEq, Eq)]
struct Received {
    local: SocketAddr,
    from: SocketAddr,
    ecn: Ecn,
    payload: Vec<u8>,
}

/// Length and first byte in place of the payload.
impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            local,
            from,
            ecn,
            payload,
        } = self;
        write!(
            f,
            "{from} -> {local} {ecn:?} {} x {:?}",
            payload.len(),
            payload.first()
        )
    }
}

/// Receives until `count` datagrams are there or a second has passed.
fn receive(socket: &UdpSocket, count: usize) -> Vec<Received> {
    let mut buffers = ReceiveBuffers::new();
    let mut received = Vec::new();
    let end = Instant::now() + Duration::from_secs(1);
    while received.len() < count && Instant::now() < end {
        match buffers.receive(socket).unwrap() {
            Some(trains) => received.extend(trains.flat_map(|train| {
                train.datagrams().map(move |payload| Received {
                    local: train.local,
                    from: train.from,
                    ecn: train.ecn,
                    payload: payload.to_vec(),
                })
            })),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    received
}

fn sockets(options: SocketOptions) -> Sockets {
    Sockets::bind_to(0, options).unwrap()
}

/// Address at which `sockets` can be reached, if the machine has the family.
fn address(sockets: &Sockets, ip: IpAddr) -> Option<SocketAddr> {
    let family = Family::of(SocketAddr::new(ip, 0));
    Some(SocketAddr::new(ip, sockets.port(family)?))
}

/// Sends 100 datagrams of 1312 bytes and a short one; all must arrive in order and intact.
fn burst(options: SocketOptions) {
    for ip in LOCALHOSTS {
        let (mut sender, receiver) = (sockets(options.clone()), sockets(options.clone()));
        let (Some(from), Some(to)) = (address(&sender, ip), address(&receiver, ip)) else {
            println!("skipped: no {ip} here");
            continue;
        };
        let mut queue = GsoQueue::new();
        let payloads: Vec<Vec<u8>> = (0..=100u8)
            .map(|n| vec![n; if n == 100 { 77 } else { 1312 }])
            .collect();
        for payload in &payloads {
            queue.push(Some(from), to, Ecn::Ect0, payload);
        }
        assert!(queue.flush(&mut sender).is_complete());
        let expected: Vec<_> = payloads
            .into_iter()
            .map(|payload| Received {
                local: to,
                from,
                ecn: Ecn::Ect0,
                payload,
            })
            .collect();
        let received = receive(receiver.get(Family::of(to)).unwrap(), 101);
        assert!(
            received == expected,
            "over {ip}: {:?}",
            received.iter().zip(&expected).find(|(a, b)| a != b)
        );
        let counters = queue.counters();
        assert_eq!((counters.datagrams, counters.bytes), (101, 100 * 1312 + 77));
    }
}

#[test]
fn tunnel_81_and_82_burst_with_offloads() {
    burst(SocketOptions::default());
}

#[test]
fn tunnel_81_and_82_burst_without_gso() {
    burst(SocketOptions {
        gso: false,
        ..SocketOptions::default()
    });
}

#[test]
fn tunnel_81_and_82_burst_without_gro() {
    burst(SocketOptions {
        gro: false,
        ..SocketOptions::default()
    });
}

#[test]
fn offload_saves_system_calls() {
    let (mut sender, receiver) = (
        sockets(SocketOptions::default()),
        sockets(SocketOptions::default()),
    );
    if sender.get(Family::V4).unwrap().max_segments() == 1 {
        return println!("skipped: the kernel has no UDP segmentation offload");
    }
    let to = address(&receiver, LOCALHOSTS[0]).unwrap();
    let mut queue = GsoQueue::new();
    for _ in 0..98 {
        queue.push(None, to, Ecn::NotEct, &[0; 1312]);
    }
    queue.flush(&mut sender);
    assert_eq!(queue.counters().calls, 2);
}

#[test]
fn tunnel_82_empty_datagram_is_skipped() {
    let receiver = sockets(SocketOptions::default());
    let to = address(&receiver, LOCALHOSTS[0]).unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for payload in [&b""[..], b"after"] {
        sender.send_to(payload, to).unwrap();
    }
    let received = receive(receiver.get(Family::V4).unwrap(), 1);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].payload, b"after");
}

#[test]
fn tunnel_84_a_vanished_source_address_costs_only_its_own_datagrams() {
    let (mut sender, receiver) = (
        sockets(SocketOptions::default()),
        sockets(SocketOptions::default()),
    );
    let to = address(&receiver, LOCALHOSTS[0]).unwrap();
    let segments_before = sender.get(Family::V4).unwrap().max_segments();
    let gone = Some(SocketAddr::from(([192, 0, 2, 77], 1)));
    let mut queue = GsoQueue::new();
    for source in [gone, gone, gone, None, None] {
        queue.push(source, to, Ecn::NotEct, &[5; 500]);
    }
    assert!(queue.flush(&mut sender).is_complete());
    assert_eq!(queue.counters().refused, 3);
    assert_eq!(receive(receiver.get(Family::V4).unwrap(), 2).len(), 2);
    assert_eq!(
        sender.get(Family::V4).unwrap().max_segments(),
        segments_before,
        "the offload is not to blame"
    );
}

#[test]
fn a_taken_port_falls_back_to_another() {
    let first = Sockets::bind_to(0, SocketOptions::default()).unwrap();
    let port = first.port(Family::V4).unwrap();
    let second = Sockets::bind_to(port, SocketOptions::default()).unwrap();
    assert_ne!(second.port(Family::V4), Some(port));
}

#[test]
fn rebinding_brings_fresh_ports() {
    let mut sockets = sockets(SocketOptions::default());
    let before = sockets.port(Family::V4);
    let ports: Vec<_> = (0..3)
        .map(|_| {
            sockets.rebind().unwrap();
            sockets.port(Family::V4)
        })
        .collect();
    assert!(ports.iter().any(|port| *port != before));
}

#[test]
fn every_socket_is_prepared_before_it_is_bound_again_too() {
    let prepared = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&prepared);
    let options = SocketOptions {
        prepare: Some(Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })),
        ..SocketOptions::default()
    };
    let mut sockets = sockets(options);
    sockets.rebind().unwrap();
    assert!(prepared.load(Ordering::Relaxed) >= 2 * sockets.iter().count());
}

#[test]
fn tunnel_84_one_missing_family_does_not_disturb_the_other() {
    let options = SocketOptions {
        prepare: Some(Arc::new(|socket| match socket.domain()? {
            socket2::Domain::IPV6 => Err(std::io::Error::other("no IPv6")),
            _ => Ok(()),
        })),
        ..SocketOptions::default()
    };
    let mut sender = sockets(options);
    assert_eq!(
        sender.iter().map(|(family, _)| family).collect::<Vec<_>>(),
        [Family::V4]
    );
    let receiver = sockets(SocketOptions::default());
    let to = address(&receiver, LOCALHOSTS[0]).unwrap();
    let mut queue = GsoQueue::new();
    queue.push(
        None,
        SocketAddr::new(LOCALHOSTS[1], 9),
        Ecn::NotEct,
        b"lost",
    );
    queue.push(None, to, Ecn::NotEct, b"kept");
    assert!(queue.flush(&mut sender).is_complete());
    assert_eq!(queue.counters().no_socket, 1);
    assert_eq!(receive(receiver.get(Family::V4).unwrap(), 1).len(), 1);
}
