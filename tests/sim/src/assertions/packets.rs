//! A1–A8: every probe reaches exactly the host that the model predicts, and its answer comes back as it should.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ip_packet::{IcmpErrorKind, IpPacket, Protocol as Port};

use super::{Evidence, Failure, Flow, Mapped, Memory};
use crate::{
    model::{ExpectedProbe, Fates, Reach, Resolved},
    sut::probe_number,
    topology::Failure as Fault,
    trace::Entry,
    transition::{Destination, Protocol},
};

/// What was seen of one probe.
#[derive(Default)]
struct Seen<'a> {
    requests: Vec<&'a IpPacket>,
    arrivals: Vec<(usize, &'a IpPacket)>,
    replies: Vec<&'a IpPacket>,
    errors: Vec<&'a IpPacket>,
    /// When it was sent first, and when it was seen last in any form.
    time: Option<(Duration, Duration)>,
}

/// A flow lives this long after its last packet at most: UDP and ICMP (tunnel §5.5).
const FLOW_LIFE: Duration = Duration::from_secs(120);

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Reached,
    Refused,
    NoFamily,
    Silence,
    Odd,
}

pub(super) fn check(evidence: &Evidence<'_>, memory: &mut Memory, failures: &mut Vec<Failure>) {
    memory.forget_mappings(evidence.model, evidence.entries);
    let mut is_claimed = vec![false; evidence.entries.len()];
    let mut probes = Vec::new();
    for probe in &evidence.expected.probes {
        let seen = collect(evidence, probe, &mut is_claimed);
        let kept = memory.kept_by_flow(probe, &seen);
        let probe = with_kept(probe, &kept);
        check_probe(evidence, &probe, &seen, &kept, memory, failures);
        memory.note_flows(&probe, &seen);
        probes.push(probe);
    }
    if let Some((number, may_pass)) = evidence.expected.rogue {
        check_rogue(evidence, number, may_pass, &mut is_claimed, failures);
    }
    if evidence.model.is_repeating() {
        claim_late(evidence, memory, &mut is_claimed);
        let probes = probes.into_iter();
        let reaching = probes.filter_map(|p| Some((p.number, p.fates.reach?)));
        memory.probes.extend(reaching);
    }
    unexpected(evidence, &is_claimed, failures);
}

impl Memory {
    /// Real addresses that the probe's flow has kept, where it lives still, by gateway.
    fn kept_by_flow(&self, probe: &ExpectedProbe, seen: &Seen<'_>) -> BTreeMap<usize, IpAddr> {
        let Some((sent_at, _)) = seen.time else {
            return BTreeMap::new();
        };
        let lives = |seen_at: Duration| sent_at <= seen_at + FLOW_LIFE;
        let flows = flow(probe, seen).and_then(|flow| self.flows.get(&flow));
        flows
            .into_iter()
            .flatten()
            .filter(|(_, (_, seen_at))| lives(*seen_at))
            .map(|(gateway, (real, _))| (*gateway, *real))
            .collect()
    }

    fn note_flows(&mut self, probe: &ExpectedProbe, seen: &Seen<'_>) {
        let Some((flow, (_, seen_at))) = flow(probe, seen).zip(seen.time) else {
            return;
        };
        for (gateway, arrival) in &seen.arrivals {
            let at_gateways = self.flows.entry(flow.clone()).or_default();
            at_gateways.insert(*gateway, (arrival.destination(), seen_at));
        }
    }
}

/// The flow to a name that a probe belongs to: ports come from a small pool, so the next probe may go on with it.
fn flow(probe: &ExpectedProbe, seen: &Seen<'_>) -> Option<Flow> {
    let request = seen.requests.first()?;
    let Destination::Name(name, ..) = &probe.to else {
        return None;
    };
    Some(Flow {
        client: probe.client,
        name: name.clone(),
        proxy: request.destination(),
        end: request.source_protocol().ok()?,
    })
}

