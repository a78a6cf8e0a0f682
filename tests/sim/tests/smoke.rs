//! The thinnest path: one probe there and back.
use sim::{sut::World, topology::*, trace::Entry, transition::*};
use std::time::Duration;

#[test]
fn probe_travels_direct_and_relayed() {
    for block_direct in [false, true] {
        let topology = Topology {
            block_direct,
            clients: vec![ClientSpec {
                granted: vec![0],
                ..ClientSpec::default()
            }],
            resources: vec![ResourceSpec {
                target: Target::Cidr("10.1.0.0/24".parse().unwrap()),
                site: 0,
                filters: vec![],
            }],
            ..Topology::default()
        };
        let mut world = World::new(&topology);
        world.trace.entries.clear();
        world.apply(&Transition::Send {
            client: 0,
            probes: vec![Probe {
                to: Destination::Host("10.1.0.7".parse().unwrap()),
                how: Protocol::Icmp,
                source: None,
            }],
        });
        world.run_for(Duration::from_secs(5));
        for (at, e) in &world.trace.entries {
            if !matches!(e, Entry::Wire(_)) {
                println!("{at:?} {e:?}");
            }
        }
        println!("{:?}", world.paths(0));
        assert!(
            world
                .trace
                .entries
                .iter()
                .any(|(_, e)| matches!(e, Entry::Return { .. }))
        );
        assert_eq!(world.paths(0).iter().all(|p| p.is_direct()), !block_direct);
    }
}
