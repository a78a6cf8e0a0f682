//! Puts the parts together: file, records, state, sockets, reloads.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use portal_core::Portal;
use tokio::{net::TcpListener, runtime::Handle, sync::mpsc, task::JoinHandle};

use crate::{
    actor::{self, Input},
    config_file::{ConfigError, ConfigFile, ServerSettings},
    http::{self, App, Peer},
    listener::Listener,
    metrics::Metrics,
    store::Store,
    tls::Acceptor,
};

/// How long connections get to receive their Close frame when the portal ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// A running portal.
pub struct Server {
    config_path: PathBuf,
    settings: ServerSettings,
    local_addr: SocketAddr,
    inputs: mpsc::Sender<Input>,
    tls: Option<Acceptor>,
    http: JoinHandle<()>,
    state: thread::JoinHandle<()>,
}

impl Server {
    /// Starts a portal with a configuration that was read from `config_path`.
    ///
    /// # Errors
    ///
    /// When the records, the certificates or the address cannot be used.
    pub async fn start(config_path: &Path, config: ConfigFile) -> anyhow::Result<Self> {
        let settings = config.server;
        let store = Store::open(&settings.database)?;
        let stored = store.load(rand::random())?;
        let portal = Portal::new(config.portal, stored, rand::random(), actor::time());
        let tls = settings.tls.as_ref().map(Acceptor::new).transpose()?;
        let tcp = TcpListener::bind(settings.listen).await.with_context(|| {
            format!(
                "cannot listen on {}: set another `listen` in [server]",
                settings.listen
            )
        })?;
        let local_addr = tcp.local_addr()?;
        let (inputs, state) = actor::start(portal, store, Handle::current())?;
        let app = App {
            inputs: inputs.clone(),
            metrics: Arc::new(Metrics::new()),
            trust_proxy_headers: settings.trust_proxy_headers,
        };
        let listener = Listener::new(tcp, tls.clone(), settings.max_connections);
        let service = http::router(app).into_make_service_with_connect_info::<Peer>();
        let http = tokio::spawn(async move {
            // Runs until it is aborted.
            let _ = axum::serve(listener, service).await;
        });
        tracing::info!(address = %local_addr, tls = tls.is_some(), "portal is ready");
        Ok(Self {
            config_path: config_path.to_owned(),
            settings,
            local_addr,
            inputs,
            tls,
            http,
            state,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Reads the configuration again and tells everybody the differences.
    ///
    /// # Errors
    ///
    /// When the file has a mistake; then the old configuration stays in force.
    pub async fn reload(&self) -> Result<(), ConfigError> {
        let config = ConfigFile::read(&self.config_path)?;
        let restart_needed = ServerSettings {
            tls: self.settings.tls.clone(),
            ..config.server.clone()
        } != self.settings
            || config.server.tls.is_some() != self.settings.tls.is_some();
        if restart_needed {
            tracing::warn!("changes of [server] need a restart; everything else is in force");
        }
        if let (Some(tls), Some(files)) = (&self.tls, &config.server.tls)
            && let Err(error) = tls.reload(files)
        {
            tracing::warn!(%error, "keeping the old TLS certificate");
        }
        // Fails only when the portal ends anyway.
        let _ = self
            .inputs
            .send(Input::Reload(Box::new(config.portal)))
            .await;
        tracing::info!("configuration reloaded");
        Ok(())
    }

    /// Says goodbye to everybody (Close frame 1012) and ends.
    pub async fn shutdown(self) {
        let _ = self.inputs.send(Input::Shutdown).await;
        let state = self.state;
        let ended = tokio::task::spawn_blocking(move || drop(state.join()));
        let _ = tokio::time::timeout(GOODBYE, ended).await;
        // The tasks of connections write their Close frames now.
        tokio::time::sleep(GOODBYE / 10).await;
        self.http.abort();
    }
}
