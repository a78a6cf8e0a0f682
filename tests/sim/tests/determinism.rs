//! The same seed is the same case, and the same case leads to the same datagrams (testing §5.12, design row 39).
//!
//! Keys, ICE transaction ids and time stamps of handshakes differ from run to run; who sends how much of what kind to whom,
//! and when, does not.

use std::time::Duration;

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sim::{
    case::Case,
    generators::{Weights, sequence},
    logs, runner,
    topology::Topology,
    trace::{Entry, Wire},
    transition::Transition,
};

const GENERATED: u64 = 1_000;
const EXECUTED: u64 = 50;
/// Not longer than needed: what differs does so from the first connection on.
const TRANSITIONS: usize = 6;
const MAX_IDLE: u64 = 60;

#[test]
fn generators_are_deterministic() {
    for seed in 0..GENERATED {
        let case = || format!("{:?}", runner::generate(seed, Weights::default()));
        assert_eq!(case(), case(), "seed {seed}");
    }
}

#[test]
fn seeds_differ() {
    let case = |seed| format!("{:?}", runner::generate(seed, Weights::default()));
    assert_ne!(case(1), case(2));
}

/// What shrinking does is a function of the seed as well.
#[test]
fn shrinking_is_deterministic() {
    let steps = |seed: u8| {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let mut tree = sequence(Weights::default())
            .new_tree(&mut runner)
            .expect("strategies have no filters");
        let mut seen = Vec::new();
        for step in 0..20 {
            if !tree.simplify() {
                break;
            }
            if step % 3 == 0 {
                tree.complicate();
            }
            seen.push(format!("{:?}", tree.current()));
        }
        seen
    };
    for seed in 0..20 {
        assert_eq!(steps(seed), steps(seed), "seed {seed}");
    }
}

#[test]
fn execution_is_deterministic() {
    for seed in 0..EXECUTED {
        let (topology, mut transitions) = runner::generate(seed, Weights::default());
        transitions.truncate(TRANSITIONS);
        transitions.iter_mut().for_each(shorten);
        let first = datagrams(&topology, &transitions);
        let second = datagrams(&topology, &transitions);
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!(
                "seed {seed}, datagram {at}: {:?} and {:?}",
                first[at], second[at]
            );
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert!(first.len() > 20, "seed {seed} does nothing");
    }
}

fn shorten(transition: &mut Transition) {
    if let Transition::Idle { seconds } | Transition::Stall { seconds, .. } = transition {
        *seconds = (*seconds).min(MAX_IDLE);
    }
}

/// Every datagram of a case, in order.
fn datagrams(topology: &Topology, transitions: &[Transition]) -> Vec<(Duration, Wire)> {
    logs::with(None, || {
        let mut case = Case::new(topology);
        let mut seen = take(&mut case);
        for transition in transitions {
            if case.model.is_legal(transition) {
                case.step(transition);
                seen.extend(take(&mut case));
            }
        }
        seen
    })
}

fn take(case: &mut Case) -> Vec<(Duration, Wire)> {
    let entries = std::mem::take(&mut case.last.entries).into_iter();
    let wires = entries.filter_map(|(at, entry)| match entry {
        Entry::Wire(wire) => Some((at, wire)),
        _ => None,
    });
    wires.collect()
}
