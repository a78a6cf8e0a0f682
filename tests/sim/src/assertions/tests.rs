//! Each assertion fails on a trace that violates it (testing §5.12): the trace of a sound step is changed in one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
    time::{Duration, Instant},
};

use connlib_model::ResourceStatus;
use ip_packet::{IpPacket, make};

use super::{Evidence, Memory, Snapshot, check, time, wire};
use crate::{
    case::Case,
    logs,
    model::{Expectations, Model},
    sut::probe_number,
    topology::Topology,
    trace::{Class, Entry, TcpEvent, Wire},
    transition::{Component, Destination, Family, RecordType, Side, Transition, Transport},
};

mod setting;

use setting::{datagram, open_tcp, probe, query, topology};

/// Probes of the step.
const TO_HOST: u64 = 0;
const TO_NAME: u64 = 1;
/// Queries of the step; number 0 came before.
const OVER_UDP: u64 = 1;
const OVER_TCP: u64 = 2;

/// Everything that the assertions look at after one step.
#[derive(Clone)]
struct Trial {
    model: Model,
    expected: Expectations,
    entries: Vec<(Duration, Entry)>,
    snapshot: Snapshot,
    memory: Memory,
}

#[test]
fn the_unchanged_trace_is_sound() {
    assert_eq!(broken_by(|_| {}), BTreeSet::new());
}

#[test]
fn a1_packet_that_does_not_arrive() {
    assert!(broken_by(|trial| trial.remove_arrival(TO_HOST)).contains(&1));
}

#[test]
fn a1_answer_that_comes_twice() {
    let broken = broken_by(|trial| {
        let reply = trial.entries[trial.reply(TO_HOST)].clone();
        trial.entries.push(reply);
    });
    assert!(broken.contains(&1));
}

#[test]
fn a1_packet_at_another_sites_gateway() {
    let broken = broken_by(|trial| {
        let index = trial.arrival(TO_HOST);
        if let Entry::Arrival { gateway, .. } = &mut trial.entries[index].1 {
            *gateway = 1;
        }
    });
    assert!(broken.contains(&1));
}

#[test]
fn a2_answer_from_another_host() {
    let broken = broken_by(|trial| {
        let index = trial.reply(TO_HOST);
        trial.change_packet(index, |flow| flow.source.set_ip([10, 1, 0, 99].into()));
    });
    assert!(broken.contains(&2));
}

#[test]
fn a2_answer_from_another_port() {
    let broken = broken_by(|trial| {
        let index = trial.reply(TO_HOST);
        trial.change_packet(index, |flow| flow.source.set_port(81));
    });
    assert!(broken.contains(&2));
}

#[test]
fn a3_packet_with_another_source_behind_the_gateway() {
    let broken = broken_by(|trial| {
        let index = trial.arrival(TO_HOST);
        trial.change_packet(index, |flow| flow.source.set_ip([100, 64, 7, 7].into()));
    });
    assert!(broken.contains(&3));
}

#[test]
fn a4_packet_to_a_host_that_is_not_the_names() {
    let broken = broken_by(|trial| {
        let index = trial.arrival(TO_NAME);
        trial.change_packet(index, |flow| flow.destination.set_ip([10, 9, 0, 9].into()));
    });
    assert!(broken.contains(&4));
}

/// A flow that lives keeps its address, for two minutes after its last packet and never for another name.
#[test]
fn a4_packet_of_a_flow_that_lives() {
    const OLD: [u8; 4] = [10, 9, 0, 9];
    let broken_by_flow = |name: &str, idle: Duration| {
        broken_by(|trial| {
            for (at, _) in &mut trial.entries {
                *at += Duration::from_secs(200);
            }
            let index = trial.arrival(TO_NAME);
            trial.change_packet(index, |flow| flow.destination.set_ip(OLD.into()));
            let index = trial
                .find(|entry| matches!(entry, Entry::Request { probe, .. } if *probe == TO_NAME));
            let (at, Entry::Request { packet, .. }) = &trial.entries[index] else {
                unreachable!("it was looked for");
            };
            let flow = super::Flow {
                client: 0,
                name: name.to_owned(),
                proxy: packet.destination(),
                end: packet.source_protocol().unwrap(),
            };
            let seen = (OLD.into(), *at - idle);
            let at_gateway = BTreeMap::from([(0, seen)]);
            trial.memory.flows.insert(flow, at_gateway);
        })
    };
    let (short, long) = (Duration::from_secs(120), Duration::from_secs(121));
    assert_eq!(broken_by_flow("web.example", short), BTreeSet::new());
    assert!(broken_by_flow("web.example", long).contains(&4));
    assert!(broken_by_flow("out.example", short).contains(&4));
}

