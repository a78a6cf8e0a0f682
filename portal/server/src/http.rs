//! The paths: one per component and dialect, health and metrics (portal protocol §1.1–§1.4).

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::{
        ConnectInfo, RawQuery, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use connlib_messages::Dialect;
use portal_core::{Location, Login, LoginParameters, token::Component};
use tokio::sync::{mpsc, oneshot};

use crate::{
    actor::Input,
    connection::{self, MAX_FRAME, Presence, idle_timeout},
    metrics::Metrics,
    problem::Problem,
};

/// What every request needs.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trust_proxy_headers: bool,
}

/// The other end of a TCP connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Set once the connection is a WebSocket, which ends the time limit for requests.
    pub(crate) upgraded: Arc<AtomicBool>,
}

pub(crate) fn router(app: App) -> Router {
    use Component::{Client, Gateway, Relay};
    Router::new()
        .route("/client/websocket", websocket(Client, Dialect::Unversioned))
        .route("/client/v2/websocket", websocket(Client, Dialect::V2))
        .route(
            "/gateway/websocket",
            websocket(Gateway, Dialect::Unversioned),
        )
        .route("/gateway/v2/websocket", websocket(Gateway, Dialect::V2))
        .route("/relay/websocket", websocket(Relay, Dialect::Unversioned))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(app)
}

fn websocket(component: Component, dialect: Dialect) -> MethodRouter<App> {
    get(
        move |State(app): State<App>,
              ConnectInfo(peer): ConnectInfo<Peer>,
              RawQuery(query): RawQuery,
              headers: HeaderMap,
              upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>| async move {
            let login = login(&app, component, dialect, &peer, query.as_deref(), &headers);
            admit(app, login, peer, upgrade)
                .await
                .unwrap_or_else(IntoResponse::into_response)
        },
    )
}

async fn admit(
    app: App,
    login: Login,
    peer: Peer,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let (component, dialect) = (login.component, login.dialect);
    if login.token.is_none() {
        return Err(portal_core::ConnectError::MissingToken.into());
    }
    let upgrade = upgrade.map_err(|rejection| Problem {
        status: StatusCode::BAD_REQUEST,
        code: "invalid_connect_params",
        detail: rejection.body_text(),
    })?;
    let (answer, answered) = oneshot::channel();
    let login = Box::new(login);
    let sent = app.inputs.send(Input::Connect { login, answer }).await;
    sent.map_err(|_| unavailable())?;
    let admission = answered.await.map_err(|_| unavailable())??;
    let presence = Presence {
        id: admission.id,
        inputs: app.inputs,
    };
    let idle = idle_timeout(component, dialect);
    let upgrade = upgrade
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME);
    Ok(upgrade.on_upgrade(move |socket| {
        peer.upgraded.store(true, Ordering::Relaxed);
        connection::run(socket, admission, presence, idle)
    }))
}

fn unavailable() -> Problem {
    Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "restart",
        detail: "the portal is going away".to_owned(),
    }
}

fn login(
    app: &App,
    component: Component,
    dialect: Dialect,
    peer: &Peer,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Login {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let proxy_header = |name: &str| header(name).filter(|_| app.trust_proxy_headers);
    let pairs: Vec<_> = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()));
    // The header wins; older components know only the query.
    let bearer = header("x-authorization").and_then(|value| value.strip_prefix("Bearer "));
    let in_query = pairs.clone().find(|(name, _)| *name == "token");
    let token = bearer.or(in_query.map(|(_, value)| value));
    // The address that the nearest proxy saw is the last one.
    let forwarded = proxy_header("x-forwarded-for")
        .and_then(|list| list.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    Login {
        component,
        dialect,
        token: token
            .map(str::to_owned)
            .filter(|token| !token.trim().is_empty()),
        parameters: LoginParameters::from_query(pairs),
        user_agent: header("user-agent").map(str::to_owned),
        remote_ip: forwarded.unwrap_or_else(|| peer.address.ip().to_canonical()),
        location: Location::from_headers(
            proxy_header("x-geo-location-region"),
            proxy_header("x-geo-location-coordinates"),
        ),
    }
}

/// Healthy as long as the thread with the state answers.
async fn healthz(State(app): State<App>) -> Response {
    match stats(&app).await {
        Some(_) => "ok\n".into_response(),
        None => unavailable().into_response(),
    }
}

async fn metrics(State(app): State<App>) -> Response {
    match stats(&app).await {
        Some(stats) => app.metrics.render(&stats).into_response(),
        None => unavailable().into_response(),
    }
}

async fn stats(app: &App) -> Option<portal_core::Stats> {
    let (answer, answered) = oneshot::channel();
    app.inputs.send(Input::Stats(answer)).await.ok()?;
    answered.await.ok()
}
