//! What is going on, on stderr: one line that changes at a terminal, a line per message elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use demo::interrupt;

/// How often a wait tells how much of it is left, and looks whether somebody asked to stop.
const TICK: Duration = Duration::from_millis(100);

/// Writes to stderr; results go to stdout.
pub(crate) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Whether lines replace each other.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Replaces the line.
    pub(crate) fn say(&self, text: &str) {
        match self.is_terminal {
            true => eprint!("\r\x1b[K{text}"),
            false => eprintln!("{text}"),
        }
        let _ = std::io::stderr().flush();
    }

    /// Writes a line that stays.
    pub(crate) fn say_for_good(&self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// Sleeps, counting down at a terminal.
    ///
    /// # Errors
    ///
    /// If somebody asked to stop.
    pub(crate) fn wait(&self, what: &str, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let mut told = None;
        loop {
            interrupt::check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let seconds = left.as_secs_f64().ceil() as u64;
            if told.is_none() || (self.is_terminal && told != Some(seconds)) {
                self.say(&format!("{what} ({seconds} s left)"));
                told = Some(seconds);
            }
            thread::sleep(left.min(TICK));
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