#[test]
fn a5_proxy_address_that_changes_its_meaning() {
    let broken = broken_by(|trial| {
        trial.drop_requests();
        let index = trial.arrival(TO_NAME);
        trial.change_packet(index, |flow| {
            let other = match flow.destination.ip() {
                ip if ip == IpAddr::from([10, 9, 0, 1]) => [10, 9, 0, 2],
                _ => [10, 9, 0, 1],
            };
            flow.destination.set_ip(other.into());
        });
    });
    assert_eq!(broken, BTreeSet::from([5]));
}

/// After a restart, proxy addresses are handed out anew, perhaps for other names.
#[test]
fn a5_proxy_address_of_a_client_that_started_again() {
    let broken_after_restart_of = |restarted: usize| {
        broken_by(|trial| {
            trial.drop_requests();
            for (_, real) in trial.memory.mappings.values_mut() {
                *real = [10, 9, 0, 3].into();
            }
            let restart = Entry::Restarted { client: restarted };
            trial.entries.insert(0, (Duration::ZERO, restart));
        })
    };
    assert_eq!(broken_after_restart_of(1), BTreeSet::from([5]));
    assert_eq!(broken_after_restart_of(0), BTreeSet::new());
}

/// Who asks for access again has lost the connection, and with it what the gateway had resolved.
#[test]
fn a5_proxy_address_of_a_resource_that_was_asked_for_again() {
    let broken_after_asking_for = |resource: usize| {
        broken_by(|trial| {
            trial.drop_requests();
            for (_, real) in trial.memory.mappings.values_mut() {
                *real = [10, 9, 0, 3].into();
            }
            let asked = Entry::ToPortal {
                from: Component::Client(0),
                event: "create_flow".to_owned(),
                resource: Some(resource),
                connected: true,
            };
            trial.entries.insert(0, (Duration::ZERO, asked));
        })
    };
    assert!(broken_after_asking_for(0).contains(&5));
    assert!(!broken_after_asking_for(1).contains(&5));
}

#[test]
fn a6_packet_that_nobody_sent() {
    let packet = || {
        let from = SocketAddr::from(([100, 64, 0, 1], 9));
        let to = SocketAddr::from(([10, 1, 0, 7], 9));
        make::udp_packet(from, to, b"nobody's").unwrap()
    };
    let at_gateway = broken_by(|trial| {
        let entry = Entry::Arrival {
            gateway: 0,
            packet: packet(),
        };
        trial.add(entry);
    });
    let at_client = broken_by(|trial| {
        let entry = Entry::Return {
            client: 0,
            packet: packet(),
        };
        trial.add(entry);
    });
    assert!(at_gateway.contains(&6) && at_client.contains(&6));
}

/// A7: what belongs together is told by the number in the payload: order does not matter, the number does.
#[test]
fn a7_packets_are_told_apart_by_their_payload() {
    let in_another_order = broken_by(|trial| {
        let (a, b) = (trial.reply(TO_HOST), trial.reply(TO_NAME));
        trial.entries.swap(a, b);
    });
    let with_another_number = broken_by(|trial| {
        let index = trial.reply(TO_HOST);
        trial.change_packet(index, |flow| flow.number = TO_NAME);
    });
    assert_eq!(in_another_order, BTreeSet::new());
    assert!(with_another_number.contains(&1));
}

#[test]
fn a8_error_with_another_mtu() {
    let broken = broken_by(|trial| trial.change_error([0, 0, 4, 0], |_| {}));
    assert!(broken.contains(&8));
}

#[test]
fn a8_error_about_another_port() {
    // The first bytes behind the embedded IPv4 header are the source port; whose error it is shows only in its flow.
    let broken = broken_by(|trial| trial.change_error(MTU, |embedded| embedded[21] ^= 0x40));
    assert!(broken.contains(&1) || broken.contains(&6));
    // The embedded destination is what the gateway should have translated back.
    let broken = broken_by(|trial| trial.change_error(MTU, |embedded| embedded[19] ^= 1));
    assert!(broken.contains(&8));
}

