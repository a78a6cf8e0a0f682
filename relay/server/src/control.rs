//! `POST /log_filter?directives=…` for operators (relay spec §3.1).

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use axum::{Router, extract::Query, http::StatusCode, routing::post};
use connlib_logging::Guard;

use crate::{cli::Cli, health};

/// Serves in the background, if there is an address to serve at.
pub(crate) async fn serve(cli: &Cli, logging: &Arc<Guard>) -> Result<()> {
    let Some(address) = cli.control_endpoint else {
        return Ok(());
    };
    let logging = Arc::clone(logging);
    let set_filter = move |Query(query): Query<BTreeMap<String, String>>| {
        std::future::ready(set_filter(&logging, &query))
    };
    let router = Router::new().route("/log_filter", post(set_filter));
    health::listen(address, "--control-endpoint", router).await
}

fn set_filter(logging: &Guard, query: &BTreeMap<String, String>) -> (StatusCode, String) {
    let Some(directives) = query.get("directives") else {
        let hint = "give ?directives=…, e.g. debug\n".to_owned();
        return (StatusCode::BAD_REQUEST, hint);
    };
    match logging.set_filter(directives) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}
