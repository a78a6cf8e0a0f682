//! Metrics for an OpenTelemetry collector over gRPC: C-50.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value},
    metrics::v1::{NumberDataPoint, ResourceMetrics, metric::Data, number_data_point::Value},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{
    client::Client,
    process::{Launch, PATIENCE, Relay, ports, receive, socket},
};

const ARGUMENTS: [&str; 3] = ["--standalone", "--profile", "portal"];
/// An export every so often.
const SOON: &str = "export OTEL_METRIC_EXPORT_INTERVAL=100";
/// No export before the end.
const NEVER: &str = "export OTEL_METRIC_EXPORT_INTERVAL=3600000";

/// Keeps what it receives.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceMetrics>>>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let metrics = request.into_inner().resource_metrics;
        self.0.lock().unwrap().extend(metrics);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// Serves in the background.
    async fn listen(address: SocketAddr) -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = MetricsServiceServer::new(collector.clone());
        let incoming = TcpIncoming::from(listener);
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        (collector, address)
    }

    fn exports(&self) -> Vec<ResourceMetrics> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until the newest export is as wanted.
    async fn wait_for(&self, wanted: impl Fn(&Values) -> bool) -> Values {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let newest = self.exports().pop().map(|export| values(&export));
            if let Some(values) = newest.filter(&wanted) {
                return values;
            }
            let count = self.exports().len();
            assert!(
                Instant::now() < deadline,
                "{count} exports, none as expected"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Name, sorted labels as text, value.
type Values = BTreeMap<(String, String), i64>;

fn values(export: &ResourceMetrics) -> Values {
    let metrics = export.scope_metrics.iter().flat_map(|it| &it.metrics);
    let mut values = Values::new();
    for metric in metrics {
        for point in points(metric.data.as_ref().unwrap()) {
            let Some(Value::AsInt(value)) = point.value else {
                panic!("{point:?}");
            };
            let key = (metric.name.clone(), labels(&point.attributes));
            values.insert(key, value);
        }
    }
    values
}

fn points(data: &Data) -> &[NumberDataPoint] {
    match data {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic);
            &sum.data_points
        }
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    }
}

