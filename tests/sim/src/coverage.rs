//! Coverage points (testing §7): which ones a case reached.

/// Starts counting for a case.
pub fn reset() {}

/// The points that were reached since.
pub fn take() -> Vec<String> {
    Vec::new()
}
