//! `GET /healthz`, `/readyz` and `/metrics` (relay spec §3.5, §3.6).

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::shared::Shared;

/// Serves in the background as long as the runtime lives. An occupied address is an error: whoever asks there would get
/// somebody else's answer.
pub(crate) async fn serve(
    address: SocketAddr,
    shared: Arc<Shared>,
    metrics: PrometheusHandle,
) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (--health-check-addr)"))?;
    let alive = Arc::clone(&shared);
    let router = Router::new()
        .route(
            "/healthz",
            get(move || std::future::ready(status(alive.is_alive()))),
        )
        .route("/readyz", get(move || std::future::ready(ready(&shared))))
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

/// The body tells which build answers.
fn ready(shared: &Shared) -> (StatusCode, &'static str) {
    let (code, _) = status(shared.is_ready());
    (code, concat!(env!("CARGO_PKG_VERSION"), "\n"))
}

fn status(is_fine: bool) -> (StatusCode, &'static str) {
    match is_fine {
        true => (StatusCode::OK, "healthy\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n"),
    }
}
