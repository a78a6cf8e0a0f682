//! Traffic to both kinds of resources at once, while things happen.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use demo::{scenario::WEB_V4, steps::client_path, system::System};
use e2e::traffic::Traffic;

use crate::support::{app_address, client_host, eventually};

/// From the start of a new gateway or relay to the first answer.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(25);
/// From the end of a gateway or relay that says so to the first answer.
pub(crate) const BACK_AFTER_GOODBYE: Duration = Duration::from_secs(10);
/// Established traffic may pause so long: nothing but a busy machine stands in its way.
pub(crate) const HICCUP: Duration = Duration::from_millis(1500);

/// Pings to the DNS resource and to the CIDR resource.
pub(crate) struct Both {
    app: Traffic,
    web: Traffic,
}

impl Both {
    /// Starts everything, and the traffic; waits until it flows on the path that the network should end on.
    pub(crate) fn start(system: &mut System) -> Result<Self> {
        system.start_all()?;
        Self::of(system)
    }

    /// As [`Self::start`], where everything runs already.
    pub(crate) fn of(system: &System) -> Result<Self> {
        let app = app_address(system)?;
        let client = client_host(system)?;
        let started = Instant::now();
        let both = Self {
            app: Traffic::start(&client, app)?,
            web: Traffic::start(&client, WEB_V4.into())?,
        };
        both.wait_for_answers(started, BACK_WITHIN)?;
        let direct = system.scenario().expects_direct();
        eventually("the final path", Duration::from_secs(10), || {
            let path = client_path(system).context("no path yet")?;
            ensure!(
                direct.is_none_or(|direct| direct == path.is_direct()),
                "{path:?}"
            );
            Ok(())
        })?;
        Ok(both)
    }

    /// Waits until requests to both that were sent after `since` are answered.
    pub(crate) fn wait_for_answers(&self, since: Instant, patience: Duration) -> Result<()> {
        self.app.wait_for_answer(since, patience)?;
        self.web.wait_for_answer(since, patience)?;
        Ok(())
    }

    /// Fails if either paused for longer than a hiccup since then.
    pub(crate) fn ensure_steady(&self, since: Instant) -> Result<()> {
        for (name, traffic) in [("DNS", &self.app), ("CIDR", &self.web)] {
            let gap = traffic.longest_gap(since);
            ensure!(
                gap < HICCUP,
                "traffic to the {name} resource paused for {gap:?}"
            );
        }
        Ok(())
    }
}
