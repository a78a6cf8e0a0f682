//! `GET /healthz`, `/readyz` and `/metrics` (relay spec §3.5, §3.6).

use std::{future::ready, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::{cli::Cli, prometheus::Metrics, shared::Shared};

/// Serves in the background as long as the runtime lives. An occupied address is an error: whoever asks there would get
/// somebody else's answer.
pub(crate) async fn serve(cli: &Cli, shared: &Arc<Shared>) -> Result<()> {
    let health = health(Arc::clone(shared));
    let metrics = metrics(Metrics::new(Arc::clone(shared)));
    match cli.metrics_addr {
        None => {
            let both = health.merge(metrics);
            listen(cli.health_check_addr, "--health-check-addr", both).await
        }
        Some(address) => {
            listen(cli.health_check_addr, "--health-check-addr", health).await?;
            listen(address, "--metrics-addr", metrics).await
        }
    }
}

pub(crate) async fn listen(address: SocketAddr, flag: &str, router: Router) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({flag})"))?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, %address, "An endpoint ended");
        }
    });
    Ok(())
}

fn health(shared: Arc<Shared>) -> Router {
    let alive = Arc::clone(&shared);
    Router::new()
        .route("/healthz", get(move || ready(status(alive.is_alive()))))
        .route("/readyz", get(move || ready(readiness(&shared))))
}

fn metrics(metrics: Metrics) -> Router {
    let metrics = Arc::new(metrics);
    Router::new().route("/metrics", get(move || ready(metrics.render())))
}

/// The body tells which build answers.
fn readiness(shared: &Shared) -> (StatusCode, &'static str) {
    let (code, _) = status(shared.is_ready());
    (code, concat!(env!("CARGO_PKG_VERSION"), "\n"))
}

fn status(is_fine: bool) -> (StatusCode, &'static str) {
    match is_fine {
        true => (StatusCode::OK, "healthy\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n"),
    }
}
