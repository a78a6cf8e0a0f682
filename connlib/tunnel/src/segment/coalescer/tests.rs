//! What is merged, what is not, and that nothing is lost either way.

use ip_packet::make::TcpHeader;
use ip_packet::{IpPacket, TcpFlags};
use proptest::prelude::*;

use super::super::testing::{ACK, Flow, drained, pattern, split, with_bytes, with_id};
use super::*;

fn coalescer() -> Coalescer {
    Coalescer::new(Coalescing::ON)
}

fn push_all(coalescer: &mut Coalescer, packets: &[IpPacket]) -> Vec<Commit> {
    packets
        .iter()
        .map(|packet| coalescer.push(packet.as_slice()))
        .collect()
}

/// `count` contiguous segments of `size` bytes.
fn segments(flow: Flow, count: u32, size: usize) -> Vec<IpPacket> {
    (0..count)
        .map(|i| {
            with_id(
                flow.tcp(i * size as u32, ACK, &vec![i as u8; size]),
                i as u16,
            )
        })
        .collect()
}

fn merges(first: &IpPacket, second: &IpPacket) -> bool {
    let mut coalescer = coalescer();
    coalescer.push(first.as_slice());
    let commit = coalescer.push(second.as_slice());
    let out = drained(&mut coalescer);
    if commit == Commit::New {
        // What is not merged is not touched either.
        assert_eq!(out[0].1, first.as_slice());
        assert_eq!(out[1].1, second.as_slice());
    }
    commit == Commit::Merged
}

// tunnel 83
#[test]
fn tunnel_83_contiguous_segments_become_one_super_packet() {
    for flow in [Flow::v4(1), Flow::v6(1)] {
        let packets = segments(flow, 40, 1200);
        let mut coalescer = coalescer();
        let commits = push_all(&mut coalescer, &packets);
        assert_eq!(commits[0], Commit::New);
        assert!(commits[1..].iter().all(|commit| *commit == Commit::Merged));

        let out = drained(&mut coalescer);
        assert_eq!(out.len(), 1);
        let (gso, bytes) = &out[0];
        assert_eq!((gso.kind, gso.segment_size), (GsoKind::Tcp, 1200));
        let expected: Vec<_> = packets
            .iter()
            .map(|packet| packet.as_slice().to_vec())
            .collect();
        assert_eq!(split(bytes, *gso), expected);
        assert!(coalescer.is_empty());
    }
}

// tunnel 83
#[test]
fn tunnel_83_datagrams_become_one_super_packet() {
    let packets: Vec<_> = (0..3u16)
        .map(|i| {
            with_id(
                Flow::v4(1).udp(&vec![i as u8 + 1; if i == 2 { 7 } else { 900 }]),
                i,
            )
        })
        .collect();
    let mut coalescer = coalescer();
    push_all(&mut coalescer, &packets);
    let out = drained(&mut coalescer);
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].0.kind, out[0].0.segment_size), (GsoKind::Udp, 900));
    let expected: Vec<_> = packets
        .iter()
        .map(|packet| packet.as_slice().to_vec())
        .collect();
    assert_eq!(split(&out[0].1, out[0].0), expected);
}

