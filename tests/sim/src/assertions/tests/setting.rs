//! What the sound trace is made from.

use std::{net::SocketAddr, time::Duration};

use crate::{
    topology::{
        ClientSpec, Failure as Fault, Families, GatewaySpec, HostSpec, NameSpec, ResourceSpec,
        Target, Topology,
    },
    trace::{Class, Wire},
    transition::{
        Component, Destination, Probe, Protocol, Query, Question, RecordType, Transition, Transport,
    },
};

pub(super) fn topology() -> Topology {
    let gateway = |site| GatewaySpec {
        site,
        host: HostSpec::default(),
    };
    let resource = |target, site| ResourceSpec {
        target,
        site,
        filters: vec![],
    };
    let network = |text: &str| Target::Cidr(text.parse().unwrap());
    let name = |name: &str, v4: &[[u8; 4]]| NameSpec {
        name: name.to_owned(),
        v4: v4.iter().map(|ip| (*ip).into()).collect(),
        ..NameSpec::default()
    };
    Topology {
        sites: 2,
        gateways: vec![gateway(0), gateway(1)],
        clients: vec![ClientSpec {
            granted: vec![0, 1],
            system_dns: vec![[192, 0, 2, 53].into(), "2001:db8::53".parse().unwrap()],
            ..ClientSpec::default()
        }],
        resources: vec![
            resource(network("10.1.0.0/24"), 0),
            resource(Target::Dns("web.example".to_owned(), Families::Dual), 0),
            resource(network("10.2.0.0/24"), 1),
        ],
        names: vec![
            name("web.example", &[[10, 9, 0, 1], [10, 9, 0, 2]]),
            name("out.example", &[[192, 0, 2, 7]]),
        ],
        unreachable: vec![([10, 1, 0, 66].into(), Fault::TooBig(1_200))],
        ..Topology::default()
    }
}

pub(super) fn query(questions: &[(RecordType, &str, Transport)]) -> Transition {
    let queries = (1..).zip(questions);
    let queries = queries.map(|(id, (record, name, transport))| Query {
        question: Question::Records((*name).to_owned(), *record),
        server: 0,
        transport: *transport,
        id,
    });
    Transition::Query {
        client: 0,
        queries: queries.collect(),
    }
}

pub(super) fn open_tcp(to: [u8; 4]) -> Transition {
    Transition::OpenTcp {
        client: 0,
        to: Destination::Host(to.into()),
        port: 22,
        keep_alive: true,
    }
}

pub(super) fn probe(to: Destination) -> Probe {
    Probe {
        to,
        how: Protocol::Udp(80),
        source: None,
    }
}

pub(super) fn datagram(from: Component, class: Class, len: usize) -> Wire {
    Wire {
        at: Duration::ZERO,
        from,
        source: SocketAddr::from(([192, 0, 2, 1], 1)),
        destination: SocketAddr::from(([192, 0, 2, 2], 2)),
        len,
        class,
    }
}
