//! Latencies, counted in buckets whose width grows with the value: any quantile to within 1.6 %, in 30 KB.

use serde::Serialize;

/// Buckets per power of two.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 6;
/// Powers of two of a `u64`, of which the lowest share one linear row.
const ROWS: usize = (u64::BITS - STEP_BITS) as usize + 1;

/// Counts durations in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

/// The quantiles that are reported, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// Half are below.
    pub(crate) p50_us: f64,
    /// 99 % are below.
    pub(crate) p99_us: f64,
    /// 99.9 % are below.
    pub(crate) p999_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

impl Histogram {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; ROWS * STEPS],
            count: 0,
            max: 0,
        }
    }

    /// Counts one duration.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// `None` if nothing was counted.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let us = |quantile: f64| self.quantile(quantile) as f64 / 1e3;
        (self.count > 0).then(|| Quantiles {
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: self.max as f64 / 1e3,
        })
    }

    /// The upper end of the bucket in which the quantile lies.
    fn quantile(&self, quantile: f64) -> u64 {
        let rank = (self.count as f64 * quantile).ceil() as u64;
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return upper_end(index).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - STEP_BITS).saturating_sub(value.leading_zeros());
    match shift {
        0 => value as usize,
        // The leading one of `value >> (shift - 1)` is the bit above the steps.
        _ => shift as usize * STEPS + ((value >> (shift - 1)) as usize - STEPS),
    }
}

fn upper_end(bucket: usize) -> u64 {
    let (row, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    match row {
        0 => step,
        _ => {
            let width = 1u128 << (row - 1);
            let end = (u128::from(step) + STEPS as u128 + 1) * width - 1;
            u64::try_from(end).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..200).chain((6..64).flat_map(|bit| {
            let power = 1u64 << bit;
            [power - 1, power, power + power / 3]
        })) {
            let index = bucket(value);
            assert!(value <= upper_end(index), "{value}");
            assert!(index == 0 || value > upper_end(index - 1), "{value}");
        }
        assert!(bucket(u64::MAX) < ROWS * STEPS);
    }

    #[test]
    fn quantiles_are_close() {
        let mut histogram = Histogram::new();
        for value in 1..=100_000 {
            histogram.record(value);
        }
        let quantiles = histogram.quantiles().unwrap();
        let near = |is: f64, should: f64| (is - should).abs() / should < 0.017;
        assert!(near(quantiles.p50_us, 50.0), "{quantiles:?}");
        assert!(near(quantiles.p99_us, 99.0), "{quantiles:?}");
        assert!(near(quantiles.p999_us, 99.9), "{quantiles:?}");
        assert!((quantiles.max_us - 100.0).abs() < 1e-9, "{quantiles:?}");
    }

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!(Histogram::new().quantiles(), None);
    }
}
