//! Medians and spreads.

use serde::Serialize;

/// What several runs of the same thing came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The lowest.
    pub(crate) min: f64,
    /// The highest.
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values = values.into_iter().collect::<Vec<_>>();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, min, max })
    }
}

/// How slow the slow ones are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// Half are at most this.
    pub(crate) p50: f64,
    /// 90 % are.
    pub(crate) p90: f64,
    /// 99 % are.
    pub(crate) p99: f64,
    /// All are.
    pub(crate) max: f64,
}

impl Percentiles {
    /// `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values = values.into_iter().collect::<Vec<_>>();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // The smallest value that at least this share of all does not exceed.
        let at = |share: f64| {
            values[((share * values.len() as f64).ceil() as usize).clamp(1, last + 1) - 1]
        };
        Some(Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: values[last],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_odd_count_is_the_middle_one() {
        let spread = Spread::of([5.0, 1.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 5.0));
    }

    #[test]
    fn median_of_an_even_count_is_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 100.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 100.0));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let percentiles = Percentiles::of((1..=200).map(f64::from)).unwrap();
        let Percentiles { p50, p90, p99, max } = percentiles;
        assert_eq!((p50, p90, p99, max), (100.0, 180.0, 198.0, 200.0));
        assert_eq!(Percentiles::of([7.0]).unwrap().p99, 7.0);
        assert_eq!(Percentiles::of([]), None);
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Spread::of([]), None);
    }
}
