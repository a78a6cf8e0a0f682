//! Counting instructions one by one, for cases whose preparation is too much for valgrind.
//!
//! The case runs in a process of its own, at full speed, and marks where its work begins and ends by signals to itself. In
//! between it is stepped (ptrace(2)), some microseconds per instruction. What is counted is what the processor executes,
//! AVX-512 included, which valgrind does not know: compare with other stepped counts only.

use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        ptrace,
        signal::{Signal, raise},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::case::{Case, Round};

/// Rounds that are counted.
const BATCHES: usize = 3;
/// Cases of single packets do more of them.
const SINGLES: usize = 200;
/// Rounds before, not counted: caches of decisions are filled, buffers have grown.
const WARM_UP: usize = 300;
/// Cases of single packets do so many that nearly each of 100 000 clients had its first one.
const WARM_UP_SINGLES: usize = 400_000;
/// Ready to be traced.
const READY: Signal = Signal::SIGSTOP;
const BEGIN: Signal = Signal::SIGUSR1;
const END: Signal = Signal::SIGUSR2;

/// Does the work of a case, under [`count`].
///
/// # Errors
/// The system does not let this process be traced.
pub(crate) fn work(case: &Case, rounds: usize) -> Result<()> {
    let mut round = case.start();
    let warm_up = match case.packets {
        1 => WARM_UP_SINGLES,
        _ => WARM_UP,
    };
    for _ in 0..warm_up {
        round.prepare();
        round.work();
    }
    ptrace::traceme().context("cannot be traced")?;
    raise(READY)?;
    marked(&mut Nothing)?;
    for _ in 0..rounds {
        round.prepare();
        marked(&mut *round)?;
    }
    Ok(())
}

#[inline(never)]
fn marked(round: &mut dyn Round) -> Result<()> {
    raise(BEGIN)?;
    round.work();
    raise(END)?;
    Ok(())
}

/// What the marks cost by themselves.
struct Nothing;

impl Round for Nothing {
    fn prepare(&mut self) {}
    fn work(&mut self) {}
}

/// Instructions per packet.
///
/// # Errors
/// The case fails, or the system does not let it be traced.
pub(crate) fn count(case: &Case) -> Result<f64> {
    let rounds = match case.packets {
        1 => SINGLES,
        _ => BATCHES,
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["run", case.name, "--stepped", "--rounds"])
        .arg(rounds.to_string())
        .spawn()
        .context("cannot start the case")?;
    let counts = trace(&child).with_context(|| format!("{} failed", case.name));
    if counts.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    let counts = counts?;
    let [marks, works @ ..] = &counts[..] else {
        bail!("{} did nothing", case.name);
    };
    let total: u64 = works.iter().map(|count| count.saturating_sub(*marks)).sum();
    Ok(total as f64 / (works.len() * case.packets) as f64)
}

/// Instructions between each pair of marks.
fn trace(child: &Child) -> Result<Vec<u64>> {
    let traced = Pid::from_raw(i32::try_from(child.id())?);
    let mut counts = Vec::new();
    loop {
        match waitpid(traced, None)? {
            WaitStatus::Stopped(_, READY) => {
                ptrace::setoptions(traced, ptrace::Options::PTRACE_O_EXITKILL)?;
                share_a_cpu(traced)?;
            }
            WaitStatus::Stopped(_, BEGIN) => counts.push(step(traced)?),
            WaitStatus::Exited(_, 0) => return Ok(counts),
            status => bail!("it ended early: {status:?}"),
        }
        ptrace::cont(traced, None)?;
    }
}

/// Steps to the end mark; returns how many instructions that took.
fn step(traced: Pid) -> Result<u64> {
    for count in 0.. {
        ptrace::step(traced, None)?;
        match waitpid(traced, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, END) => return Ok(count),
            status => bail!("it stopped in the middle: {status:?}"),
        }
    }
    unreachable!("the range does not end")
}

/// Each step is a switch to the other process and back, which is much quicker on one processor.
fn share_a_cpu(traced: Pid) -> Result<()> {
    let mut first = CpuSet::new();
    first.set(0)?;
    for process in [traced, Pid::from_raw(0)] {
        sched_setaffinity(process, &first)?;
    }
    Ok(())
}