// tunnel 83
#[test]
fn tunnel_83_only_equal_headers_merge() {
    let header = |sequence| TcpHeader {
        sequence,
        acknowledgement: 7,
        flags: ACK,
        window: 10,
        options: &[1, 1, 1, 1],
    };
    let data = pattern(100);
    for flow in [Flow::v4(1), Flow::v6(1)] {
        let first = flow.tcp_with(header(0), &data);
        let next = |header: TcpHeader<'_>| flow.tcp_with(header, &data);
        let good = next(header(100));
        assert!(merges(&first, &good));
        assert!(merges(
            &first,
            &next(TcpHeader {
                window: 99,
                ..header(100)
            })
        ));
        assert!(merges(
            &first,
            &next(TcpHeader {
                flags: ACK | TcpFlags::PSH,
                ..header(100)
            })
        ));

        let refused = [
            ("gap", next(header(101))),
            ("overlap", next(header(99))),
            (
                "acknowledgement",
                next(TcpHeader {
                    acknowledgement: 8,
                    ..header(100)
                }),
            ),
            (
                "options",
                next(TcpHeader {
                    options: &[1, 1, 1, 0],
                    ..header(100)
                }),
            ),
            (
                "longer options",
                next(TcpHeader {
                    options: &[1; 8],
                    ..header(100)
                }),
            ),
            (
                "no options",
                next(TcpHeader {
                    options: &[],
                    ..header(100)
                }),
            ),
            (
                "FIN",
                next(TcpHeader {
                    flags: ACK | TcpFlags::FIN,
                    ..header(100)
                }),
            ),
            (
                "SYN",
                next(TcpHeader {
                    flags: ACK | TcpFlags::SYN,
                    ..header(100)
                }),
            ),
            (
                "RST",
                next(TcpHeader {
                    flags: ACK | TcpFlags::RST,
                    ..header(100)
                }),
            ),
            (
                "URG",
                next(TcpHeader {
                    flags: ACK | TcpFlags::URG,
                    ..header(100)
                }),
            ),
            (
                "ECE",
                next(TcpHeader {
                    flags: ACK | TcpFlags::ECE,
                    ..header(100)
                }),
            ),
            (
                "CWR",
                next(TcpHeader {
                    flags: ACK | TcpFlags::CWR,
                    ..header(100)
                }),
            ),
            (
                "no ACK",
                next(TcpHeader {
                    flags: TcpFlags::NONE,
                    ..header(100)
                }),
            ),
            ("empty", flow.tcp_with(header(100), &[])),
            ("longer", flow.tcp_with(header(100), &pattern(101))),
            (
                "other port",
                Flow {
                    to: (flow.to.ip(), 81).into(),
                    ..flow
                }
                .tcp_with(header(100), &data),
            ),
            ("UDP", flow.udp(&data)),
            (
                "traffic class",
                with_bytes(good.clone(), |bytes| bytes[1] ^= 0x10),
            ),
            (
                "TTL",
                with_bytes(good.clone(), |bytes| {
                    bytes[if bytes[0] >> 4 == 4 { 8 } else { 7 }] -= 1
                }),
            ),
        ];
        for (what, packet) in refused {
            assert!(!merges(&first, &packet), "{what}");
        }
    }
    let first = Flow::v4(1).tcp_with(header(0), &data);
    let dont_fragment = with_bytes(Flow::v4(1).tcp_with(header(100), &data), |bytes| {
        bytes[6] ^= 0x40
    });
    assert!(!merges(&first, &dont_fragment));
    let flow_label = with_bytes(Flow::v6(1).tcp_with(header(100), &data), |bytes| {
        bytes[3] = 9
    });
    assert!(merges(&Flow::v6(1).tcp_with(header(0), &data), &flow_label));
}

#[test]
fn wrong_checksums_are_passed_on_unmerged() {
    let [first, second] = &segments(Flow::v4(1), 2, 500)[..] else {
        unreachable!()
    };
    let damaged = |packet: &IpPacket, at: usize| {
        let mut bytes = packet.as_slice().to_vec();
        bytes[at] ^= 1;
        IpPacket::from_slice(&bytes).unwrap()
    };
    assert!(merges(first, second));
    // The last payload byte; the IPv4 header's checksum.
    for at in [539, 10] {
        assert!(!merges(first, &damaged(second, at)));
        assert!(!merges(&damaged(first, at), second));
    }
    let absent = with_bytes(Flow::v4(1).udp(b"abc"), |_| {});
    let mut bytes = absent.as_slice().to_vec();
    bytes[26..28].fill(0);
    let absent = IpPacket::from_slice(&bytes).unwrap();
    assert!(!merges(&absent, &absent));
}

#[test]
fn shorter_segment_and_push_end_a_super_packet() {
    let flow = Flow::v4(1);
    for (second, len) in [
        (flow.tcp(100, ACK, &[2; 99]), 99),
        (flow.tcp(100, ACK | TcpFlags::PSH, &[2; 100]), 100),
    ] {
        let mut coalescer = coalescer();
        let packets = [
            flow.tcp(0, ACK, &[1; 100]),
            second,
            flow.tcp(100 + len, ACK, &[3; 50]),
        ];
        let commits = push_all(&mut coalescer, &packets);
        assert_eq!(commits, [Commit::New, Commit::Merged, Commit::New]);
    }
    let pushed = flow.tcp(0, ACK | TcpFlags::PSH, &[1; 100]);
    assert!(!merges(&pushed, &flow.tcp(100, ACK, &[2; 100])));
}

