//! What workers have counted, and a line in the log now and then (relay spec §3.6).
//!
//! Workers publish it once a second; it is added up when somebody asks.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use relay_core::Counters;

use crate::{shared::Shared, worker::IoCounters};

/// Time between lines in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What one worker has counted, or all together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics {
    pub(crate) allocations: usize,
    pub(crate) channels: usize,
    pub(crate) relay: Counters,
    pub(crate) io: IoCounters,
}

impl Statistics {
    pub(crate) fn add(&mut self, other: &Self) {
        self.allocations += other.allocations;
        self.channels += other.channels;
        self.relay.add(&other.relay);
        self.io.add(&other.io);
    }
}

/// Logs a line every ten seconds, for ever.
pub(crate) async fn log_regularly(shared: Arc<Shared>) {
    let (mut since, mut bytes_before) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(LOG_INTERVAL).await;
        let statistics = shared.statistics();
        let bytes = statistics.relay.relayed_bytes;
        let rate = bytes.saturating_sub(bytes_before) as f64 / since.elapsed().as_secs_f64();
        (since, bytes_before) = (Instant::now(), bytes);
        tracing::info!(
            allocations = statistics.allocations,
            channels = statistics.channels,
            throughput = %Throughput(rate),
            "Statistics"
        );
    }
}

/// Bytes per second for people: factor 1000, two decimals.
struct Throughput(f64);

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0;
        let mut units = ["B/s", "kB/s", "MB/s", "GB/s"].into_iter();
        for unit in &mut units {
            if value < 1000.0 {
                return write!(f, "{value:.2} {unit}");
            }
            value /= 1000.0;
        }
        write!(f, "{value:.2} TB/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // relay C-55
    #[test]
    fn relay_55_throughput() {
        for (bytes, text) in [
            (42.0, "42.00 B/s"),
            (1_234.0, "1.23 kB/s"),
            (955_333_999.0, "955.33 MB/s"),
            (1e11, "100.00 GB/s"),
            (2.5e12, "2.50 TB/s"),
            (0.0, "0.00 B/s"),
        ] {
            assert_eq!(Throughput(bytes).to_string(), text);
        }
    }
}
