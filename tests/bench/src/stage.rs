//! One network with our whole system in it.

use anyhow::Result;

use crate::{
    network::{Network, Route},
    progress::Progress,
    system::System,
};

/// Dropping it ends everything.
pub(crate) struct Stage {
    // Processes first, then the namespaces that they live in.
    pub(crate) system: System,
    pub(crate) network: Network,
    pub(crate) route: Route,
}

impl Stage {
    /// Builds the network and starts everything in it.
    pub(crate) fn start(route: Route, keep_logs: bool, progress: &Progress) -> Result<Self> {
        Self::with_workers(route, 1, keep_logs, progress)
    }

    /// As [`Self::start`], with so many workers of the gateway.
    pub(crate) fn with_workers(
        route: Route,
        workers: u16,
        keep_logs: bool,
        progress: &Progress,
    ) -> Result<Self> {
        progress.say(&format!(
            "starting portal, relay, gateway and client ({})",
            match route {
                Route::Direct => "direct path",
                Route::Relayed => "relayed path",
            }
        ));
        let network = Network::build(route)?;
        let mut system = System::start(&network, route, workers)?;
        if keep_logs {
            progress.say_for_good(&format!("logs are in {}", system.keep_logs().display()));
        }
        Ok(Self {
            system,
            network,
            route,
        })
    }
}