// tunnel 80
#[test]
fn tunnel_80_nothing_overtakes_within_a_connection() {
    let flow = Flow::v4(1);
    let packets = [
        flow.tcp(0, ACK, &[1; 100]),
        flow.tcp(100, ACK, &[]),
        flow.tcp(100, ACK, &[2; 100]),
    ];
    let mut coalescer = coalescer();
    let commits = push_all(&mut coalescer, &packets);
    assert_eq!(commits, [Commit::New; 3]);
}

#[test]
fn interleaved_flows_are_merged_each() {
    let flows = [Flow::v4(1), Flow::v6(2), Flow::v4(3)];
    let mut coalescer = coalescer();
    for i in 0..10u32 {
        for flow in flows {
            coalescer.push(flow.tcp(i * 1000, ACK, &[i as u8; 1000]).as_slice());
        }
    }
    let out = drained(&mut coalescer);
    assert_eq!(out.len(), 3);
    assert!(
        out.iter()
            .all(|(gso, bytes)| split(bytes, *gso).len() == 10)
    );
}

#[test]
fn dropped_slot_leaves_no_trace() {
    let packets = segments(Flow::v4(1), 3, 700);
    let mut coalescer = coalescer();
    for packet in &packets {
        coalescer.push(packet.as_slice());
        let mut slot = coalescer.slot();
        slot.buffer().fill(0xee);
    }
    let out = drained(&mut coalescer);
    assert_eq!(out.len(), 1);
    let expected: Vec<_> = packets
        .iter()
        .map(|packet| packet.as_slice().to_vec())
        .collect();
    assert_eq!(split(&out[0].1, out[0].0), expected);
}

#[test]
fn super_packets_do_not_exceed_64_kb() {
    let mut coalescer = coalescer();
    push_all(&mut coalescer, &segments(Flow::v6(1), 120, 1220));
    let out = drained(&mut coalescer);
    assert_eq!(out.len(), 3);
    assert!(out.iter().all(|(_, bytes)| bytes.len() <= 65_535));
    assert_eq!(out[0].1.len(), 60 + 53 * 1220);
}

#[test]
fn udp_super_packets_have_at_most_128_datagrams() {
    let mut coalescer = coalescer();
    for _ in 0..130 {
        coalescer.push(Flow::v4(1).udp(&[1; 10]).as_slice());
    }
    let counts: Vec<_> = drained(&mut coalescer)
        .iter()
        .map(|(gso, bytes)| split(bytes, *gso).len())
        .collect();
    assert_eq!(counts, [128, 2]);
}

#[test]
fn full_coalescer_says_so_and_recovers() {
    let mut coalescer = coalescer();
    let packet = Flow::v4(1).tcp(0, ACK, &[]);
    for _ in 0..MAX_ITEMS {
        assert_eq!(coalescer.push(packet.as_slice()), Commit::New);
    }
    assert!(coalescer.is_full());
    assert_eq!(coalescer.push(packet.as_slice()), Commit::Dropped);
    assert_eq!(drained(&mut coalescer).len(), MAX_ITEMS);
    assert_eq!(coalescer.push(packet.as_slice()), Commit::New);
}

#[test]
fn device_without_offload_gets_every_packet_by_itself() {
    let packets = segments(Flow::v4(1), 3, 700);
    let mut coalescer = Coalescer::new(Coalescing::OFF);
    push_all(&mut coalescer, &packets);
    let out = drained(&mut coalescer);
    assert_eq!(out.len(), 3);
    assert!(out.iter().all(|(gso, _)| *gso == GsoMeta::NONE));

    coalescer.set_coalescing(Coalescing {
        tcp: false,
        udp: true,
    });
    push_all(&mut coalescer, &packets);
    assert_eq!(drained(&mut coalescer).len(), 3);
}

#[derive(Debug, Clone)]
struct Step {
    flow: u16,
    kind: u8,
    size: usize,
    push: bool,
    skip: bool,
}

fn any_step() -> impl Strategy<Value = Step> {
    let size =
        prop_oneof![4 => Just(300usize), 1 => 1usize..300, 1 => Just(5usize), 1 => Just(1200usize)];
    (
        0u16..11,
        0u8..12,
        size,
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(flow, kind, size, push, skip)| Step {
            flow,
            kind,
            size,
            push,
            skip,
        })
}

