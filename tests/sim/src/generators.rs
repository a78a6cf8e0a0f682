//! Random cases: strategies for starting points and for what happens next.
//!
//! Addresses, names and patterns come from small pools on purpose, so that networks nest and coincide, names share
//! addresses, and message ids meet. There are no filters: what cannot be is not generated, or is skipped when applied.

use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

mod choice;
mod happenings;
mod initial;
mod machine;
pub mod pools;

pub use happenings::next;
pub use initial::topology;
pub use machine::{Weights, sequence};

/// The randomness of a number, always the same.
pub fn random(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), rng)
}

/// What a strategy of this folder makes of a number, always the same.
pub fn draw<S: Strategy>(strategy: &S, seed: u64) -> S::Value {
    let tree = strategy.new_tree(&mut random(seed));
    tree.expect("strategies have no filters").current()
}
