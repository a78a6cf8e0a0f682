//! A real device in a fresh network namespace. Needs root; says so and passes otherwise.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use connlib_tun::{Checksum, Gso, Offload, OpenError, Options, READ_BUFFER_BYTES, Tun, VnetHeader};
use support::{LOCAL, PEER};

/// Runs `test` with a device in a fresh network namespace.
fn with_device(options: Options, test: impl FnOnce(Tun) + Send + 'static) {
    let open = move || Tun::open("tun-test", options);
    support::with_device("tun-test", open, test);
}

/// Next IPv4 UDP packet from the kernel; router solicitations and the like are passed over.
fn read_udp(tun: &mut Tun) -> (VnetHeader, Vec<u8>) {
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        match tun.read(&mut buffer).unwrap() {
            Some((header, len)) if buffer[0] >> 4 == 4 && buffer[9] == 17 => {
                return (header, buffer[..len].to_vec());
            }
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no packet within two seconds");
}

/// One's complement sum, folded.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A UDP packet from [`PEER`] port 7 to [`LOCAL`] whose checksum covers the pseudo-header only.
fn udp_packet(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0];
    packet.extend(PEER.octets());
    packet.extend(LOCAL.octets());
    packet[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    let checksum = !sum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = [&packet[12..20], &[0, 17], &udp_len.to_be_bytes()].concat();
    packet.extend(7u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(udp_len.to_be_bytes());
    packet.extend(sum(&pseudo).to_be_bytes());
    packet.extend(payload);
    packet
}

fn partial(gso: Gso, segment_size: u16) -> VnetHeader {
    VnetHeader {
        gso,
        segment_size,
        header_len: 28,
        checksum: Checksum::Partial {
            start: 20,
            offset: 6,
        },
    }
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket
}

#[test]
fn plain_packets_go_both_ways() {
    for offload in [true, false] {
        with_device(Options { offload }, move |mut tun| {
            let socket = bound();
            socket.send_to(b"hello", (PEER, 9)).unwrap();
            let (header, packet) = read_udp(&mut tun);
            assert_eq!(header.gso, Gso::None);
            assert_eq!(&packet[28..], b"hello");
            assert_eq!(offload, tun.offload() != Offload::None);

            let mut answer = udp_packet(socket.local_addr().unwrap().port(), b"answer");
            // UDP over IPv4 may go without a checksum.
            answer[26..28].fill(0);
            tun.write(VnetHeader::PLAIN, &answer).unwrap();
            let mut buffer = [0; 64];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 6);
        });
    }
}

#[test]
fn tunnel_83_the_kernel_hands_over_udp_super_packets() {
    with_device(Options::default(), |mut tun| {
        if tun.offload() != Offload::TcpAndUdp {
            return println!("skipped: the kernel has no UDP offload for TUN devices");
        }
        let socket = bound();
        let segment: libc::c_int = 1000;
        // SAFETY: the descriptor is open and the value an int.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                (&raw const segment).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        socket.send_to(&[5; 9500], (PEER, 9)).unwrap();
        let (header, packet) = read_udp(&mut tun);
        assert_eq!((header.gso, header.segment_size), (Gso::Udp, 1000));
        assert!(matches!(
            header.checksum,
            Checksum::Partial {
                start: 20,
                offset: 6
            }
        ));
        assert_eq!(packet.len(), 28 + 9500);
    });
}

#[test]
fn tunnel_83_the_kernel_takes_udp_super_packets() {
    with_device(Options::default(), |mut tun| {
        if tun.write_offload() != Offload::TcpAndUdp {
            return println!("skipped: the kernel has no UDP offload for TUN devices");
        }
        let socket = bound();
        let packet = udp_packet(socket.local_addr().unwrap().port(), &[6; 4100]);
        tun.write(partial(Gso::Udp, 1000), &packet).unwrap();
        let mut buffer = [0; 2000];
        let lengths: Vec<_> = (0..5).map(|_| socket.recv(&mut buffer).unwrap()).collect();
        assert_eq!(lengths, [1000, 1000, 1000, 1000, 100]);
    });
}

#[test]
fn tunnel_83_a_refused_super_packet_switches_coalescing_off() {
    with_device(Options::default(), |mut tun| {
        if tun.write_offload() == Offload::None {
            return println!("skipped: the kernel has no offload for TUN devices");
        }
        let packet = udp_packet(9, &[6; 3000]);
        let impossible = partial(Gso::TcpV4, 0);
        let error = tun.write(impossible, &packet).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(tun.write_offload(), Offload::None);
        assert_ne!(tun.offload(), Offload::None, "reading goes on as before");

        let socket = bound();
        let packet = udp_packet(socket.local_addr().unwrap().port(), b"single");
        tun.write(partial(Gso::None, 0), &packet).unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 6);
    });
}

#[test]
fn a_second_process_cannot_attach() {
    with_device(Options::default(), |tun| {
        let second = Tun::open(tun.name(), Options::default());
        assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    });
}