/// A4: "existing NAT sessions keep their real IP because the session table is consulted first" (tunnel §5.5, 61), also when
/// the name has other addresses now, or none.
fn with_kept(probe: &ExpectedProbe, kept: &BTreeMap<usize, IpAddr>) -> ExpectedProbe {
    let mut probe = probe.clone();
    let is_permitted = probe.fates.reach.is_some() || probe.fates.no_family;
    if is_permitted && !kept.is_empty() {
        let reach = probe.fates.reach.get_or_insert_with(|| Reach {
            gateways: kept.keys().copied().collect(),
            ..Reach::default()
        });
        reach.destinations.extend(kept.values());
    }
    probe
}

/// Where packets are repeated, those of earlier transitions may still be under way. They too only go where they may.
fn claim_late(evidence: &Evidence<'_>, memory: &Memory, is_claimed: &mut [bool]) {
    for (index, (_, entry)) in evidence.entries.iter().enumerate() {
        let Entry::Arrival { gateway, packet } = entry else {
            continue;
        };
        let reach = probe_number(packet).and_then(|number| memory.probes.get(&number));
        is_claimed[index] |= reach.is_some_and(|reach| {
            reach.gateways.contains(gateway) && reach.destinations.contains(&packet.destination())
        });
    }
}

/// A3, A6: what a client seals against its own rules stops at the gateway.
fn check_rogue(
    evidence: &Evidence<'_>,
    number: u64,
    may_pass: bool,
    is_claimed: &mut [bool],
    failures: &mut Vec<Failure>,
) {
    let mut passed = false;
    for (index, (_, entry)) in evidence.entries.iter().enumerate() {
        if let Entry::Arrival { packet, .. } = entry
            && probe_number(packet) == Some(number)
        {
            is_claimed[index] = true;
            passed = true;
        }
    }
    let rogue = evidence.model.rogue.as_ref();
    let may_be_lost = evidence.model.is_lossy() || rogue.is_some_and(|rogue| rogue.may_be_gone);
    let is_wrong = match may_be_lost {
        true => passed && !may_pass,
        false => passed != may_pass,
    };
    if is_wrong {
        let text = format!("packet {number} of the misbehaving client: passed {passed}");
        failures.push(Failure::new(6, text));
    }
}

/// A7: by the number in the payload; errors carry too little of it, so they are found by the flow inside.
fn collect<'a>(
    evidence: &Evidence<'a>,
    probe: &ExpectedProbe,
    is_claimed: &mut [bool],
) -> Seen<'a> {
    let mut seen = Seen::default();
    for (index, (at, entry)) in evidence.entries.iter().enumerate() {
        let is_ours = match entry {
            Entry::Request {
                probe: number,
                packet,
                ..
            } if *number == probe.number => {
                seen.requests.push(packet);
                true
            }
            Entry::Arrival { gateway, packet } if probe_number(packet) == Some(probe.number) => {
                seen.arrivals.push((*gateway, packet));
                true
            }
            Entry::Return { client, packet } if *client == probe.client => {
                let is_error = is_error_about(packet, &seen.requests);
                if is_error {
                    seen.errors.push(packet);
                } else if probe_number(packet) == Some(probe.number) {
                    seen.replies.push(packet);
                } else {
                    continue;
                }
                true
            }
            _ => false,
        };
        is_claimed[index] |= is_ours;
        if is_ours {
            let (first, _) = seen.time.unwrap_or((*at, *at));
            seen.time = Some((first, *at));
        }
    }
    seen
}

fn is_error_about(packet: &IpPacket, requests: &[&IpPacket]) -> bool {
    let view = packet.view();
    let Some(Ok(failed)) = view.icmp_error().map(|error| error.failed_packet()) else {
        return false;
    };
    requests.iter().any(|request| {
        let same_flow = request.source_protocol() == Ok(failed.source_protocol());
        let same_host = request.destination() == failed.destination();
        same_flow && (same_host || request.destination() == packet.source())
    })
}

