//! Small strategies.

use proptest::{
    prelude::*,
    sample::{Index, select, subsequence},
    strategy::Union,
};

/// One of several strategies, by weight. At least one weight is positive.
pub(super) fn weighted<T: std::fmt::Debug + 'static>(
    options: Vec<(u32, BoxedStrategy<T>)>,
) -> BoxedStrategy<T> {
    let options: Vec<_> = options
        .into_iter()
        .filter(|(weight, _)| *weight > 0)
        .collect();
    Union::new_weighted(options).boxed()
}

/// One of these.
pub(super) fn one_of<T: Clone + std::fmt::Debug + 'static>(
    values: impl Into<Vec<T>>,
) -> BoxedStrategy<T> {
    select(values.into()).boxed()
}

/// Some of these, in order; at least `least`.
pub(super) fn some_of<T: Clone + std::fmt::Debug + 'static>(
    values: impl Into<Vec<T>>,
    least: usize,
) -> BoxedStrategy<Vec<T>> {
    let values = values.into();
    let most = values.len();
    subsequence(values, least.min(most)..=most).boxed()
}

/// An index below `len`.
pub(super) fn below(len: usize) -> BoxedStrategy<usize> {
    any::<Index>()
        .prop_map(move |index| index.index(len))
        .boxed()
}
