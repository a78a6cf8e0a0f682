//! Metrics as Prometheus text, made when somebody asks (relay spec §3.6).

use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{
    instruments::{INSTRUMENTS, Instrument, Kind},
    shared::Shared,
    statistics::Statistics,
};

/// Renders metrics for whoever scrapes them.
pub(crate) struct Metrics {
    shared: Arc<Shared>,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || INSTRUMENTS.iter().for_each(describe));
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
        metrics::with_local_recorder(&self.recorder, || {
            for instrument in &INSTRUMENTS {
                record(instrument, &statistics);
            }
        });
        self.handle.render()
    }
}

fn describe(instrument: &Instrument) {
    let Instrument {
        name, description, ..
    } = *instrument;
    match instrument.kind {
        Kind::Counter => metrics::describe_counter!(name, description),
        Kind::Gauge => metrics::describe_gauge!(name, description),
    }
}

fn record(instrument: &Instrument, statistics: &Statistics) {
    let name = instrument.name;
    for reading in instrument.read(statistics) {
        match instrument.kind {
            Kind::Counter => metrics::counter!(name, &reading.labels).absolute(reading.value),
            Kind::Gauge => metrics::gauge!(name, &reading.labels).set(reading.value as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
