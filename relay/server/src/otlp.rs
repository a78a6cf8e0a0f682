//! Metrics sent to an OpenTelemetry collector over gRPC (OTLP; relay spec §3.1, §3.6).
//!
//! Everything happens on the control thread: what workers publish for the health endpoint is read once per export. A
//! collector that is absent, slow or broken costs an export and one line in the log, nothing else.
//!
//! The environment variables of OpenTelemetry apply: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_EXPORTER_OTLP_HEADERS` and the like.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::{Context as _, Result};
use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider as _},
};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    metrics::{
        InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality,
        data::ResourceMetrics, exporter::PushMetricExporter as _, reader::MetricReader,
    },
    resource::EnvResourceDetector,
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use uuid::Uuid;

use crate::{
    cli::CollectorAddress,
    instruments::{INSTRUMENTS, Instrument, Kind, Reading},
    shared::Shared,
};

/// Time between exports if the environment does not say otherwise (OpenTelemetry's own default).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// Milliseconds between exports.
const INTERVAL_VARIABLE: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const SERVICE_NAME_VARIABLE: &str = "OTEL_SERVICE_NAME";
/// An export that takes longer is given up, so that a collector which does not answer holds one request at most.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever ends the program waits no longer than this for the collector.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Exports in the background.
pub(crate) struct Exporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts without waiting for the collector. Must be called within the runtime that exports.
    ///
    /// # Errors
    /// The environment asks for something that this program cannot do.
    pub(crate) fn start(collector: &CollectorAddress, shared: &Arc<Shared>) -> Result<Self> {
        let source = Source::new(collector, shared)
            .with_context(|| format!("--otlp-grpc-endpoint {}", collector.0))?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(export_until(stopped, source));
        Ok(Self { stop, task })
    }

    /// Exports what has been counted to the end, and ends.
    pub(crate) async fn finish(self) {
        // A task that has ended needs no word.
        let _ = self.stop.send(());
        if timeout(FLUSH_TIMEOUT, self.task).await.is_err() {
            tracing::debug!("The collector did not take the last metrics in time");
        }
    }
}

/// An export that is under way when the end comes is given up: the last one tells all that it would have told.
async fn export_until(stopped: oneshot::Receiver<()>, mut source: Source) {
    let interval = interval(std::env::var(INTERVAL_VARIABLE).ok().as_deref());
    let regularly = async {
        loop {
            tokio::time::sleep(interval).await;
            source.export().await;
        }
    };
    tokio::select! {
        () = regularly => {}
        _ = stopped => {}
    }
    source.export().await;
}

/// What is not a positive number of milliseconds counts as nothing, as OpenTelemetry wants it.
fn interval(variable: Option<&str>) -> Duration {
    let milliseconds = variable.and_then(|text| text.parse().ok());
    let interval = milliseconds.map(Duration::from_millis);
    interval
        .filter(|interval| !interval.is_zero())
        .unwrap_or(DEFAULT_INTERVAL)
}

/// Collects and sends.
struct Source {
    /// Holds the instruments.
    _provider: SdkMeterProvider,
    reader: Reader,
    exporter: MetricExporter,
    /// Reused by each export.
    metrics: ResourceMetrics,
    standing: Standing,
}

impl Source {
    fn new(collector: &CollectorAddress, shared: &Arc<Shared>) -> Result<Self> {
        let exporter = MetricExporter::builder()
            .with_tonic()
            .with_endpoint(&collector.0)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let reader = ManualReader::builder().with_temporality(exporter.temporality());
        let reader = Reader(Arc::new(reader.build()));
        let provider = SdkMeterProvider::builder()
            .with_resource(resource(std::env::var(SERVICE_NAME_VARIABLE).ok()))
            .with_reader(reader.clone())
            .build();
        let meter = provider.meter("relay");
        for instrument in &INSTRUMENTS {
            register(&meter, instrument, Arc::clone(shared));
        }
        Ok(Self {
            _provider: provider,
            reader,
            exporter,
            metrics: ResourceMetrics::default(),
            standing: Standing::Fine,
        })
    }

    async fn export(&mut self) {
        let result = self.try_export().await;
        self.standing = self.standing.after(result);
    }

    async fn try_export(&mut self) -> OTelSdkResult {
        self.reader.collect(&mut self.metrics)?;
        let export = timeout(EXPORT_TIMEOUT, self.exporter.export(&self.metrics));
        export
            .await
            .unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)))
    }
}

/// How the last export went. Only a change is logged: a collector that stays away must not fill the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Fine,
    Failing,
}

impl Standing {
    fn after(self, result: OTelSdkResult) -> Self {
        match (self, result) {
            (Self::Fine, Ok(())) => Self::Fine,
            (Self::Failing, Ok(())) => {
                tracing::info!("The collector takes metrics again");
                Self::Fine
            }
            (Self::Fine, Err(error)) => {
                tracing::warn!(%error, "Cannot send metrics to the collector; will keep trying");
                Self::Failing
            }
            (Self::Failing, Err(_)) => Self::Failing,
        }
    }
}

/// Who exports, unless the environment knows better. The instance tells several relays apart.
fn resource(service_name: Option<String>) -> Resource {
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "relay"),
            KeyValue::new("service.namespace", "firezone"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    match service_name {
        Some(name) if !name.is_empty() => resource.with_service_name(name),
        Some(_) | None => resource,
    }
    .build()
}

fn register(meter: &Meter, instrument: &'static Instrument, shared: Arc<Shared>) {
    let read = move || {
        let readings = instrument.read(&shared.statistics());
        readings
            .into_iter()
            .map(|Reading { labels, value }| (value, attributes(labels)))
    };
    match instrument.kind {
        Kind::Counter => {
            meter
                .u64_observable_counter(instrument.name)
                .with_description(instrument.description)
                .with_callback(move |observer| {
                    read().for_each(|(value, attributes)| observer.observe(value, &attributes));
                })
                .build();
        }
        Kind::Gauge => {
            meter
                .u64_observable_gauge(instrument.name)
                .with_description(instrument.description)
                .with_callback(move |observer| {
                    read().for_each(|(value, attributes)| observer.observe(value, &attributes));
                })
                .build();
        }
    }
}

fn attributes(labels: Vec<(&'static str, String)>) -> Vec<KeyValue> {
    let attributes = labels.into_iter();
    attributes
        .map(|(key, value)| KeyValue::new(key, value))
        .collect()
}

/// The provider's reader, which the exporting task asks too.
#[derive(Debug, Clone)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    #[test]
    fn intervals_from_the_environment() {
        assert_eq!(interval(Some("1500")), Duration::from_millis(1500));
        for text in [None, Some(""), Some("0"), Some("-1"), Some("soon")] {
            assert_eq!(interval(text), DEFAULT_INTERVAL, "{text:?}");
        }
    }

    #[test]
    fn the_environment_names_the_service() {
        let name = |variable: Option<&str>| {
            let resource = resource(variable.map(str::to_owned));
            resource.get(&Key::new("service.name")).unwrap().to_string()
        };
        assert_eq!(name(None), "relay");
        assert_eq!(name(Some("")), "relay");
        assert_eq!(name(Some("relay-eu")), "relay-eu");
    }

    #[test]
    fn instances_differ() {
        let instance = || resource(None).get(&Key::new("service.instance.id"));
        assert_ne!(instance(), instance());
    }
}