#[test]
fn a9_query_without_response() {
    let broken = broken_by(|trial| {
        let index = trial.response(OVER_UDP);
        trial.entries.remove(index);
    });
    assert!(broken.contains(&9));
}

#[test]
fn a9_response_that_comes_twice_or_to_nobody() {
    let twice = broken_by(|trial| {
        let response = trial.entries[trial.response(OVER_UDP)].clone();
        trial.entries.push(response);
    });
    let to_nobody = broken_by(|trial| {
        let mut response = trial.entries[trial.response(OVER_UDP)].1.clone();
        if let Entry::DnsResponse { query, .. } = &mut response {
            *query = None;
        }
        trial.add(response);
    });
    assert!(twice.contains(&9) && to_nobody.contains(&9));
}

#[test]
fn a9_response_with_another_id() {
    assert!(broken_by(|trial| trial.change_response(|message| message[0] ^= 1)).contains(&9));
}

#[test]
fn a9_query_past_the_tunnel_that_asks_another_server() {
    let broken = broken_by(|trial| {
        for (_, entry) in &mut trial.entries {
            if let Entry::HostLookup { server, .. } = entry {
                server.set_port(54);
            }
        }
    });
    assert!(broken.contains(&9));
}

#[test]
fn a10_query_over_tcp_that_fails() {
    let broken = broken_by(|trial| {
        let index = trial.response(OVER_TCP);
        trial.entries[index].1 = Entry::DnsFailure {
            client: 0,
            query: OVER_TCP,
        };
    });
    assert!(broken.contains(&10));
}

/// A11: an address that is not the one that is configured; known hosts are records like any other here.
#[test]
fn a11_response_with_another_address() {
    let broken = broken_by(|trial| {
        trial.change_response(|message| *message.last_mut().unwrap() ^= 1);
    });
    assert!(broken.contains(&9));
}

#[test]
fn a12_resolvers_out_of_order_or_doubled() {
    let reversed = broken_by(|trial| trial.config().dns_sentinels.reverse());
    let doubled = broken_by(|trial| {
        let first = trial.config().dns_sentinels[0];
        trial.config().dns_sentinels.push(first);
    });
    assert!(reversed.contains(&12) && doubled.contains(&12));
}

#[test]
fn a13_routes_that_are_missing_or_too_many() {
    let network = "10.1.0.0/24".parse().unwrap();
    let missing = broken_by(|trial| {
        trial.config().routes_v4.remove(&network);
    });
    let more = broken_by(|trial| {
        trial
            .config()
            .routes_v4
            .insert("10.2.0.0/24".parse().unwrap());
    });
    assert!(missing.contains(&13) && more.contains(&13));
}

#[test]
fn a13_configuration_that_is_announced_again() {
    let broken = broken_by(|trial| {
        let config = trial.config().clone();
        for _ in 0..2 {
            let (client, config) = (0, config.clone());
            trial.add(Entry::TunConfig { client, config });
        }
    });
    assert!(broken.contains(&13));
}

#[test]
fn a14_idle_system_that_talks() {
    let talking = |datagrams: u64, class: Class| {
        broken_by(|trial| {
            trial.expected = Expectations {
                idle_s: 360,
                ..Expectations::default()
            };
            trial.model.connections.clear();
            trial.entries.clear();
            for number in 0..datagrams {
                let at = Duration::from_secs(360) * number as u32 / datagrams as u32;
                let from = Component::Client(0);
                let mut wire = datagram(from, class, 100);
                wire.at = at;
                trial.entries.push((at, Entry::Wire(wire)));
            }
        })
    };
    assert_eq!(talking(300, Class::Stun), BTreeSet::new());
    assert!(talking(1_500, Class::Stun).contains(&14));
    // Who sends packets is not idle, but there is a limit to what that may cost.
    assert_eq!(talking(1_500, Class::WireGuard(4)), BTreeSet::new());
    assert!(talking(5_000, Class::WireGuard(4)).contains(&14));
}

