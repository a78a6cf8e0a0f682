//! Segmentation and receive offload change nothing of what arrives: C-57.

use std::{
    io::IoSlice,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    client::Client,
    process::{Relay, receive, socket},
    raw::{Raw, framed},
    relaying::{loopbacks, reachable},
};

fn relay(offload: bool) -> Relay {
    let more: &[&str] = if offload { &[] } else { &["--no-offload"] };
    Relay::standalone(more)
}

/// Datagrams of one sender arrive complete, in order and uncut.
#[test]
fn relay_57_bursts_keep_order_and_sizes() {
    for offload in [true, false] {
        let relay = relay(offload);
        let (mut client, relayed) = Client::allocated(loopbacks(&relay)[0], "user");
        let peer = socket("127.0.0.1:0");
        let address = peer.local_addr().unwrap();
        client.bind(address);
        let sizes = [1200, 1200, 1200, 700, 1200, 0, 3, 1200, 1300, 1300, 20];
        for round in 0..20u8 {
            for (index, size) in sizes.into_iter().enumerate() {
                client.send(address, &vec![round ^ index as u8; size]);
            }
            for (index, size) in sizes.into_iter().enumerate() {
                assert_eq!(receive(&peer).0, vec![round ^ index as u8; size]);
            }
            for (index, size) in sizes.into_iter().enumerate() {
                let payload = vec![round ^ index as u8; size];
                peer.send_to(&payload, reachable(relayed[0])).unwrap();
            }
            for (index, size) in sizes.into_iter().enumerate() {
                assert_eq!(client.receive().1, vec![round ^ index as u8; size]);
            }
        }
    }
}

/// Hands datagrams to the kernel as one train: all as long as the first, the last perhaps shorter.
fn send_train(socket: &UdpSocket, to: SocketAddr, datagrams: &[Vec<u8>]) {
    let size = u16::try_from(datagrams[0].len()).unwrap();
    let parts: Vec<_> = datagrams.iter().map(|it| IoSlice::new(it)).collect();
    let segments = [ControlMessage::UdpGsoSegments(&size)];
    let to = SockaddrStorage::from(to);
    let flags = MsgFlags::empty();
    let sent = sendmsg(socket.as_raw_fd(), &parts, &segments, flags, Some(&to)).unwrap();
    assert_eq!(sent, datagrams.iter().map(Vec::len).sum::<usize>());
}

const CHANNELS: [u16; 2] = [0x4000, 0x4001];

/// What one train consists of: the channel or peer of each datagram, and its payload.
fn plan(rng: &mut StdRng) -> Vec<(usize, Vec<u8>)> {
    let (count, size) = (rng.random_range(1..=40), rng.random_range(1..=1400));
    let is_cut = rng.random_bool(0.5);
    let mut channel = 0;
    (0..count)
        .map(|index| {
            if rng.random_bool(0.2) {
                channel = 1 - channel;
            }
            let is_last = index + 1 == count;
            let size = match is_last && is_cut {
                true => rng.random_range(1..=size),
                false => size,
            };
            let mut payload = vec![0; size];
            rng.fill(&mut payload[..]);
            (channel, payload)
        })
        .collect()
}

/// What arrives at each of the peers, and at the client from each of them, in order.
#[derive(Debug, Default, PartialEq)]
struct Arrivals {
    at_peers: [Vec<Vec<u8>>; 2],
    at_client: [Vec<Vec<u8>>; 2],
}

/// Random trains with changes of channel inside, from the client and from both peers.
fn exchange(offload: bool, seed: u64) -> Arrivals {
    let relay = relay(offload);
    let server = loopbacks(&relay)[0];
    let mut client = Raw::new(server, "user");
    let relayed = reachable(client.allocate());
    let peers = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    for (peer, number) in peers.iter().zip(CHANNELS) {
        client.bind(number, peer.local_addr().unwrap());
    }
    let (mut rng, mut arrivals) = (StdRng::seed_from_u64(seed), Arrivals::default());
    for _ in 0..30 {
        let plan = plan(&mut rng);
        let frame = |(channel, payload): &(usize, Vec<u8>)| framed(CHANNELS[*channel], payload);
        send_train(
            &client.socket,
            server,
            &plan.iter().map(frame).collect::<Vec<_>>(),
        );
        for (channel, _) in &plan {
            arrivals.at_peers[*channel].push(receive(&peers[*channel]).0);
        }
        for (channel, peer) in peers.iter().enumerate() {
            let of_peer = plan.iter().filter(|it| it.0 == channel);
            let train: Vec<_> = of_peer.map(|it| it.1.clone()).collect();
            if train.is_empty() {
                continue;
            }
            send_train(peer, relayed, &train);
            for _ in &train {
                arrivals.at_client[channel].push(receive(&client.socket).0);
            }
        }
    }
    arrivals
}

/// What should arrive, computed without any relay.
fn expected(seed: u64) -> Arrivals {
    let (mut rng, mut arrivals) = (StdRng::seed_from_u64(seed), Arrivals::default());
    for _ in 0..30 {
        for (channel, payload) in plan(&mut rng) {
            arrivals.at_client[channel].push(framed(CHANNELS[channel], &payload));
            arrivals.at_peers[channel].push(payload);
        }
    }
    arrivals
}

#[test]
fn relay_57_offloads_on_and_off_give_the_same_sequences() {
    for seed in 0..4 {
        let expected = expected(seed);
        for offload in [true, false] {
            let arrivals = exchange(offload, seed);
            // Thousands of datagrams are no message for people.
            assert!(arrivals == expected, "offload {offload}, seed {seed}");
        }
    }
}
