//! Long idle (testing §6.3): sessions of both ends expire; the next packet is delivered all the same, exactly once and soon.
//!
//! The matrices of LI-1, LI-3 and LI-12 as scripts that are made here instead of written down; the assertions of every
//! step hold as in any other script.

use std::time::Duration;

use sim::{
    logs,
    script::{Expect, Script, Step, VERSION},
    topology::{
        ClientSpec, Families, GatewaySpec, HostSpec, NameSpec, ResourceSpec, Target, Topology,
    },
    transition::{
        Destination, Family, Probe, Protocol, Query, Question, RecordType, Side, Transition,
        Transport,
    },
};

const NAME: &str = "web.example";
/// Round trips of the default topology: client 15 ms, gateway 15 ms, relay 10 ms away from the backbone.
const DIRECT_RTT: Duration = Duration::from_millis(60);
const RELAYED_RTT: Duration = Duration::from_millis(100);
/// What a packet that finds an expired session may take (LI-3), in round trips and besides.
const ROUND_TRIPS: u32 = 3;
const EXTRA: Duration = Duration::from_secs(1);
/// Less than the shortest retransmission time-out of TCP (RFC 6298 §2.4).
const AT_ONCE: u64 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Direct,
    Relayed,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Cidr,
    Dns,
    Internet,
}

const PATHS: [Path; 2] = [Path::Direct, Path::Relayed];
const KINDS: [Kind; 3] = [Kind::Cidr, Kind::Dns, Kind::Internet];
/// Around every constant of the session's life (snownet §4.5).
const IDLE_LENGTHS: [u64; 20] = [
    115, 119, 121, 150, 164, 166, 170, 174, 176, 179, 180, 181, 185, 200, 300, 360, 540, 541, 600,
    720,
];

#[test]
fn li_1_first_packet_after_idle() {
    for path in PATHS {
        for kind in KINDS {
            for how in [Protocol::Icmp, Protocol::Udp(80)] {
                let send = Transition::Send {
                    client: 0,
                    probes: vec![probe(kind, how)],
                };
                let mut steps = start(kind, path, send.clone());
                steps.extend([idle(360), Step::Do(send), in_time(path)]);
                run(&format!("LI-1 {path:?} {kind:?} {how:?}"), path, steps);
            }
        }
    }
}

#[test]
fn li_1_tcp_after_idle() {
    for path in PATHS {
        for kind in KINDS {
            for from in [Side::Application, Side::Resource] {
                let mut steps = start(kind, path, open_tcp(kind));
                // On the connection that was there, and on a new one.
                let used = Transition::UseTcp {
                    connection: 0,
                    from,
                };
                steps.extend([idle(360), Step::Do(used), in_time(path)]);
                steps.extend([idle(360), Step::Do(open_tcp(kind)), in_time(path)]);
                run(
                    &format!("LI-1 {path:?} {kind:?} TCP, {from:?} first"),
                    path,
                    steps,
                );
            }
        }
    }
}

#[test]
fn li_3_idle_lengths() {
    li_3(|seconds, send| vec![idle(seconds), Step::Do(send)]);
}

#[test]
fn li_3_stalled_for_the_idle_time() {
    li_3(|seconds, send| {
        let Transition::Send { client, probes } = send else {
            unreachable!("that is what is given")
        };
        let then = probes;
        vec![Step::Do(Transition::Stall {
            client,
            seconds,
            then,
        })]
    });
}

fn li_3(then: impl Fn(u64, Transition) -> Vec<Step>) {
    for path in PATHS {
        for seconds in IDLE_LENGTHS {
            let send = Transition::Send {
                client: 0,
                probes: vec![probe(Kind::Cidr, Protocol::Icmp)],
            };
            let mut steps = start(Kind::Cidr, path, send.clone());
            steps.extend(then(seconds, send));
            steps.push(in_time(path));
            run(&format!("LI-3 {path:?} {seconds} s"), path, steps);
        }
    }
}

#[test]
fn li_12_data_from_the_resource_after_idle() {
    for path in PATHS {
        for kind in [Kind::Cidr, Kind::Dns] {
            for seconds in [170, 181, 300, 470] {
                let mut steps = start(kind, path, open_tcp(kind));
                let used = |from| {
                    Step::Do(Transition::UseTcp {
                        connection: 0,
                        from,
                    })
                };
                steps.extend([used(Side::Application), idle(seconds), used(Side::Resource)]);
                steps.push(Step::Expect(Expect::AnsweredWithin { ms: AT_ONCE }));
                run(&format!("LI-12 {path:?} {kind:?} {seconds} s"), path, steps);
            }
        }
    }
}

/// Name resolution, first traffic, and the path that it took.
fn start(kind: Kind, path: Path, first: Transition) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Kind::Dns = kind {
        let query = Query {
            question: Question::Records(NAME.to_owned(), RecordType::A),
            server: 0,
            transport: Transport::Udp,
            id: 1,
        };
        let queries = vec![query];
        steps.push(Step::Do(Transition::Query { client: 0, queries }));
    }
    steps.push(Step::Do(first));
    steps.push(Step::Expect(match path {
        Path::Direct => Expect::Direct { client: 0 },
        Path::Relayed => Expect::Relayed { client: 0 },
    }));
    steps
}

fn destination(kind: Kind) -> Destination {
    match kind {
        Kind::Cidr => Destination::Host([10, 1, 0, 7].into()),
        Kind::Dns => Destination::Name(NAME.to_owned(), Family::V4, 0),
        Kind::Internet => Destination::Host([8, 8, 4, 4].into()),
    }
}

fn probe(kind: Kind, how: Protocol) -> Probe {
    Probe {
        to: destination(kind),
        how,
        source: None,
    }
}

fn open_tcp(kind: Kind) -> Transition {
    Transition::OpenTcp {
        client: 0,
        to: destination(kind),
        port: 443,
        keep_alive: false,
    }
}

fn idle(seconds: u64) -> Step {
    Step::Do(Transition::Idle { seconds })
}

fn in_time(path: Path) -> Step {
    let round_trip = match path {
        Path::Direct => DIRECT_RTT,
        Path::Relayed => RELAYED_RTT,
    };
    let limit = ROUND_TRIPS * round_trip + EXTRA;
    let ms = u64::try_from(limit.as_millis()).expect("seconds");
    Step::Expect(Expect::AnsweredWithin { ms })
}

fn topology(path: Path) -> Topology {
    let gateway = |site| GatewaySpec {
        site,
        host: HostSpec::default(),
    };
    let resource = |target, site| ResourceSpec {
        target,
        site,
        filters: vec![],
    };
    Topology {
        sites: 2,
        gateways: vec![gateway(0), gateway(1)],
        clients: vec![ClientSpec {
            granted: vec![0, 1, 2],
            ..ClientSpec::default()
        }],
        resources: vec![
            resource(Target::Cidr("10.1.0.0/24".parse().expect("a network")), 0),
            resource(Target::Dns(NAME.to_owned(), Families::Dual), 0),
            resource(Target::Internet, 1),
        ],
        names: vec![NameSpec {
            name: NAME.to_owned(),
            v4: vec![[10, 9, 0, 1].into()],
            ..NameSpec::default()
        }],
        block_direct: path == Path::Relayed,
        ..Topology::default()
    }
}

fn run(title: &str, path: Path, steps: Vec<Step>) {
    let script = Script {
        version: VERSION,
        broke: title.to_owned(),
        topology: topology(path),
        steps,
    };
    if let Err(error) = logs::with(None, || script.run()) {
        panic!("{title}: {error:#}");
    }
}