/// A connection whose client is gone, or is the misbehaving one, is known to its gateway alone.
#[test]
fn a14_connections_that_only_gateways_have() {
    let talking = |connections: usize| {
        broken_by(|trial| {
            trial.expected = Expectations {
                idle_s: 360,
                ..Expectations::default()
            };
            trial.model.connections.clear();
            trial.snapshot.clients[0].connections = 0;
            trial.snapshot.gateway_connections.fill(0);
            trial.snapshot.gateway_connections[0] = connections;
            trial.entries.clear();
            for number in 0..700_u32 {
                let mut wire = datagram(Component::Gateway(0), Class::Stun, 100);
                wire.at = Duration::from_secs(360) * number / 700;
                trial.entries.push((wire.at, Entry::Wire(wire)));
            }
        })
    };
    assert!(talking(0).contains(&14));
    assert_eq!(talking(1), BTreeSet::new());
}

/// Candidates that change wake connections once, not again and again.
#[test]
fn a14_connections_that_are_woken() {
    let woken = |times: u32| {
        broken_by(|trial| {
            trial.expected = Expectations {
                idle_s: 360,
                ..Expectations::default()
            };
            trial.model.connections.clear();
            trial.entries.clear();
            let check_at = |at| {
                let mut wire = datagram(Component::Client(0), Class::Stun, 100);
                wire.at = at;
                (at, Entry::Wire(wire))
            };
            trial.entries.push(check_at(Duration::ZERO));
            for time in 1..=times {
                let since = Duration::from_secs(70) * time;
                let checks = (0..1_600).map(|check| Duration::from_millis(12) * check);
                trial
                    .entries
                    .extend(checks.map(|after| check_at(since + after)));
                let announcement = Entry::ToPortal {
                    from: Component::Client(0),
                    event: "broadcast_ice_candidates".to_owned(),
                    resource: None,
                    connected: true,
                };
                trial.entries.push((since, announcement));
            }
            trial.entries.sort_by_key(|(at, _)| *at);
        })
    };
    assert_eq!(woken(1), BTreeSet::new());
    assert!(woken(3).contains(&14));
}

#[test]
fn a15_allocations_that_nobody_can_have() {
    assert!(broken_by(|trial| trial.snapshot.allocations[0] = 100).contains(&15));
}

#[test]
fn a16_gateway_that_starts_a_handshake() {
    let numbers = |wire: &Wire| -> Vec<u8> { wire::check(wire).iter().map(|b| b.0).collect() };
    let of_gateway = |class| datagram(Component::Gateway(0), class, 148);
    assert_eq!(numbers(&of_gateway(Class::WireGuard(1))), [16]);
    assert_eq!(numbers(&of_gateway(Class::Channel(1))), [16]);
    assert_eq!(numbers(&of_gateway(Class::WireGuard(2))), [] as [u8; 0]);
    let of_client = datagram(Component::Client(0), Class::WireGuard(1), 148);
    assert_eq!(numbers(&of_client), [] as [u8; 0]);
}

#[test]
fn a17_datagram_that_is_too_long() {
    let long = |len| datagram(Component::Client(0), Class::Channel(4), len);
    assert_eq!(wire::check(&long(1_316)), []);
    assert_eq!(wire::check(&long(1_317))[0].0, 17);
}

#[test]
fn a18_connections_to_sites_that_nobody_uses() {
    let broken = broken_by(|trial| trial.snapshot.clients[0].connections = 2);
    assert!(broken.contains(&18));
}

#[test]
fn a19_deadline_that_stays_due() {
    #[expect(clippy::disallowed_methods, reason = "only differences to it are used")]
    let now = Instant::now();
    let late = now + Duration::from_nanos(1);
    let who = Component::Client(0);
    assert!(time::stays_due(who, Some(now), now).is_some());
    assert_eq!(time::stays_due(who, Some(late), now), None);
    assert_eq!(time::stays_due(who, None, now), None);
}

#[test]
fn a20_list_that_is_not_what_was_granted() {
    let shorter = broken_by(|trial| {
        trial.snapshot.clients[0].resources.pop();
    });
    let offline = broken_by(|trial| {
        trial.snapshot.clients[0].resources[0].status = ResourceStatus::Offline;
    });
    let reversed = broken_by(|trial| trial.snapshot.clients[0].resources.reverse());
    let switched_off = broken_by(|trial| trial.snapshot.clients[0].resources[0].enabled = false);
    for broken in [shorter, offline, reversed, switched_off] {
        assert!(broken.contains(&20));
    }
}

#[test]
fn a20_list_that_is_announced_again() {
    let broken = broken_by(|trial| {
        let list = trial.snapshot.clients[0].resources.clone();
        for _ in 0..2 {
            let (client, list) = (0, list.clone());
            trial.add(Entry::Resources { client, list });
        }
    });
    assert!(broken.contains(&20));
}

