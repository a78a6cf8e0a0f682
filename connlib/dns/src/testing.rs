//! What tests of several modules share.

use std::time::Instant;

/// Some instant to count from.
#[allow(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made in any other way"
)]
pub(crate) fn start_time() -> Instant {
    Instant::now()
}
