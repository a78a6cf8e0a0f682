//! A19: deadlines are met and move on.

use std::time::Instant;

use crate::transition::Component;

/// What is wrong with a deadline right after its time-out was handled.
pub fn stays_due(who: Component, deadline: Option<Instant>, now: Instant) -> Option<String> {
    deadline
        .filter(|at| *at <= now)
        .map(|_| format!("{who:?} stays due after its time-out was handled"))
}