#[test]
fn a21_connections_that_are_not_made_stay_silent_or_end() {
    let without = |event: fn(&TcpEvent) -> bool| {
        broken_by(|trial| {
            let entries = &mut trial.entries;
            entries.retain(|(_, entry)| !matches!(entry, Entry::Tcp { event: e, .. } if event(e)));
        })
    };
    let ended = broken_by(|trial| {
        trial.add(Entry::Tcp {
            connection: 0,
            event: TcpEvent::Closed,
        });
    });
    let given_up = broken_by(|trial| {
        trial.model.topology.loss = 10;
        for (_, entry) in &mut trial.entries {
            if let Entry::Tcp { event, .. } = entry
                && *event == TcpEvent::Established
            {
                *event = TcpEvent::Closed;
            }
        }
    });
    assert!(given_up.contains(&21));
    let ran_out_of_patience = |loss: u8| {
        broken_by(|trial| {
            trial.model.topology.loss = loss;
            for (_, entry) in &mut trial.entries {
                if let Entry::Tcp { event, .. } = entry
                    && matches!(event, TcpEvent::Received(_))
                {
                    *event = TcpEvent::Closed;
                }
            }
        })
    };
    assert!(ran_out_of_patience(0).contains(&21));
    assert!(!ran_out_of_patience(10).contains(&21));
    assert!(without(|event| *event == TcpEvent::Established).contains(&21));
    assert!(without(|event| matches!(event, TcpEvent::Received(_))).contains(&21));
    assert!(ended.contains(&21));
}

#[test]
fn a22_error_event() {
    let failures = logs::with(None, || {
        let mut case = Case::new(&Topology::default());
        tracing::error!("must never happen");
        case.step(&Transition::Idle { seconds: 1 });
        case.failures
    });
    assert!(failures.iter().any(|(_, failure)| failure.assertion == 22));
}

#[test]
fn a23_messages_that_are_not_legal() {
    let asks = |resource| Entry::ToPortal {
        from: Component::Client(0),
        event: "create_flow".to_owned(),
        resource: Some(resource),
        connected: true,
    };
    let too_soon = broken_by(|trial| {
        trial.add(asks(0));
        trial.add(asks(0));
    });
    let not_granted = broken_by(|trial| trial.add(asks(2)));
    let without_connection = broken_by(|trial| {
        trial.add(Entry::ToPortal {
            from: Component::Client(0),
            event: "broadcast_ice_candidates".to_owned(),
            resource: None,
            connected: false,
        });
    });
    for broken in [too_soon, not_granted, without_connection] {
        assert_eq!(broken, BTreeSet::from([23]));
    }
}

#[test]
fn breaches_that_the_world_sees_itself_are_failures() {
    let broken = broken_by(|trial| {
        trial.add(Entry::Violation {
            assertion: 19,
            text: "time stands still".to_owned(),
        });
    });
    assert_eq!(broken, BTreeSet::from([19]));
}

/// Numbers of the assertions that fail after a change.
fn broken_by(change: impl FnOnce(&mut Trial)) -> BTreeSet<u8> {
    static SOUND: LazyLock<Trial> = LazyLock::new(Trial::sound);
    let mut trial = SOUND.clone();
    change(&mut trial);
    trial
        .check()
        .iter()
        .map(|failure| failure.assertion)
        .collect()
}

/// What "too big" reports in the step.
const MTU: [u8; 4] = [0, 0, 4, 176];

/// A datagram of a probe, taken apart.
struct Flow {
    source: SocketAddr,
    destination: SocketAddr,
    number: u64,
}

impl Trial {
    /// As if access had been granted earlier.
    fn drop_requests(&mut self) {
        let is_request = |entry: &Entry| matches!(entry, Entry::ToPortal { event, .. } if event == "create_flow");
        self.entries.retain(|(_, entry)| !is_request(entry));
        self.memory.intents.clear();
    }

