//! Numbers for Prometheus. They are taken from the portal's state when somebody asks, so that nothing counts twice.

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use portal_core::Stats;

/// Turns numbers into the text format.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&recorder, || {
            use metrics::{describe_counter, describe_gauge};
            describe_gauge!("portal_connected", "Components that are joined, by kind");
            describe_gauge!("portal_devices", "Known devices");
            describe_gauge!("portal_authorizations", "Authorizations");
            describe_gauge!("portal_flows_pending", "Requests that wait for a gateway");
            describe_counter!("portal_flows_created_total", "Requests that were granted");
            describe_counter!("portal_flows_refused_total", "Requests that were refused");
            describe_counter!(
                "portal_logins_refused_total",
                "Connections that were refused"
            );
        });
        Self { recorder }
    }

    /// The text format.
    pub(crate) fn render(&self, stats: &Stats) -> String {
        with_local_recorder(&self.recorder, || {
            for (kind, count) in [
                ("client", stats.clients),
                ("gateway", stats.gateways),
                ("relay", stats.relays),
            ] {
                gauge!("portal_connected", "kind" => kind).set(count as f64);
            }
            gauge!("portal_devices").set(stats.devices as f64);
            gauge!("portal_authorizations").set(stats.authorizations as f64);
            gauge!("portal_flows_pending").set(stats.flows_pending as f64);
            counter!("portal_flows_created_total").absolute(stats.flows_created);
            counter!("portal_flows_refused_total").absolute(stats.flows_refused);
            counter!("portal_logins_refused_total").absolute(stats.logins_refused);
        });
        self.recorder.handle().render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_appear_with_their_names() {
        let stats = Stats {
            clients: 3,
            flows_created: 7,
            ..Stats::default()
        };
        let text = Metrics::new().render(&stats);
        assert!(
            text.contains("portal_connected{kind=\"client\"} 3"),
            "{text}"
        );
        assert!(text.contains("portal_flows_created_total 7"), "{text}");
    }
}
