//! A server with established flows, and measurements on them: loads together with what they cost.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use testbed::Host;

use crate::{
    counters::Counters,
    turn::{
        flows::{Direction, Flows, Target},
        load::{self, Load, Outcome},
        network::Family,
    },
};

/// One load with its costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Measurement {
    /// What arrived.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// What the server's counters grew by meanwhile, if its process is known.
    pub(crate) server: Option<Counters>,
    /// Datagrams that did not fit into the generator's buffers: its own fault, counted as the server's loss all the same.
    pub(crate) generator_drops: u64,
}

impl Measurement {
    /// The server's CPU seconds per million datagrams that it delivered.
    pub(crate) fn cpu_seconds_per_million(&self) -> Option<f64> {
        let received = self.outcome.totals.received;
        (received > 0).then_some(())?;
        Some(self.server?.cpu_seconds * 1e6 / received as f64)
    }

    /// The server's CPUs in use.
    pub(crate) fn server_cores(&self) -> Option<f64> {
        Some(self.server?.cpu_seconds / self.outcome.seconds)
    }
}

/// Flows that are ready for loads.
pub(crate) struct Session {
    flows: Flows,
    server: Option<u32>,
    runs: u32,
}

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// IP versions.
    pub(crate) family: Family,
    /// Which way.
    pub(crate) direction: Direction,
    /// How many clients.
    pub(crate) allocations: usize,
}

impl Session {
    /// Allocates and binds everything, on the given host or here. `server` is the server's process, if known.
    ///
    /// # Errors
    ///
    /// If the server refuses or does not answer.
    pub(crate) fn establish(
        host: Option<&Host>,
        target: &Target,
        server: Option<u32>,
        shape: Shape,
        progress: impl FnMut(usize) -> Result<()> + Send,
    ) -> Result<Self> {
        let establish = || {
            Flows::establish(
                target,
                shape.family,
                shape.direction,
                shape.allocations,
                progress,
            )
        };
        let flows = match host {
            Some(host) => host.run(establish)?,
            None => establish()?,
        };
        Ok(Self {
            flows,
            server,
            runs: 0,
        })
    }

    /// Runs one load.
    ///
    /// # Errors
    ///
    /// If the system refuses something, the server has ended, or somebody asked to stop.
    pub(crate) fn measure(
        &mut self,
        load: Load,
        progress: impl FnMut(Duration),
    ) -> Result<Measurement> {
        self.runs += 1;
        let before = self.counters()?;
        let dropped = self.flows.drops();
        let outcome = load::run(&mut self.flows, load, self.runs, progress)?;
        let grown = self.counters()?.zip(before).map(|(now, then)| now - then);
        Ok(Measurement {
            outcome,
            server: grown,
            generator_drops: self.flows.drops() - dropped,
        })
    }

    /// Deletes the allocations.
    ///
    /// # Errors
    ///
    /// As [`Self::establish`].
    pub(crate) fn end(self) -> Result<()> {
        self.flows.free()
    }

    fn counters(&self) -> Result<Option<Counters>> {
        self.server.map(Counters::read).transpose()
    }
}
