//! `GET /healthz` and `GET /metrics` (clients spec §7.4).

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;

/// Serves in the background as long as the runtime lives. An occupied address is an error: whoever asks there would get
/// somebody else's answer.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .context("cannot install the metrics recorder")?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (--health-check-addr)"))?;
    let router = Router::new()
        .route("/healthz", get(|| async { "healthy\n" }))
        .route(
            "/metrics",
            get(move || std::future::ready(metrics.render())),
        );
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "The health endpoint ended");
        }
    });
    Ok(())
}
