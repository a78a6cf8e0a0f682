//! A running program of the system: its log, its end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(10);

/// A child process whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its output appended to `<directory>/<name>.log`.
    ///
    /// # Errors
    ///
    /// If the file or the process cannot be made.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed so far, also under earlier processes of this name.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `condition` yields a value.
    ///
    /// # Errors
    ///
    /// If the process ends first, or `patience` does; the message shows the end of its log.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(value) = condition(&self.output()) {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before {what}; its log says:\n{}",
                    self.name,
                    self.tail()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: {what} did not happen within {patience:?}; its log says:\n{}",
                    self.name,
                    self.tail()
                );
            }
            crate::interrupt::check()?;
            thread::sleep(POLL);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(kill(id, signal)?)
    }

    /// Asks the process to end, then insists.
    ///
    /// # Errors
    ///
    /// If its end cannot be waited for.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.stop_by(Signal::SIGTERM, patience)
    }

    /// As [`Self::stop`], asking by another signal.
    ///
    /// # Errors
    ///
    /// If its end cannot be waited for.
    pub fn stop_by(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            // It may end just now.
            let _ = self.signal(signal);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Ends the process as a power cut would.
    ///
    /// # Errors
    ///
    /// If its end cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How the process ended, if it did.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn tail(&self) -> String {
        let output = self.output();
        let lines = output.lines().collect::<Vec<_>>();
        let start = lines.len().saturating_sub(15);
        lines[start..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whoever wants a farewell calls `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
