//! Random cases: strategies for starting points and for what happens next.
//!
//! Addresses, names and patterns come from small pools on purpose, so that networks nest and coincide, names share
//! addresses, and message ids meet. There are no filters: what cannot be is not generated, or is skipped when applied.

mod choice;
mod happenings;
mod initial;
mod machine;
pub mod pools;

pub use machine::{Weights, sequence};
