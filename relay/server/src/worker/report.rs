//! Metrics, and a line in the log now and then (relay spec §3.6).

use std::{
    fmt,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusRecorder;
use relay_core::Server;

use super::socket::SendCounters;

/// Metrics are at most this old while there is traffic.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// Time between lines in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) struct Reporter {
    recorder: PrometheusRecorder,
    metrics_at: Instant,
    logged_at: Instant,
    logged_bytes: u64,
}

impl Reporter {
    pub(crate) fn new(recorder: PrometheusRecorder, now: Instant) -> Self {
        Self {
            recorder,
            metrics_at: now,
            logged_at: now,
            logged_bytes: 0,
        }
    }

    /// Brings metrics and log up to date if it is time; whether it logged.
    pub(crate) fn report(&mut self, server: &Server, sent: SendCounters, now: Instant) -> bool {
        if now >= self.metrics_at {
            self.metrics_at = now + METRICS_INTERVAL;
            metrics::with_local_recorder(&self.recorder, || export(server, sent));
        }
        let elapsed = now.saturating_duration_since(self.logged_at);
        if elapsed < LOG_INTERVAL {
            return false;
        }
        let bytes = server.counters().relayed_bytes;
        let rate = (bytes - self.logged_bytes) as f64 / elapsed.as_secs_f64();
        (self.logged_at, self.logged_bytes) = (now, bytes);
        tracing::info!(
            allocations = server.allocation_count(),
            channels = server.channel_count(),
            throughput = %Throughput(rate),
            "Statistics"
        );
        true
    }
}

/// Labels come from fixed sets only: nothing that a client chooses.
fn export(server: &Server, sent: SendCounters) {
    let counters = server.counters();
    metrics::gauge!("relay_active_allocations").set(server.allocation_count() as f64);
    metrics::gauge!("relay_bound_channels").set(server.channel_count() as f64);
    metrics::counter!("relay_relayed_bytes_total").absolute(counters.relayed_bytes);
    metrics::counter!("relay_relayed_packets_total").absolute(counters.relayed_packets);
    metrics::counter!("relay_hairpinned_bytes_total").absolute(counters.hairpinned_bytes);
    metrics::counter!("relay_rate_limited_replies_total").absolute(counters.rate_limited);
    metrics::counter!("relay_policy_refusals_total").absolute(counters.policy_refusals);
    metrics::counter!("relay_bind_failures_total").absolute(counters.bind_failures);
    for ((message, code), count) in &counters.responses {
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
    let drops = counters.drops;
    for (reason, count) in [
        ("malformed", drops.malformed),
        ("no_channel", drops.no_channel),
        ("unknown_peer", drops.unknown_peer),
        ("oversized", drops.oversized),
        ("bad_source", drops.bad_source),
        ("queue_full", sent.queue_full),
        ("refused", sent.refused),
    ] {
        metrics::counter!("relay_drops_total", "reason" => reason).absolute(count);
    }
    metrics::counter!("relay_sent_datagrams_total").absolute(sent.datagrams);
    metrics::counter!("relay_send_calls_total").absolute(sent.calls);
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
