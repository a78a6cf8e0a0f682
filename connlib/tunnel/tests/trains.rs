//! Datagrams that arrive together come to the same as the same datagrams one by one, whatever is among them.

#![allow(clippy::unwrap_used, reason = "test")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test's time begins at any instant, which only the clock can make"
)]

mod pair;

use std::time::Duration;

use connlib_tunnel::segment::{Coalescer, Coalescing, GsoMeta};
use ip_packet::{Ecn, PacketRef};
use pair::{Pair, Slots, Stream, Train, Way};
use proptest::prelude::*;

const PACKETS: usize = 12;
const SIZE: usize = 400;

/// What happens to a datagram on its way. Its length stays, or the kernel would not have joined it with the others.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    /// One bit of the byte at this place is another.
    Damaged(usize),
    /// Somebody else's, in front of it.
    Overtaken(u8),
}

impl Fate {
    fn befall(self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let datagram = datagram.to_vec();
        match self {
            Self::Arrives => vec![datagram],
            Self::Lost => vec![],
            Self::Twice => vec![datagram.clone(), datagram],
            Self::Damaged(at) => {
                let mut damaged = datagram;
                let at = at % damaged.len();
                damaged[at] ^= 1;
                vec![damaged]
            }
            Self::Overtaken(byte) => vec![vec![byte; datagram.len()], datagram],
        }
    }
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        // The headers of channel and message, or anywhere.
        1 => (0..24_usize).prop_map(Fate::Damaged),
        1 => any::<usize>().prop_map(Fate::Damaged),
        1 => any::<u8>().prop_map(Fate::Overtaken),
    ];
    proptest::collection::vec(fate, PACKETS)
}

/// Super-packets of a stream from the client, or to it.
fn stream(is_up: bool) -> Stream {
    match is_up {
        true => Stream::to_host(PACKETS, SIZE),
        false => Stream::to_client(PACKETS, SIZE),
    }
}

/// The stream's next super-packet, as the train of datagrams that it is on the wire.
fn sealed(pair: &mut Pair, stream: &mut Stream, is_up: bool, slots: &mut Slots) -> Train {
    let (bytes, gso) = stream.next_super_packet();
    slots.clear();
    let from = match is_up {
        true => {
            pair.client_seals(bytes, gso, slots);
            pair.client_socket
        }
        false => {
            pair.gateway_seals(bytes, gso, slots);
            pair.gateway_socket
        }
    };
    pair.train(from, slots)
}

type Written = Vec<(GsoMeta, Vec<u8>)>;

/// What the TUN device gets of super-packets whose datagrams meet these fates.
fn written(
    (way, is_up): (Way, bool),
    trains: &[Vec<Fate>],
    open: impl Fn(&mut Pair, &Train, &mut Coalescer),
) -> (Written, String) {
    let mut pair = Pair::connected(way);
    let mut slots = Slots::new();
    let mut out = Coalescer::new(Coalescing::ON);
    let mut stream = stream(is_up);
    let mut written = Written::new();
    for fates in trains {
        pair.run_for(Duration::from_millis(1));
        let train = sealed(&mut pair, &mut stream, is_up, &mut slots);
        let train = train.changed(|index, datagram| fates[index].befall(datagram));
        open(&mut pair, &train, &mut out);
        written.extend(out.drain().map(|(gso, bytes)| (gso, bytes.to_vec())));
    }
    let counted = format!("{:?} {:?}", pair.client.stats(), pair.gateway.stats());
    (written, counted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_train_is_its_datagrams(
        relayed: bool,
        is_up: bool,
        trains in proptest::collection::vec(fates(), 1..4),
    ) {
        let way = if relayed { Way::Relayed } else { Way::Direct };
        let together = written((way, is_up), &trains, |pair, train, out| match is_up {
            true => pair.gateway_opens(train, out),
            false => pair.client_opens(train, out),
        });
        let singly = written((way, is_up), &trains, |pair, train, out| match is_up {
            true => pair.gateway_opens_singly(train, out),
            false => pair.client_opens_singly(train, out),
        });
        prop_assert_eq!(together, singly);
    }
}

/// Without anything that disturbs, there is one super-packet.
#[test]
fn an_undisturbed_train_is_one_super_packet() {
    for way in [Way::Direct, Way::Relayed] {
        let (written, _) = written(
            (way, true),
            &[vec![Fate::Arrives; PACKETS]],
            |pair, train, out| {
                pair.gateway_opens(train, out);
            },
        );
        let lengths = written.iter().map(|(_, bytes)| bytes.len());
        let payload = PACKETS * (SIZE - Stream::HEADER);
        assert_eq!(
            lengths.collect::<Vec<_>>(),
            [Stream::HEADER + payload],
            "{way:?}"
        );
    }
}

/// The TUN device takes nothing for a while, so that the buffer is full in the middle of a train: what is left comes behind
/// what was there.
#[test]
fn tunnel_80_a_full_buffer_changes_no_order() {
    const TRAINS: usize = 30;
    for (way, is_up) in [
        (Way::Direct, true),
        (Way::Direct, false),
        (Way::Relayed, true),
        (Way::Relayed, false),
    ] {
        let mut pair = Pair::connected(way);
        let mut slots = Slots::new();
        let mut out = Coalescer::new(Coalescing::OFF);
        let mut stream = stream(is_up);
        let (mut sequences, mut fills) = (Vec::new(), 0);
        for _ in 0..TRAINS {
            let train = sealed(&mut pair, &mut stream, is_up, &mut slots);
            let mut datagrams = train.whole();
            while !datagrams.is_empty() {
                if out.is_full() {
                    fills += 1;
                    sequences.extend(out.drain().map(|(_, packet)| sequence(packet)));
                }
                let (now, ecn) = (pair.now, Ecn::NotEct);
                match is_up {
                    true => {
                        let to = pair.gateway_socket;
                        let gateway = &mut pair.gateway;
                        gateway.handle_train(to, train.from, ecn, &mut datagrams, now, &mut out);
                    }
                    false => {
                        let to = pair.client_socket;
                        let client = &mut pair.client;
                        client.handle_train(to, train.from, ecn, &mut datagrams, now, &mut out);
                    }
                }
            }
        }
        sequences.extend(out.drain().map(|(_, packet)| sequence(packet)));
        let step = (SIZE - Stream::HEADER) as u32;
        let in_order = sequences.windows(2).all(|pair| pair[1] - pair[0] == step);
        assert!(in_order, "{way:?}, up {is_up}: {sequences:?}");
        assert_eq!(sequences.len(), TRAINS * PACKETS);
        assert!(fills > 1, "the buffer was full {fills} times");
    }
}

/// The sequence number of a TCP packet.
fn sequence(packet: &[u8]) -> u32 {
    PacketRef::parse(packet)
        .unwrap()
        .as_tcp()
        .unwrap()
        .sequence()
}