fn check_probe(
    evidence: &Evidence<'_>,
    probe: &ExpectedProbe,
    seen: &Seen<'_>,
    kept: &BTreeMap<usize, IpAddr>,
    memory: &mut Memory,
    failures: &mut Vec<Failure>,
) {
    let mut fail = |assertion, text: String| {
        let text = format!("probe {} of client {}: {text}", probe.number, probe.client);
        failures.push(Failure::new(assertion, text));
    };
    let Some(request) = seen.requests.first() else {
        return fail(1, format!("was not sent to {:?}", probe.to));
    };
    let counts = [seen.requests.len(), seen.arrivals.len(), seen.replies.len()];
    // Nothing is delivered twice, however often it is sent and lost.
    let most = match evidence.model.is_repeating() {
        true => seen.requests.len(),
        false => 1,
    };
    if counts.iter().any(|count| *count > most) {
        fail(1, format!("sent, arrived, answered {counts:?} times"));
    }
    let mut fate = fate(evidence, seen);
    // Where a packet may be lost, so may its answer.
    let may_be_lost = evidence.model.is_lossy() || evidence.expected.recovery_s.is_some();
    if probe.fates.silence && may_be_lost && is_unanswered(seen) {
        fate = Fate::Silence;
    }
    if !is_allowed(&probe.fates, fate) {
        let arrivals: Vec<_> = seen
            .arrivals
            .iter()
            .map(|(g, p)| (*g, p.destination()))
            .collect();
        let errors: Vec<_> = seen.errors.iter().filter_map(|p| kind(p)).collect();
        fail(
            1,
            format!(
                "{fate:?} instead of {:?}; {:?} {:?}: arrived at {arrivals:?}, {} replies, errors {errors:?}",
                probe.fates,
                probe.how,
                request.destination(),
                seen.replies.len(),
            ),
        );
    }
    for (gateway, arrival) in &seen.arrivals {
        check_arrival(probe, *gateway, arrival, request, &mut fail);
        // A flow that lives says what the mapping was when it began, not what it is.
        if kept.get(gateway) != Some(&arrival.destination()) {
            check_mapping(evidence, probe, arrival, request, memory, &mut fail);
        }
    }
    for reply in &seen.replies {
        check_reply(probe, reply, request, &mut fail);
    }
    for error in &seen.errors {
        check_error(evidence, seen, error, request, &mut fail);
    }
}

fn fate(evidence: &Evidence<'_>, seen: &Seen<'_>) -> Fate {
    let unreachable = |ip: IpAddr| evidence.model.failure_at(ip).is_some();
    let error = seen.errors.first().and_then(|packet| kind(packet));
    let refused = error.is_some_and(IcmpErrorKind::is_prohibited);
    let network = matches!(
        error,
        Some(IcmpErrorKind::V4Unreachable { code: 0 } | IcmpErrorKind::V6Unreachable { code: 3 })
    );
    match (seen.arrivals.first(), seen.replies.first(), error) {
        (Some((_, arrival)), None, Some(_)) if unreachable(arrival.destination()) => Fate::Reached,
        (Some((_, arrival)), Some(_), None) if !unreachable(arrival.destination()) => Fate::Reached,
        // With loss, an error of an earlier attempt may have come as well.
        (Some(_), Some(_), _) if evidence.model.is_repeating() => Fate::Reached,
        (None, None, Some(_)) if refused => Fate::Refused,
        (None, None, Some(_)) if network => Fate::NoFamily,
        (None, None, None) => Fate::Silence,
        (_, _, _) => Fate::Odd,
    }
}

/// Whether it arrived, but its answer got lost.
fn is_unanswered(seen: &Seen<'_>) -> bool {
    seen.replies.is_empty() && seen.errors.is_empty()
}

fn is_allowed(fates: &Fates, fate: Fate) -> bool {
    match fate {
        Fate::Reached => fates.reach.is_some(),
        Fate::Refused => fates.refused,
        Fate::NoFamily => fates.no_family,
        Fate::Silence => fates.silence,
        Fate::Odd => false,
    }
}

