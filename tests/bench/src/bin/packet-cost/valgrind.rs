//! Counting the instructions of one function with `valgrind --tool=callgrind`.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{
    case::{CASES, Case, Cipher, Measured, Round},
    is_wanted,
};

/// Rounds that are counted: enough to average over growing buffers and the like.
const BATCHES: usize = 20;
/// Cases of single packets do more of them.
const SINGLES: usize = 200;
/// Rounds before, not counted: caches of decisions are filled, buffers have grown.
const WARM_UP: usize = 3;
/// The function between whose entry and return callgrind counts.
const COUNTED: &str = "*counted_by_callgrind*";

/// Instructions per packet, by name of the case.
pub(crate) type Counts = BTreeMap<&'static str, f64>;

/// Does the work of a case where callgrind sees it.
pub(crate) fn work(case: &Case, rounds: usize) {
    let mut round = case.start();
    for _ in 0..WARM_UP {
        round.prepare();
        round.work();
    }
    for _ in 0..rounds {
        round.prepare();
        counted_by_callgrind(&mut *round);
    }
    round.prepare();
}

#[inline(never)]
fn counted_by_callgrind(round: &mut dyn Round) {
    round.work();
    // Keeps the call from becoming a jump, which would hide the return.
    std::hint::black_box(());
}

/// What valgrind says about its version; `None`: it is not there.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Counts all wanted cases, and the bare cipher that they contain.
pub(crate) fn count_all(filter: Option<&str>) -> Result<Counts> {
    let mut counts = Counts::new();
    let wanted = CASES
        .iter()
        .filter(|case| case.measured == Measured::Both && is_wanted(case, filter));
    let grounds = CASES.iter().filter(|case| case.is_cipher());
    for case in grounds.chain(wanted) {
        if counts.contains_key(case.name) {
            continue;
        }
        eprintln!("counting {}", case.name);
        counts.insert(case.name, count(case)?);
    }
    Ok(counts)
}

fn count(case: &Case) -> Result<f64> {
    let rounds = match case.packets {
        1 => SINGLES,
        _ => BATCHES,
    };
    let directory = tempfile::tempdir()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!(
            "--callgrind-out-file={}",
            directory.path().join("out").display()
        ))
        .arg(std::env::current_exe()?)
        .args(["run", case.name, "--rounds", &rounds.to_string()])
        .output()
        .context("cannot start valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} failed under valgrind:\n{text}", case.name);
    }
    let total = parse(&text).with_context(|| format!("valgrind counted nothing:\n{text}"))?;
    Ok(total as f64 / (rounds * case.packets) as f64)
}

/// The line `==123== Collected : 456`.
fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    let count = line.rsplit(':').next()?.trim().parse().ok()?;
    (count > 0).then_some(count)
}

impl Case {
    /// Whether it is a ground that others stand on.
    pub(crate) fn is_cipher(&self) -> bool {
        [crate::case::CIPHER_SEAL, crate::case::CIPHER_OPEN].contains(&self.name)
    }

    /// The bare cipher's figure for the work that the case contains.
    pub(crate) fn ground(&self, figures: &BTreeMap<&'static str, f64>) -> f64 {
        let name = match self.cipher {
            Cipher::Seal => crate::case::CIPHER_SEAL,
            Cipher::Open => crate::case::CIPHER_OPEN,
            Cipher::None => return 0.0,
        };
        figures.get(name).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_the_line_that_has_it() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(parse(text), Some(123_456));
        assert_eq!(parse("==7== Collected : 0\n"), None);
    }
}