fn labels(attributes: &[KeyValue]) -> String {
    let labels: BTreeSet<_> = attributes
        .iter()
        .map(|it| format!("{}={}", it.key, text(it)))
        .collect();
    labels.into_iter().collect::<Vec<_>>().join(",")
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn value(values: &Values, name: &str, labels: &str) -> i64 {
    let key = (name.to_owned(), labels.to_owned());
    values.get(&key).copied().unwrap_or(0)
}

const SUCCESSFUL_ALLOCATE: &str = "error_code=,message_type=allocate,response_class=success";

fn launch(prelude: &str, collector: &str) -> Relay {
    let arguments = [&ARGUMENTS[..], &["--otlp-grpc-endpoint", collector]].concat();
    Launch {
        prelude,
        ..Launch::new(ports(), &arguments)
    }
    .ready()
}

/// Sends so many datagrams of a hundred bytes through the relay.
fn relay_datagrams(client: &mut Client, count: usize) {
    let peer = socket("127.0.0.1:0");
    for _ in 0..count {
        client.send(peer.local_addr().unwrap(), &[7; 100]);
        assert_eq!(receive(&peer).0, [7; 100]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_50_a_collector_receives_what_the_relay_counts() {
    let (collector, address) = Collector::listen((Ipv4Addr::LOCALHOST, 0).into()).await;
    let prelude = format!("{SOON} OTEL_RESOURCE_ATTRIBUTES=zone=eu,service.namespace=mine");
    let relay = launch(&prelude, &format!("localhost:{}", address.port()));
    let idle = collector.wait_for(|_| true).await;
    assert_eq!(value(&idle, "relay_active_allocations", ""), 0);

    let (mut client, _) = Client::allocated(relay.server(Ipv4Addr::LOCALHOST), "user");
    relay_datagrams(&mut client, 5);
    let bytes = |values: &Values| value(values, "relay_relayed_bytes_total", "");
    let busy = collector.wait_for(|it| bytes(it) == 500).await;
    assert_eq!(value(&busy, "relay_relayed_packets_total", ""), 5);
    assert_eq!(value(&busy, "relay_active_allocations", ""), 1);
    assert_eq!(value(&busy, "relay_bound_channels", ""), 1);
    let allocated = value(&busy, "relay_responses_total", SUCCESSFUL_ALLOCATE);
    assert_eq!(allocated, 1, "{busy:?}");
    relay_datagrams(&mut client, 5);
    collector.wait_for(|it| bytes(it) == 1000).await;

    // Under the same names as in Prometheus text.
    let scraped = relay.get("/metrics").unwrap().1;
    let types = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let scraped: BTreeSet<_> = types.filter_map(|it| it.split(' ').next()).collect();
    let sent: BTreeSet<_> = busy.keys().map(|(name, _)| name.as_str()).collect();
    assert_eq!(sent, scraped);

    let export = collector.exports().pop().unwrap();
    assert_eq!(
        export.scope_metrics[0].scope.as_ref().unwrap().name,
        "relay"
    );
    let resource = export.resource.unwrap().attributes;
    let resource: BTreeMap<_, _> = resource
        .iter()
        .map(|it| (it.key.as_str(), text(it)))
        .collect();
    assert_eq!(resource["service.name"], "relay");
    assert_eq!(
        (&resource["service.namespace"][..], &resource["zone"][..]),
        ("mine", "eu")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_50_the_last_values_are_sent_at_the_end() {
    let (collector, address) = Collector::listen((Ipv4Addr::LOCALHOST, 0).into()).await;
    let relay = launch(NEVER, &address.to_string());
    let (mut client, _) = Client::allocated(relay.server(Ipv4Addr::LOCALHOST), "user");
    relay_datagrams(&mut client, 3);
    assert!(collector.exports().is_empty());
    relay.terminate();
    relay.wait_for("/readyz", 503);
    relay.terminate();
    assert!(relay.wait().success());
    let last = collector.wait_for(|_| true).await;
    assert_eq!(value(&last, "relay_relayed_packets_total", ""), 3);
}

/// Takes connections and says nothing: the relay serves and ends all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_50_a_silent_collector_delays_nothing() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let relay = launch(SOON, &address);
    let connection = tokio::time::timeout(PATIENCE, silent.accept()).await;
    let _connection = connection.expect("the relay connects").unwrap();
    let (mut client, _) = Client::allocated(relay.server(Ipv4Addr::LOCALHOST), "user");
    relay_datagrams(&mut client, 3);
    assert_eq!(relay.get("/healthz").unwrap().0, 200);
    relay.terminate();
    relay.wait_for("/readyz", 503);
    relay.terminate();
    assert!(relay.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_50_a_collector_that_comes_late_is_found_and_its_absence_told_once() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let prelude = format!("{SOON} && exec >{}", log.path().display());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports()));
    let relay = launch(&prelude, &address.to_string());
    let complaints = || {
        let text = std::fs::read_to_string(log.path()).unwrap();
        text.matches("Cannot send metrics to the collector").count()
    };
    let deadline = Instant::now() + PATIENCE;
    while complaints() == 0 {
        assert!(Instant::now() < deadline, "nothing is said");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Many more attempts fail.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(complaints(), 1);
    let (collector, _) = Collector::listen(address).await;
    collector.wait_for(|_| true).await;
    assert_eq!(complaints(), 1);
    drop(relay);
}

#[test]
fn relay_50_an_absent_collector_delays_nothing() {
    // Nobody listens at that port.
    let relay = launch("true", "127.0.0.1:1");
    Client::allocated(relay.server(Ipv4Addr::LOCALHOST), "user");
    assert_eq!(relay.get("/healthz").unwrap().0, 200);
    assert_eq!(relay.get("/anything").unwrap().0, 404);
}