/// Plays a stream per flow and returns the packets in order.
fn play(steps: &[Step]) -> Vec<(u16, IpPacket)> {
    let mut sequences = [0u32; 11];
    let mut ids = [0u16; 11];
    steps
        .iter()
        .map(|step| {
            let index = usize::from(step.flow);
            let flow = if step.flow % 2 == 0 {
                Flow::v4(step.flow)
            } else {
                Flow::v6(step.flow)
            };
            let payload = pattern(step.size);
            let flags = if step.push { ACK | TcpFlags::PSH } else { ACK };
            let packet = match step.kind {
                _ if step.flow > 8 => flow.udp(&payload),
                0 => flow.tcp(sequences[index], ACK, &[]),
                1 => flow.tcp(sequences[index], ACK | TcpFlags::FIN, &payload),
                _ => flow.tcp(sequences[index], flags, &payload),
            };
            if step.kind > 0 && step.flow <= 8 {
                sequences[index] =
                    sequences[index].wrapping_add(step.size as u32 + u32::from(step.skip));
            }
            ids[index] += 1;
            (step.flow, with_id(packet, ids[index]))
        })
        .collect()
}

proptest! {
    // tunnel 80, 83
    #[test]
    fn splitting_what_was_coalesced_gives_every_flow_back(
        steps in proptest::collection::vec(any_step(), 0..120),
    ) {
        let packets = play(&steps);
        let mut coalescer = coalescer();
        for (_, packet) in &packets {
            prop_assert_ne!(coalescer.push(packet.as_slice()), Commit::Dropped);
        }
        let out: Vec<_> = drained(&mut coalescer)
            .iter()
            .flat_map(|(gso, bytes)| split(bytes, *gso))
            .map(|bytes| IpPacket::from_slice(&bytes).unwrap())
            .collect();
        for flow in 0..11u16 {
            let port = |packet: &IpPacket| packet.source_protocol().unwrap().value();
            let sent: Vec<_> = packets.iter().filter(|(f, _)| *f == flow).map(|(_, p)| p.as_slice()).collect();
            let received: Vec<_> = out.iter().filter(|p| port(p) == flow).map(IpPacket::as_slice).collect();
            prop_assert_eq!(sent, received);
        }
    }

    #[test]
    fn garbage_never_panics(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1400), 0..20),
    ) {
        let mut coalescer = coalescer();
        for packet in &packets {
            coalescer.push(packet);
        }
        let kept = packets.iter().filter(|packet| (1..=SLOT_LEN).contains(&packet.len())).count();
        prop_assert_eq!(drained(&mut coalescer).len(), kept);
    }

    #[test]
    fn damaged_packets_never_panic(
        at in 0usize..60, byte: u8, v6: bool, cut in 0usize..140,
    ) {
        let flow = if v6 { Flow::v6(1) } else { Flow::v4(1) };
        let mut coalescer = coalescer();
        coalescer.push(flow.tcp(0, ACK, &pattern(80)).as_slice());
        let mut bytes = flow.tcp(80, ACK, &pattern(80)).as_slice().to_vec();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        coalescer.push(&bytes);
        let out = drained(&mut coalescer);
        prop_assert!(!out.is_empty());
    }
}

fn tag(epoch: u64) -> FlowTag {
    FlowTag {
        peer: 1,
        epoch,
        ecn: Ecn::NotEct,
    }
}

/// Adds a packet as the state machines do: undecided if it continues a stream. Returns whether it did.
fn receive(coalescer: &mut Coalescer, packet: &[u8], tag: FlowTag) -> bool {
    let mut slot = coalescer.slot();
    slot.buffer()[..packet.len()].copy_from_slice(packet);
    if slot.try_continue(packet.len(), tag) {
        return true;
    }
    let stream = slot.stream(packet.len(), tag);
    slot.commit_stream(packet.len(), stream);
    false
}

#[test]
fn only_the_first_packet_of_a_stream_needs_a_decision() {
    for flow in [Flow::v4(1), Flow::v6(1)] {
        let mut coalescer = coalescer();
        let continued: Vec<_> = segments(flow, 20, 1200)
            .iter()
            .map(|packet| receive(&mut coalescer, packet.as_slice(), tag(1)))
            .collect();

        assert!(!continued[0]);
        // The header of the first packet must stay whole while the second is opened behind it.
        assert!(continued[1..].iter().all(|is_continued| *is_continued));
        assert_eq!(drained(&mut coalescer).len(), 1);
    }
}

