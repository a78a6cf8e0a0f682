//! Coverage points: named places in production code that the simulation counts its visits to.
//!
//! A log line that a test greps for is reworded one day and the check rots; a point is a name at the place itself.
//! Whoever removes the code removes the point with it.
//!
//! ```
//! fn route(known: bool) {
//!     if known {
//!         connlib_cover::cover!("routing/to-cidr");
//!     }
//! }
//! # route(true);
//! ```
//!
//! * Names are `group/what-happened`: lower case, digits, `-`, and one `/`.
//! * The counters belong to the thread: cases that run in parallel, each on its own thread, do not see each other.
//! * Without the feature `sim`, [`cover!`] expands to nothing and the counters are always empty. Counting therefore never
//!   influences a decision.
#![deny(missing_docs)]

use std::collections::BTreeMap;

/// How often each point was visited, by name.
pub type Counts = BTreeMap<&'static str, u64>;

/// Counts one visit of the point with this name, a string literal; with `if condition`, only when it holds.
///
/// Without the feature `sim` it expands to nothing, and the condition is type-checked but never evaluated.
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! cover {
    ($name:literal) => {
        $crate::hit($name)
    };
    ($name:literal if $condition:expr) => {
        if $condition {
            $crate::hit($name);
        }
    };
}

/// Counts one visit of the point with this name, a string literal; with `if condition`, only when it holds.
///
/// Without the feature `sim` it expands to nothing, and the condition is type-checked but never evaluated.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! cover {
    ($name:literal) => {
        ()
    };
    ($name:literal if $condition:expr) => {
        if false {
            let _: bool = $condition;
        }
    };
}

#[cfg(feature = "sim")]
thread_local! {
    static COUNTS: std::cell::RefCell<Counts> = const { std::cell::RefCell::new(Counts::new()) };
}

/// Counts one visit; what [`cover!`] expands to.
#[cfg(feature = "sim")]
#[doc(hidden)]
pub fn hit(name: &'static str) {
    COUNTS.with_borrow_mut(|counts| *counts.entry(name).or_default() += 1);
}

/// Forgets the counts of this thread: the start of a case.
pub fn reset() {
    take();
}

/// The counts of this thread since the last [`reset`] or [`take`], and starts again from nothing.
pub fn take() -> Counts {
    #[cfg(feature = "sim")]
    return COUNTS.take();
    #[cfg(not(feature = "sim"))]
    Counts::new()
}

/// The counts of this thread since the last [`reset`] or [`take`].
pub fn snapshot() -> Counts {
    #[cfg(feature = "sim")]
    return COUNTS.with_borrow(Clone::clone);
    #[cfg(not(feature = "sim"))]
    Counts::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit() {
        cover!("test/visited");
    }

    #[cfg(feature = "sim")]
    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "that threads are apart is what is tested"
    )]
    fn counts_per_name_and_thread_until_taken() {
        reset();
        visit();
        visit();
        cover!("test/other");
        std::thread::spawn(|| {
            visit();
            assert_eq!(snapshot().get("test/visited"), Some(&1));
        })
        .join()
        .expect("the other thread does not panic");

        assert_eq!(
            snapshot(),
            Counts::from([("test/other", 1), ("test/visited", 2)])
        );
        assert_eq!(take().len(), 2);
        assert_eq!(snapshot(), Counts::new());
    }

    #[cfg(feature = "sim")]
    #[test]
    fn a_condition_decides() {
        reset();
        for number in 0..5 {
            cover!("test/even" if number % 2 == 0);
        }

        assert_eq!(take(), Counts::from([("test/even", 3)]));
    }

    #[cfg(not(feature = "sim"))]
    fn unreachable_condition() -> bool {
        panic!("a condition is not evaluated without the feature");
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn counts_nothing_without_the_feature() {
        visit();
        cover!("test/conditional" if unreachable_condition());
        // A call would not be allowed in a constant.
        const NOTHING: () = {
            cover!("test/constant");
        };
        let () = NOTHING;
        assert_eq!(take(), Counts::new());
    }
}
