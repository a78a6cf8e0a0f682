//! Whether processes sleep when there is nothing to do.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::{counters::Counters, progress::Progress};

/// What is left over from before (acknowledgements, closing connections, path checks) is done by then.
const SETTLE: Duration = Duration::from_secs(20);

/// A process with nothing to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Idle {
    /// Who.
    pub(crate) process: String,
    /// Share of one CPU.
    pub(crate) cpu_percent: f64,
    /// How often a thread of it was woken up.
    pub(crate) wake_ups_per_second: f64,
    /// Memory that it occupies.
    pub(crate) rss_bytes: u64,
}

/// Lets everything settle, then watches processes, given as name and id.
pub(crate) fn watch(
    processes: &[(String, u32)],
    time: Duration,
    progress: &Progress,
) -> Result<Vec<Idle>> {
    progress.wait("letting everything settle", SETTLE)?;
    let read = || {
        let counters = processes.iter().map(|(_, id)| Counters::read(*id));
        counters.collect::<Result<Vec<_>>>()
    };
    let (before, since) = (read()?, Instant::now());
    progress.wait("watching whether everything sleeps", time)?;
    let seconds = since.elapsed().as_secs_f64();
    let grown = read()?
        .into_iter()
        .zip(before)
        .map(|(now, then)| now - then);
    Ok(processes
        .iter()
        .zip(grown)
        .map(|((process, _), grown)| Idle {
            process: process.clone(),
            cpu_percent: 100.0 * grown.cpu_seconds / seconds,
            wake_ups_per_second: grown.sleeps as f64 / seconds,
            rss_bytes: grown.rss_bytes,
        })
        .collect())
}
