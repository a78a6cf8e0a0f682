//! Shrinking: the smallest case that breaks the same assertion, within bounds.

use std::time::{Duration, Instant};

use proptest::strategy::ValueTree;

use super::execute;
use crate::{topology::Topology, transition::Transition};

const MAX_ITERATIONS: usize = 400;
const MAX_TIME: Duration = Duration::from_secs(40);

/// The smallest case found.
#[expect(
    clippy::disallowed_methods,
    reason = "bounds the real time of a search; nothing of the simulation depends on it"
)]
pub(super) fn shrink<T>(tree: &mut T, failures: &[String]) -> (Topology, Vec<Transition>)
where
    T: ValueTree<Value = (Topology, Vec<Transition>)>,
{
    let wanted = kind(failures);
    let start = Instant::now();
    let mut smallest = tree.current();
    let mut go_on = tree.simplify();
    for _ in 0..MAX_ITERATIONS {
        if !go_on || start.elapsed() > MAX_TIME {
            break;
        }
        let (topology, transitions) = tree.current();
        let outcome = execute(&topology, &transitions, None);
        if outcome.failures.iter().any(|text| kind_of(text) == wanted) {
            smallest = (topology, transitions);
            go_on = tree.simplify();
        } else {
            go_on = tree.complicate();
        }
    }
    smallest
}

/// The assertion that broke first.
fn kind(failures: &[String]) -> Option<&str> {
    failures.first().and_then(|text| kind_of(text))
}

fn kind_of(text: &str) -> Option<&str> {
    match text.strip_prefix("step ") {
        Some(rest) => rest.split(": ").nth(1),
        None => Some("panic"),
    }
}