/// A3, A4, A6: at the right gateway, for the right host, from the client's own address.
fn check_arrival(
    probe: &ExpectedProbe,
    gateway: usize,
    arrival: &IpPacket,
    request: &IpPacket,
    fail: &mut impl FnMut(u8, String),
) {
    let real = arrival.destination();
    if let Some(reach) = &probe.fates.reach {
        if !reach.gateways.contains(&gateway) {
            let allowed = &reach.gateways;
            fail(
                1,
                format!("arrived at gateway {gateway}, not one of {allowed:?}"),
            );
        }
        if !reach.destinations.contains(&real) {
            let allowed = &reach.destinations;
            fail(4, format!("went to {real}, not one of {allowed:?}"));
        }
    }
    if arrival.source() != request.source() {
        let (is, own) = (arrival.source(), request.source());
        fail(3, format!("has source {is} behind the gateway, not {own}"));
    }
    if !arrival.view().has_valid_checksums() {
        fail(2, "has a wrong checksum behind the gateway".to_owned());
    }
}

/// A5: a proxy address means one real address while the name's do not change.
fn check_mapping(
    evidence: &Evidence<'_>,
    probe: &ExpectedProbe,
    arrival: &IpPacket,
    request: &IpPacket,
    memory: &mut Memory,
    fail: &mut impl FnMut(u8, String),
) {
    let real = arrival.destination();
    let Destination::Name(name, family, _) = &probe.to else {
        return;
    };
    let client = &evidence.model.clients[probe.client];
    let key = (name.clone(), *family);
    if client.resolved.get(&key) != Some(&Resolved::Proxy) {
        return;
    }
    let state = Mapped {
        name: name.clone(),
        versions: evidence.model.names.get(name).map_or(0, Vec::len),
        announced: client.announced.get(name).copied().unwrap_or_default(),
    };
    let proxy = (probe.client, request.destination());
    let old = memory.mappings.insert(proxy, (state.clone(), real));
    if let Some((old_state, old_real)) = old
        && old_state == state
        && old_real != real
    {
        let proxy = proxy.1;
        fail(5, format!("{proxy} meant {old_real} and now {real}"));
    }
}

/// A2: addresses and ports are mirrored.
fn check_reply(
    probe: &ExpectedProbe,
    reply: &IpPacket,
    request: &IpPacket,
    fail: &mut impl FnMut(u8, String),
) {
    if reply.source() != request.destination() || reply.destination() != request.source() {
        let (from, to) = (reply.source(), reply.destination());
        fail(2, format!("is answered from {from} to {to}"));
    }
    let mirrored = match probe.how {
        Protocol::Udp(_) => {
            reply.source_protocol() == request.destination_protocol()
                && reply.destination_protocol() == request.source_protocol()
        }
        Protocol::Icmp => {
            reply.source_protocol() == request.source_protocol()
                && sequence(reply) == sequence(request)
        }
    };
    if !mirrored {
        let ports = (reply.source_protocol(), reply.destination_protocol());
        fail(2, format!("is answered with ports {ports:?}"));
    }
    if !reply.view().has_valid_checksums() {
        fail(2, "is answered with a wrong checksum".to_owned());
    }
}

fn sequence(packet: &IpPacket) -> Option<u16> {
    let v4 = packet.as_icmpv4().and_then(|icmp| icmp.echo_sequence());
    v4.or_else(|| packet.as_icmpv6().and_then(|icmp| icmp.echo_sequence()))
}

