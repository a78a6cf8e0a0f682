//! How many instructions a packet may cost: a committed file, by name of the case.
//!
//! Of cases that contain the cipher, the budget holds what comes on top of it: the cipher's own count depends on what the
//! processor offers, the rest does not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    Counts,
    case::{CASES, Case, Measured},
};

/// A build may differ by this much (other linker, other standard library) without being worse.
const TOLERANCE: f64 = 1.03;
/// Small counts may differ by this many instructions.
const SLACK: f64 = 3.0;

/// Instructions per packet above the cipher.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Budget(BTreeMap<String, f64>);

impl Budget {
    /// From the committed file.
    pub(crate) fn read() -> Result<Self> {
        let path = path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(serde_json::from_str(&text).with_context(|| {
            format!("{} is no budget", path.display())
        })?))
    }

    /// To the committed file.
    pub(crate) fn write(&self) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        std::fs::write(path(), text).context("cannot write the budget")
    }

    /// With these counts in place of what it holds for their cases.
    pub(crate) fn with(&self, counts: &Counts) -> Self {
        let mut budget = self.0.clone();
        let held = counted(counts).filter(|(case, _)| case.measured == Measured::Always);
        for (case, count) in held {
            let above = count - case.ground(counts);
            budget.insert(case.name.to_owned(), above.round());
        }
        budget.retain(|name, _| Case::find(name).is_some_and(|case| !case.is_cipher()));
        Self(budget)
    }

    /// Whether every counted case has a budget and keeps it.
    pub(crate) fn is_kept(&self, counts: &Counts) -> bool {
        counted(counts).all(|(case, count)| {
            let verdict = self.verdict(case, count - case.ground(counts));
            case.is_cipher() || [Verdict::Kept, Verdict::Unheld].contains(&verdict)
        })
    }

    fn verdict(&self, case: &Case, above: f64) -> Verdict {
        match self.0.get(case.name) {
            None if case.measured == Measured::OnDemand => Verdict::Unheld,
            None => Verdict::Unknown,
            Some(budget) if above <= budget * TOLERANCE + SLACK => Verdict::Kept,
            Some(_) => Verdict::Exceeded,
        }
    }

    /// For people.
    pub(crate) fn table(&self, counts: &Counts, version: &str) -> String {
        let mut text = format!(
            "Instructions per packet of 1280 bytes ({version}). Above: besides the bare cipher and its copy.\n\n\
             {:<42} {:>7} {:>7} {:>7}\n",
            "work", "all", "above", "budget"
        );
        for (case, count) in counted(counts) {
            // Writing to a string cannot fail.
            if case.is_cipher() {
                let _ = writeln!(text, "{:<42} {count:>7.0}", case.name);
                continue;
            }
            let above = count - case.ground(counts);
            let budget = self.0.get(case.name);
            let budget = budget.map_or("-".to_owned(), |budget| format!("{budget:.0}"));
            let _ = writeln!(
                text,
                "{:<42} {count:>7.0} {above:>7.0} {budget:>7}  {}",
                case.name,
                self.verdict(case, above).describe()
            );
        }
        text
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Kept,
    Exceeded,
    Unknown,
    /// There is none for such cases.
    Unheld,
}

impl Verdict {
    fn describe(self) -> &'static str {
        match self {
            Self::Kept => "ok",
            Self::Exceeded => "EXCEEDED",
            Self::Unheld => "",
            Self::Unknown => "NO BUDGET (packet-cost count --write)",
        }
    }
}

/// In the order of the list.
fn counted(counts: &Counts) -> impl Iterator<Item = (&'static Case, f64)> {
    CASES
        .iter()
        .filter_map(|case| Some((case, *counts.get(case.name)?)))
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(seal: f64) -> Counts {
        Counts::from([("cipher seal", 4000.0), ("wireguard seal", seal)])
    }

    #[test]
    fn the_cipher_is_nobodys_budget() {
        let budget = Budget::default().with(&counts(4300.0));
        assert_eq!(
            budget,
            Budget([("wireguard seal".to_owned(), 300.0)].into())
        );
    }

    #[test]
    fn a_few_instructions_more_are_kept_and_many_are_not() {
        let budget = Budget::default().with(&counts(4300.0));
        assert!(budget.is_kept(&counts(4312.0)));
        assert!(!budget.is_kept(&counts(4313.0)));
        assert!(!Budget::default().is_kept(&counts(4300.0)));
    }

    #[test]
    fn every_counted_case_has_a_budget_and_every_budget_a_case() {
        let budget = Budget::read().unwrap();
        let cases = CASES
            .iter()
            .filter(|case| !case.is_cipher() && case.measured == Measured::Always);
        let mut names = cases.map(|case| case.name).collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(budget.0.keys().collect::<Vec<_>>(), names);
    }
}
