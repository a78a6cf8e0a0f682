//! Metrics, and a line in the log now and then (relay spec §3.6).
//!
//! Workers publish what they have counted once a second; here it is added up when somebody asks.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
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

/// Renders metrics for whoever scrapes them.
pub(crate) struct Metrics {
    shared: Arc<Shared>,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Self {
            shared,
            recorder,
            handle,
        }
    }

    /// Prometheus text.
    pub(crate) fn render(&self) -> String {
        let statistics = self.shared.statistics();
        metrics::with_local_recorder(&self.recorder, || export(&statistics));
        self.handle.render()
    }
}

/// Labels come from fixed sets only: nothing that a client chooses.
fn export(statistics: &Statistics) {
    let Statistics {
        allocations,
        channels,
        relay,
        io,
    } = statistics;
    metrics::gauge!("relay_active_allocations").set(*allocations as f64);
    metrics::gauge!("relay_bound_channels").set(*channels as f64);
    metrics::counter!("relay_relayed_bytes_total").absolute(relay.relayed_bytes);
    metrics::counter!("relay_relayed_packets_total").absolute(relay.relayed_packets);
    metrics::counter!("relay_hairpinned_bytes_total").absolute(relay.hairpinned_bytes);
    metrics::counter!("relay_rate_limited_replies_total").absolute(relay.rate_limited);
    metrics::counter!("relay_policy_refusals_total").absolute(relay.policy_refusals);
    metrics::counter!("relay_bind_failures_total").absolute(relay.bind_failures);
    for ((message, code), count) in &relay.responses {
        let (class, code) = match code {
            None => ("success", String::new()),
            Some(code) => ("error", code.to_string()),
        };
        let labels = [
            ("message_type", message.name().to_owned()),
            ("response_class", class.to_owned()),
            ("error_code", code),
        ];
        metrics::counter!("relay_responses_total", &labels).absolute(*count);
    }
    let drops = relay.drops;
    for (reason, count) in [
        ("malformed", drops.malformed),
        ("no_channel", drops.no_channel),
        ("unknown_peer", drops.unknown_peer),
        ("oversized", drops.oversized),
        ("bad_source", drops.bad_source),
        ("over_limit", drops.over_limit),
        ("queue_full", io.sent.queue_full),
        ("refused", io.sent.refused),
        ("receive_buffer_full", io.receive_overruns),
        ("sibling_busy", io.sibling_busy),
    ] {
        metrics::counter!("relay_drops_total", "reason" => reason).absolute(count);
    }
    metrics::counter!("relay_sent_datagrams_total").absolute(io.sent.datagrams);
    metrics::counter!("relay_send_calls_total").absolute(io.sent.calls);
    metrics::counter!("relay_received_trains_total").absolute(io.received_trains);
    metrics::counter!("relay_receive_calls_total").absolute(io.receive_calls);
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

    #[test]
    fn metrics_are_sums_over_workers_without_users() {
        let shared = Shared::new(2);
        for worker in 0..2 {
            let mut statistics = Statistics {
                allocations: 3,
                ..Statistics::default()
            };
            statistics.relay.relayed_packets = 10;
            shared.set_statistics(worker, statistics);
        }
        let text = Metrics::new(shared).render();
        assert!(text.contains("relay_active_allocations 6"), "{text}");
        assert!(text.contains("relay_relayed_packets_total 20"), "{text}");
    }
}