/// A8: the error shows the client's own view, and the MTU that the resource's side reported.
fn check_error(
    evidence: &Evidence<'_>,
    seen: &Seen<'_>,
    error: &IpPacket,
    request: &IpPacket,
    fail: &mut impl FnMut(u8, String),
) {
    let view = error.view();
    let Some(Ok(failed)) = view.icmp_error().map(|error| error.failed_packet()) else {
        return;
    };
    let own = (
        request.source(),
        request.destination(),
        request.source_protocol(),
    );
    let shown = (
        failed.source(),
        failed.destination(),
        Ok::<Port, _>(failed.source_protocol()),
    );
    if own != shown {
        fail(
            8,
            format!("the error is about {shown:?}, not about {own:?}"),
        );
    }
    if error.source() != request.destination() {
        let from = error.source();
        fail(8, format!("the error comes from {from}"));
    }
    let fault = seen
        .arrivals
        .first()
        .and_then(|(_, arrival)| evidence.model.failure_at(arrival.destination()));
    if let Some(fault) = fault
        && kind(error) != Some(expected_kind(fault, request.source()))
    {
        let is = kind(error);
        fail(8, format!("the error is {is:?} instead of {fault:?}"));
    }
}

fn kind(packet: &IpPacket) -> Option<IcmpErrorKind> {
    packet.view().icmp_error().map(|error| error.kind())
}

fn expected_kind(fault: Fault, family: IpAddr) -> IcmpErrorKind {
    match (fault, family) {
        (Fault::Network, IpAddr::V4(_)) => IcmpErrorKind::V4Unreachable { code: 0 },
        (Fault::Host, IpAddr::V4(_)) => IcmpErrorKind::V4Unreachable { code: 1 },
        (Fault::Port, IpAddr::V4(_)) => IcmpErrorKind::V4Unreachable { code: 3 },
        (Fault::Prohibited, IpAddr::V4(_)) => IcmpErrorKind::V4Unreachable { code: 13 },
        (Fault::TimeExceeded, IpAddr::V4(_)) => IcmpErrorKind::V4TimeExceeded { code: 0 },
        (Fault::TooBig(mtu), IpAddr::V4(_)) => IcmpErrorKind::V4FragmentationNeeded { mtu },
        (Fault::Network, IpAddr::V6(_)) => IcmpErrorKind::V6Unreachable { code: 0 },
        (Fault::Host, IpAddr::V6(_)) => IcmpErrorKind::V6Unreachable { code: 3 },
        (Fault::Port, IpAddr::V6(_)) => IcmpErrorKind::V6Unreachable { code: 4 },
        (Fault::Prohibited, IpAddr::V6(_)) => IcmpErrorKind::V6Unreachable { code: 1 },
        (Fault::TimeExceeded, IpAddr::V6(_)) => IcmpErrorKind::V6TimeExceeded { code: 0 },
        (Fault::TooBig(mtu), IpAddr::V6(_)) => {
            let mtu = u32::from(mtu);
            IcmpErrorKind::V6PacketTooBig { mtu }
        }
    }
}

/// A6: nothing else arrives anywhere. Name servers and TCP have assertions of their own.
fn unexpected(evidence: &Evidence<'_>, is_claimed: &[bool], failures: &mut Vec<Failure>) {
    const DNS: [u16; 2] = [53, connlib_model::ranges::GATEWAY_DNS_PORT];
    for ((at, entry), claimed) in evidence.entries.iter().zip(is_claimed) {
        if *claimed {
            continue;
        }
        match entry {
            Entry::Arrival { gateway, packet } => {
                let port = packet.destination_protocol().map(Port::value);
                let is_known = packet.as_tcp().is_some() || port.is_ok_and(|p| DNS.contains(&p));
                if !is_known {
                    let text = format!("{at:?}: gateway {gateway} got unexpected {packet:?}");
                    failures.push(Failure::new(6, text));
                }
            }
            Entry::Return { client, packet } => {
                let about_tcp = packet
                    .view()
                    .icmp_error()
                    .and_then(|error| error.failed_packet().ok())
                    .is_some_and(|failed| matches!(failed.source_protocol(), Port::Tcp(_)));
                // The answer to an earlier attempt may come late, an error too.
                let is_answer =
                    probe_number(packet).is_some() || packet.view().icmp_error().is_some();
                let is_late = evidence.model.is_repeating() && is_answer;
                if !about_tcp && !is_late {
                    let text = format!("{at:?}: client {client} got unexpected {packet:?}");
                    failures.push(Failure::new(6, text));
                }
            }
            _ => {}
        }
    }
}
