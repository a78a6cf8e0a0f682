//! Coverage points (testing §7): in how many cases each was reached, and which are missing.

mod points;

use std::collections::BTreeMap;

pub use points::{POINTS, Point};

/// Starts counting for a case.
pub fn reset() {
    connlib_cover::reset();
}

/// The points that were reached since.
pub fn take() -> Vec<&'static str> {
    connlib_cover::take().into_keys().collect()
}

/// A point with the number of cases that reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The point.
    pub point: Point,
    /// Cases that reached it.
    pub cases: u64,
    /// Cases that must have.
    pub required: u64,
}

impl Row {
    /// Whether too few cases reached it.
    pub fn is_missing(&self) -> bool {
        self.cases < self.required
    }
}

/// All points after a run of `total` cases. A minimum is per 256 cases; for fewer it is scaled down, and a rare point is
/// not asked of a short run.
pub fn table(reached: &BTreeMap<&'static str, u64>, total: u64) -> Vec<Row> {
    let row = |point: &Point| Row {
        point: *point,
        cases: reached.get(point.name).copied().unwrap_or_default(),
        required: u64::from(point.min_cases) * total.min(256) / 256,
    };
    POINTS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_points_are_named_all_at_once() {
        let reached = BTreeMap::from([("routing/to-cidr", 256), ("routing/to-dns", 19)]);
        let rows = table(&reached, 256);
        let missing = |name: &str| {
            let row = rows.iter().find(|row| row.point.name == name);
            row.is_some_and(Row::is_missing)
        };
        assert!(!missing("routing/to-cidr"));
        assert!(missing("routing/to-dns"));
        assert!(missing("routing/to-none"));
    }

    #[test]
    fn short_runs_are_asked_for_less() {
        assert_eq!(table(&BTreeMap::new(), 64)[0].required, 5);
        assert!(
            table(&BTreeMap::new(), 2)
                .iter()
                .all(|row| !row.is_missing())
        );
    }
}
