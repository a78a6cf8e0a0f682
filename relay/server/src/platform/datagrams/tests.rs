//! Over real sockets on loopback.

use std::net::UdpSocket;

use super::*;

fn pair(host: &str) -> [UdpSocket; 2] {
    [(); 2].map(|()| {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let is_v6 = socket.local_addr().unwrap().is_ipv6();
        prepare(&socket, is_v6, true).unwrap();
        socket
    })
}

/// Everything that arrives, as (from, mark, datagrams).
fn receive(socket: &UdpSocket) -> Vec<(SocketAddr, Ecn, Vec<Vec<u8>>)> {
    let mut memory = vec![0; MAX_MESSAGES * 65_536];
    let mut receiver = Receiver::new();
    let filled = receiver
        .receive(socket, memory.chunks_exact_mut(65_536))
        .unwrap();
    let buffers = memory.chunks_exact(65_536);
    let arrivals = receiver.arrivals().iter().zip(buffers).take(filled);
    let datagrams = |(arrival, buffer): (&Arrival, &[u8])| {
        let bytes = &buffer[..arrival.len];
        let datagrams = match bytes.is_empty() {
            true => vec![Vec::new()],
            false => bytes
                .chunks(arrival.segment_size)
                .map(<[u8]>::to_vec)
                .collect(),
        };
        (arrival.from, arrival.ecn, datagrams)
    };
    arrivals.map(datagrams).collect()
}

fn flat(received: &[(SocketAddr, Ecn, Vec<Vec<u8>>)]) -> Vec<&[u8]> {
    let all = received.iter().flat_map(|it| &it.2);
    all.map(Vec::as_slice).collect()
}

#[test]
fn datagrams_arrive_with_sender_mark_and_size() {
    for host in ["127.0.0.1", "::1"] {
        let [from, to] = pair(host);
        for (mark, bytes) in [(0, "none"), (1, ""), (2, "capable"), (3, "congested")] {
            let departure = Departure {
                to: to.local_addr().unwrap(),
                source: None,
                ecn: Ecn(mark),
                bytes: bytes.as_bytes(),
                segment_size: None,
            };
            send(&from, &departure).unwrap();
        }
        let received = receive(&to);
        assert_eq!(
            flat(&received),
            [&b"none"[..], b"", b"capable", b"congested"]
        );
        for (mark, arrival) in received.iter().enumerate() {
            assert_eq!(arrival.0, from.local_addr().unwrap());
            assert_eq!(arrival.1, Ecn(mark as u8));
        }
    }
}

// relay C-57
#[test]
fn relay_57_trains_are_taken_apart_with_source_and_mark() {
    for host in ["127.0.0.1", "::1"] {
        let [from, to] = pair(host);
        assert!(can_segment(&from));
        let bytes: Vec<u8> = (0..2500u16).map(|it| (it / 1000) as u8).collect();
        let departure = Departure {
            to: to.local_addr().unwrap(),
            source: Some(from.local_addr().unwrap().ip()),
            ecn: Ecn(2),
            bytes: &bytes,
            segment_size: Some(1000),
        };
        send(&from, &departure).unwrap();
        let received = receive(&to);
        let sizes: Vec<_> = flat(&received).iter().map(|it| it.len()).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        assert!(flat(&received).concat() == bytes);
        assert!(received.iter().all(|it| it.1 == Ecn(2)));
    }
}

/// A host with several addresses (127.0.0.0/8 all belong to this one) sends from the one that it is told.
#[test]
fn the_source_can_be_chosen() {
    let [_, to] = pair("127.0.0.1");
    let from = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let departure = Departure {
        to: to.local_addr().unwrap(),
        source: Some(source),
        ecn: Ecn(0),
        bytes: b"here",
        segment_size: None,
    };
    send(&from, &departure).unwrap();
    assert_eq!(receive(&to)[0].0.ip(), source);
}

#[test]
fn an_empty_socket_would_block_and_few_buffers_take_few() {
    let [from, to] = pair("127.0.0.1");
    let mut receiver = Receiver::new();
    let mut memory = [[0; 16]; 2];
    let mut receive =
        |to: &UdpSocket| receiver.receive(to, memory.iter_mut().map(<[u8; 16]>::as_mut_slice));
    let error = receive(&to).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    for byte in 0..3 {
        // Of different sizes, so that nothing joins them.
        let bytes = vec![byte; usize::from(byte) + 1];
        from.send_to(&bytes, to.local_addr().unwrap()).unwrap();
    }
    assert_eq!(receive(&to).unwrap(), 2);
    assert_eq!(receive(&to).unwrap(), 1);
}

#[test]
fn several_messages_go_by_one_call_until_one_is_refused() {
    for host in ["127.0.0.1", "::1"] {
        let [from, to] = pair(host);
        let train = [7; 2500];
        let departure = |bytes, segment_size| Departure {
            to: to.local_addr().unwrap(),
            source: None,
            ecn: Ecn(1),
            bytes,
            segment_size,
        };
        // Larger than any UDP datagram.
        let refused = [0; 70_000];
        let departures = [
            departure(&b"one"[..], None),
            departure(&train, Some(1000)),
            departure(b"", None),
            departure(&refused, None),
            departure(b"behind it", None),
        ];
        assert_eq!(send_many(&from, &departures).unwrap(), 3);
        assert!(send_many(&from, &departures[3..]).is_err());
        assert_eq!(send_many(&from, &departures[4..]).unwrap(), 1);
        let received = receive(&to);
        let sizes: Vec<_> = flat(&received).iter().map(|it| it.len()).collect();
        assert_eq!(sizes, [3, 1000, 1000, 500, 0, 9]);
        assert!(received.iter().all(|it| it.1 == Ecn(1)));
    }
}
