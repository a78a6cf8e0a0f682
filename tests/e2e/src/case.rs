//! One scenario, and what is looked at after every one: nothing ended by itself, everything ends when asked, and the
//! logs hold no errors and no warnings but those that the scenario causes.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anyhow::{Context, Result};
use demo::{
    scenario::{Scenario, host},
    system::System,
};
use testbed::Topology;

use crate::logs::{self, Expected};

/// Programs that end by themselves when asked; the web server, say, is just cut off.
const GRACEFUL: [&str; 4] = [host::CLIENT, host::GATEWAY, host::RELAY, host::PORTAL];
/// Lines of each log that are shown when a scenario fails.
const TAIL: usize = 40;
/// Set to keep the directories of failed scenarios.
const KEEP_VARIABLE: &str = "E2E_KEEP";

/// A scenario.
pub struct Case {
    /// Its name, as the command line knows it.
    pub name: &'static str,
    /// The network between client and gateway.
    pub network: Scenario,
    /// Adds to the network.
    pub extend: fn(&mut Topology),
    /// What happens, and what has to come out of it.
    pub body: fn(&mut System) -> Result<()>,
    /// Warnings that it causes.
    pub expected: &'static [Expected],
    /// When it runs.
    pub lane: Lane,
}

/// When a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// From the start on, beside all others: it mostly waits.
    Beside,
    /// When it is its turn.
    Queue,
}

/// What went wrong.
#[derive(Debug)]
pub struct Failure {
    /// Everything that was not as it should be.
    pub problems: Vec<String>,
    /// Name and end of each process's log.
    pub logs: Vec<(String, String)>,
}

impl Case {
    /// A scenario of the queue, in the plain network, without warnings.
    pub const fn new(
        name: &'static str,
        network: Scenario,
        body: fn(&mut System) -> Result<()>,
    ) -> Self {
        Self {
            name,
            network,
            extend: |_| {},
            body,
            expected: &[],
            lane: Lane::Queue,
        }
    }

    /// Runs it on the calling thread, which the processes die with.
    ///
    /// # Errors
    ///
    /// Everything that was not as it should be, not just the first thing.
    pub fn run(&self) -> Result<(), Failure> {
        let mut topology = self.network.topology();
        (self.extend)(&mut topology);
        let mut system = match System::with_topology(self.network, &topology) {
            Ok(system) => system,
            Err(error) => {
                return Err(Failure {
                    problems: vec![format!("cannot build the network: {error:#}")],
                    logs: Vec::new(),
                });
            }
        };
        let mut problems = Vec::new();
        let body = catch_unwind(AssertUnwindSafe(|| (self.body)(&mut system)));
        match body {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problems.push(format!("{error:#}")),
            Err(panic) => problems.push(format!("panicked: {}", message(panic.as_ref()))),
        }
        if let Err(error) = self.look_around(&mut system, &mut problems) {
            problems.push(format!("cannot look around: {error:#}"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        let logs = logs::all(system.directory()).unwrap_or_default();
        let logs = logs
            .into_iter()
            .map(|(name, text)| (name, logs::tail(&text, TAIL)));
        let logs = logs.collect();
        if std::env::var_os(KEEP_VARIABLE).is_some() {
            system.keep_directory();
            problems.push(format!("everything is in {}", system.directory().display()));
        }
        Err(Failure { problems, logs })
    }

    fn look_around(&self, system: &mut System, problems: &mut Vec<String>) -> Result<()> {
        for (name, status) in system.ended()? {
            problems.push(format!("{name} ended by itself ({status})"));
        }
        for (name, status) in system.stop() {
            if GRACEFUL.contains(&name) && !status.success() {
                problems.push(format!("{name} did not end as it should ({status})"));
            }
        }
        for (name, text) in logs::all(system.directory()).context("no logs")? {
            for line in logs::unexpected(&name, &text, self.expected) {
                problems.push(format!("in the log of {name}: {line}"));
            }
        }
        Ok(())
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".to_owned())
}