#[test]
fn another_tag_needs_another_decision() {
    let packets = segments(Flow::v4(1), 3, 1200);
    let mut coalescer = coalescer();
    receive(&mut coalescer, packets[0].as_slice(), tag(1));

    assert!(!receive(&mut coalescer, packets[1].as_slice(), tag(2)));
    // It may still be merged: only the decision was made anew. The tag of the first packet counts from then on.
    assert!(!receive(&mut coalescer, packets[2].as_slice(), tag(2)));
    assert_eq!(drained(&mut coalescer).len(), 1);
}

#[test]
fn packet_that_was_translated_continues_its_stream() {
    let packets = segments(Flow::v4(1), 3, 1200);
    let mut coalescer = coalescer();
    let mut slot = coalescer.slot();
    let first = packets[0].as_slice();
    slot.buffer()[..first.len()].copy_from_slice(first);
    let stream = slot.stream(first.len(), tag(1));
    let translated = with_bytes(packets[0].clone(), |bytes| bytes[19] = 99);
    slot.buffer()[..first.len()].copy_from_slice(translated.as_slice());
    slot.commit_stream(first.len(), stream);

    for packet in &packets[1..] {
        assert!(receive(&mut coalescer, packet.as_slice(), tag(1)));
    }
    let out = drained(&mut coalescer);
    assert_eq!((out.len(), out[0].1[19]), (1, 99));
}

#[test]
fn forgotten_packet_leaves_the_stream_as_it_is() {
    let packets = segments(Flow::v4(1), 4, 1200);
    let mut coalescer = coalescer();
    for (index, packet) in packets.iter().enumerate() {
        let mut other = coalescer.slot();
        other.buffer()[..100].fill(index as u8);
        assert!(!other.try_continue(100, tag(1)));
        drop(other);
        receive(&mut coalescer, packet.as_slice(), tag(1));
    }
    let out = drained(&mut coalescer);
    assert_eq!(
        split(&out[0].1, out[0].0),
        packets
            .iter()
            .map(|p| p.as_slice().to_vec())
            .collect::<Vec<_>>()
    );
}

/// A packet of one of two flows with anything in it changed, checksums right or not.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let change = prop_oneof![
        6 => Just(None),
        2 => (0..60usize, any::<u8>(), Just(true)).prop_map(Some),
        1 => (0..60usize, any::<u8>(), Just(false)).prop_map(Some),
    ];
    let kind = (any::<bool>(), any::<bool>(), 0..4u32, 1..3usize);
    (kind, change).prop_map(|((is_v4, is_tcp, number, size), change)| {
        let flow = if is_v4 { Flow::v4(1) } else { Flow::v6(1) };
        let payload = vec![number as u8; size * 50];
        let packet = if is_tcp {
            flow.tcp(number * 50, ACK, &payload)
        } else {
            flow.udp(&payload)
        };
        let mut bytes = packet.as_slice().to_vec();
        if let Some((at, value, fill)) = change {
            bytes[at] = value;
            if fill && let Ok(mut changed) = IpPacket::from_slice(&bytes) {
                changed.view_mut().fill_checksums();
                bytes = changed.as_slice().to_vec();
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn continuing_a_stream_is_the_same_as_committing(
        packets in proptest::collection::vec(any_packet(), 1..40),
    ) {
        let (mut one, mut other) = (coalescer(), coalescer());
        for packet in packets.iter().filter(|bytes| IpPacket::from_slice(bytes).is_ok()) {
            receive(&mut one, packet, tag(1));
            other.push(packet);
        }
        prop_assert_eq!(drained(&mut one), drained(&mut other));
    }

    #[test]
    fn what_is_continued_is_valid(packets in proptest::collection::vec(any_packet(), 1..40)) {
        let mut coalescer = coalescer();
        for packet in &packets {
            let is_valid = IpPacket::from_slice(packet).is_ok();
            let mut slot = coalescer.slot();
            slot.buffer()[..packet.len()].copy_from_slice(packet);
            if slot.try_continue(packet.len(), tag(1)) {
                prop_assert!(is_valid);
            } else if is_valid {
                let stream = slot.stream(packet.len(), tag(1));
                slot.commit_stream(packet.len(), stream);
            }
        }
    }
}
