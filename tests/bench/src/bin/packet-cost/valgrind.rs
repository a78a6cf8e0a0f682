//! Counting the instructions of one function with `valgrind --tool=callgrind`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::case::{Case, Round};

/// Rounds that are counted: enough to average over growing buffers and the like.
const BATCHES: usize = 20;
/// Cases of single packets do more of them.
const SINGLES: usize = 200;
/// Rounds before, not counted: caches of decisions are filled, buffers have grown.
const WARM_UP: usize = 3;
/// The function between whose entry and return callgrind counts.
const COUNTED: &str = "*counted_by_callgrind*";

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

/// Instructions per packet.
///
/// # Errors
/// The case fails, or valgrind does.
pub(crate) fn count(case: &Case) -> Result<f64> {
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
