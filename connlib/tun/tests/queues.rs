//! What the kernel promises about a device with several queues. Needs root; says so and passes otherwise.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::net::UdpSocket;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use connlib_tun::{Checksum, Gso, Offload, OpenError, Options, READ_BUFFER_BYTES, Tun, VnetHeader};
use support::{LOCAL, PEER};

const QUEUES: usize = 4;

/// Runs `test` with a device of [`QUEUES`] queues in a fresh network namespace.
fn with_queues(options: Options, test: impl FnOnce(Vec<Tun>) + Send + 'static) {
    let queues = NonZeroUsize::new(QUEUES).unwrap();
    let open = move || Tun::open_queues("tun-queues", options, queues);
    support::with_device("tun-queues", open, |tuns| {
        assert_eq!(tuns.len(), QUEUES);
        test(tuns);
    });
}

/// The queue that the next IPv4 UDP packet comes out of.
fn next_queue(tuns: &mut [Tun]) -> usize {
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for (queue, tun) in tuns.iter_mut().enumerate() {
            while let Some((_, len)) = tun.read(&mut buffer).unwrap() {
                if buffer[0] >> 4 == 4 && buffer[9] == 17 && len > 28 {
                    return queue;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no packet within two seconds");
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket
}

/// A UDP packet from [`PEER`] port 7 to `socket`, without a transport checksum.
fn packet_to(socket: &UdpSocket, payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0];
    packet.extend(PEER.octets());
    packet.extend(LOCAL.octets());
    packet[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    let mut sum: u32 = packet
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
    packet.extend(7u16.to_be_bytes());
    packet.extend(socket.local_addr().unwrap().port().to_be_bytes());
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

#[test]
fn answers_come_out_of_the_queue_that_the_flow_was_written_to() {
    for offload in [true, false] {
        with_queues(Options { offload }, |mut tuns| {
            for flow in 0..40 {
                let socket = bound();
                // A flow that changes its queue, too.
                for queue in [flow % QUEUES, (flow + 1) % QUEUES] {
                    let packet = packet_to(&socket, b"request");
                    tuns[queue].write(VnetHeader::PLAIN, &packet).unwrap();
                    let mut buffer = [0; 64];
                    assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
                    socket.send_to(b"answer", (PEER, 7)).unwrap();
                    assert_eq!(next_queue(&mut tuns), queue, "flow {flow}");
                }
            }
        });
    }
}

#[test]
fn flows_that_nobody_wrote_come_out_of_any_queue() {
    with_queues(Options::default(), |mut tuns| {
        let mut seen = [0; QUEUES];
        for _ in 0..100 {
            bound().send_to(b"unasked", (PEER, 9)).unwrap();
            seen[next_queue(&mut tuns)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    });
}

#[test]
fn every_queue_takes_super_packets() {
    with_queues(Options::default(), |mut tuns| {
        if tuns[0].write_offload() != Offload::TcpAndUdp {
            return println!("skipped: the kernel has no UDP offload for TUN devices");
        }
        for tun in &mut tuns {
            let socket = bound();
            let mut packet = packet_to(&socket, &[6; 4100]);
            // With a partial checksum the kernel completes each segment's.
            packet[26..28].copy_from_slice(&[0, 1]);
            let header = VnetHeader {
                gso: Gso::Udp,
                segment_size: 1000,
                header_len: 28,
                checksum: Checksum::Partial {
                    start: 20,
                    offset: 6,
                },
            };
            tun.write(header, &packet).unwrap();
            let mut buffer = [0; 2000];
            let lengths: Vec<_> = (0..5).map(|_| socket.recv(&mut buffer).unwrap()).collect();
            assert_eq!(lengths, [1000, 1000, 1000, 1000, 100]);
        }
    });
}

#[test]
fn a_second_process_cannot_attach_to_several_queues() {
    with_queues(Options::default(), |tuns| {
        for queues in [1, 2] {
            let queues = NonZeroUsize::new(queues).unwrap();
            let second = Tun::open_queues(tuns[0].name(), Options::default(), queues);
            assert!(second.is_err(), "{second:?}");
        }
        let two = NonZeroUsize::new(2).unwrap();
        let second = Tun::open_queues(tuns[0].name(), Options::default(), two);
        assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    });
}
