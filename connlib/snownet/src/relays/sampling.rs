//! Which relays are good enough for a new connection.

use std::time::Duration;

/// With one or two relays, how much slower than the fastest one is still good.
const FEW_RELAYS_FACTOR: u32 = 3;
const FEW_RELAYS_DIVISOR: u32 = 2;

/// How many median absolute deviations above the median are still good.
const DEVIATIONS: u32 = 3;

/// Smallest deviation that counts: relays that are equally far must not exclude each other by jitter.
const MIN_DEVIATION: Duration = Duration::from_millis(2);

/// The largest round-trip time with which a relay may still be chosen, or `None` without measurements.
pub(super) fn threshold(mut rtts: Vec<Duration>) -> Option<Duration> {
    rtts.sort_unstable();
    let fastest = *rtts.first()?;
    if rtts.len() <= 2 {
        return Some(fastest * FEW_RELAYS_FACTOR / FEW_RELAYS_DIVISOR);
    }
    let median = median(&rtts);
    let mut deviations: Vec<_> = rtts.iter().map(|rtt| rtt.abs_diff(median)).collect();
    deviations.sort_unstable();
    let deviation = self::median(&deviations).max(MIN_DEVIATION);
    Some(median + deviation * DEVIATIONS)
}

/// Median of a sorted, non-empty list; the mean of the two middle ones if their number is even.
fn median(sorted: &[Duration]) -> Duration {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_millis(rtts: &[u64]) -> Option<Duration> {
        threshold(rtts.iter().map(|ms| Duration::from_millis(*ms)).collect())
    }

    #[test]
    fn snownet_23_threshold_of_two_relays_is_half_above_the_fastest() {
        assert_eq!(of_millis(&[]), None);
        assert_eq!(of_millis(&[40]), Some(Duration::from_millis(60)));
        assert_eq!(of_millis(&[100, 40]), Some(Duration::from_millis(60)));
    }

    #[test]
    fn snownet_23_outlier_is_excluded_and_the_others_are_not() {
        let threshold = of_millis(&[20, 22, 21, 200, 19]).expect("measured");
        assert!(threshold < Duration::from_millis(200));
        assert!(threshold >= Duration::from_millis(22));
    }

    #[test]
    fn equal_relays_tolerate_jitter() {
        assert_eq!(of_millis(&[20, 20, 20]), Some(Duration::from_millis(26)));
    }
}
