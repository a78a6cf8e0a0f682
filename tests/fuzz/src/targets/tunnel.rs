//! The whole data plane in simulation, from the portal's messages to the packets on the wire.
//!
//! The decoder reads numbers of four bytes. The first is the seed of the starting point, each further one the seed of what
//! happens next, drawn by the strategies of `sim` from the state so far: a mutation changes one thing that happens, and
//! inputs can be cut, extended and crossed. Oracle: all assertions of `sim`.

use sim::{
    case::Case,
    generators::{Weights, draw, next, topology},
};

use crate::input::Input;

/// Most things that happen in one run.
const MAX_TRANSITIONS: usize = 30;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut number = || (!input.is_empty()).then(|| u64::from(u32::from_le_bytes(input.array())));
    let seed = number().unwrap_or_default();
    let mut case = Case::new(&draw(&topology(0), seed));
    for seed in std::iter::from_fn(number).take(MAX_TRANSITIONS) {
        let transition = draw(&next(&case.model, &Weights::default()), seed);
        case.step(&transition);
        assert!(case.is_sound(), "{:?}", case.failures.first());
    }
}

/// Different starting points, with a few things that happen.
pub fn seeds() -> Vec<Vec<u8>> {
    let numbers = |case: u32| (0..8).flat_map(move |i| (case * 1000 + i).to_le_bytes());
    (0..8).map(|case| numbers(case).collect()).collect()
}
