//! A case as a sequence that shrinks: transitions first, then the starting point.

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use super::{happenings, initial};
use crate::{model::Model, topology::Topology, transition::Transition};

/// What a run turns up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Factor of the weight of idling.
    pub idle: u32,
    /// Percentage of packets lost.
    pub loss: u8,
}

impl Default for Weights {
    fn default() -> Self {
        Self { idle: 1, loss: 0 }
    }
}

/// Transitions per case.
const LENGTH: std::ops::RangeInclusive<usize> = 5..=15;

/// The state that the strategies look at.
#[derive(Debug, Clone)]
struct State {
    model: Model,
    weights: Weights,
}

struct Machine;

thread_local! {
    /// The trait's starting strategy takes no argument.
    static WEIGHTS: std::cell::Cell<Weights> = const { std::cell::Cell::new(Weights { idle: 1, loss: 0 }) };
}

impl ReferenceStateMachine for Machine {
    type State = State;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<State> {
        let weights = WEIGHTS.get();
        initial::topology(weights.loss)
            .prop_map(move |topology| State {
                model: Model::new(&topology),
                weights,
            })
            .boxed()
    }

    fn transitions(state: &State) -> BoxedStrategy<Transition> {
        happenings::next(&state.model, &state.weights)
    }

    fn apply(mut state: State, transition: &Transition) -> State {
        if state.model.is_legal(transition) {
            state.model.apply(transition);
        }
        state
    }

    fn preconditions(state: &State, transition: &Transition) -> bool {
        state.model.is_legal(transition)
    }
}

/// A starting point and what happens.
pub fn sequence(weights: Weights) -> BoxedStrategy<(Topology, Vec<Transition>)> {
    WEIGHTS.set(weights);
    Machine::sequential_strategy(LENGTH)
        .prop_map(|(state, transitions, _)| (state.model.topology, transitions))
        .boxed()
}