    /// Probes, queries and connections that all do what they should.
    fn sound() -> Self {
        let mut case = Case::new(&topology());
        case.step(&query(&[(RecordType::A, "web.example", Transport::Udp)]));
        case.step(&open_tcp([10, 1, 0, 9]));
        case.step_only(&[
            query(&[
                (RecordType::A, "out.example", Transport::Udp),
                (RecordType::A, "out.example", Transport::Tcp),
            ]),
            Transition::Send {
                client: 0,
                probes: vec![
                    probe(Destination::Host([10, 1, 0, 7].into())),
                    probe(Destination::Name("web.example".to_owned(), Family::V4, 0)),
                    probe(Destination::Host([10, 1, 0, 66].into())),
                ],
            },
            Transition::UseTcp {
                connection: 0,
                from: Side::Application,
            },
            open_tcp([10, 1, 0, 8]),
        ]);
        assert_eq!(case.failures, []);
        let mut trial = Self {
            snapshot: case.world.snapshot(),
            model: case.model,
            expected: case.last.expected,
            entries: case.last.entries,
            memory: Memory::default(),
        };
        let mut memory = Memory::default();
        check(&trial.evidence(), &mut memory);
        memory.intents.clear();
        memory.flows.clear();
        trial.memory = memory;
        trial
    }

    fn evidence(&self) -> Evidence<'_> {
        Evidence {
            model: &self.model,
            expected: &self.expected,
            entries: &self.entries,
            snapshot: &self.snapshot,
        }
    }

    fn check(&self) -> Vec<super::Failure> {
        check(&self.evidence(), &mut self.memory.clone())
    }

    /// Adds something at the end.
    fn add(&mut self, entry: Entry) {
        let at = self.entries.last().map_or(Duration::ZERO, |(at, _)| *at);
        self.entries.push((at + Duration::from_millis(1), entry));
    }

    fn find(&self, is_meant: impl Fn(&Entry) -> bool) -> usize {
        let found = self.entries.iter().position(|(_, entry)| is_meant(entry));
        found.expect("the sound trace has it")
    }

    fn arrival(&self, probe: u64) -> usize {
        self.find(|entry| matches!(entry, Entry::Arrival { packet, .. } if probe_number(packet) == Some(probe)))
    }

    fn reply(&self, probe: u64) -> usize {
        self.find(|entry| matches!(entry, Entry::Return { packet, .. } if probe_number(packet) == Some(probe)))
    }

    fn response(&self, number: u64) -> usize {
        self.find(
            |entry| matches!(entry, Entry::DnsResponse { query: Some(of), .. } if *of == number),
        )
    }

    fn config(&mut self) -> &mut connlib_model::TunConfig {
        self.snapshot.clients[0].config.as_mut().unwrap()
    }

    fn remove_arrival(&mut self, probe: u64) {
        let index = self.arrival(probe);
        self.entries.remove(index);
    }

    fn packet(&mut self, index: usize) -> &mut IpPacket {
        match &mut self.entries[index].1 {
            Entry::Arrival { packet, .. } | Entry::Return { packet, .. } => packet,
            other => panic!("{other:?} is no packet"),
        }
    }

    /// Changes a probe's packet.
    fn change_packet(&mut self, index: usize, change: impl FnOnce(&mut Flow)) {
        let packet = self.packet(index);
        let view = packet.view();
        let udp = view.as_udp().unwrap();
        let mut flow = Flow {
            source: SocketAddr::new(view.source(), udp.source_port()),
            destination: SocketAddr::new(view.destination(), udp.destination_port()),
            number: probe_number(packet).unwrap(),
        };
        change(&mut flow);
        let payload = flow.number.to_be_bytes();
        *packet = make::udp_packet(flow.source, flow.destination, &payload).unwrap();
    }

    /// Changes the error of the unreachable host: its second word, and the packet that it is about.
    fn change_error(&mut self, word: [u8; 4], change: impl FnOnce(&mut [u8])) {
        const ERROR_LEN: usize = 20 + 8;
        let index = self.find(
            |entry| matches!(entry, Entry::Return { packet, .. } if packet.view().icmp_error().is_some()),
        );
        let packet = self.packet(index);
        let mut embedded = packet.as_slice()[ERROR_LEN..].to_vec();
        change(&mut embedded);
        let (from, to) = (packet.source(), packet.destination());
        *packet = make::icmpv4_message(from, to, 64, (3, 4, word), &embedded).unwrap();
    }

    /// Changes the response to the query over UDP.
    fn change_response(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let index = self.response(OVER_UDP);
        if let Entry::DnsResponse { message, .. } = &mut self.entries[index].1 {
            change(message);
        }
    }
}
