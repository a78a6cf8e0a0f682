//! Start-up, event loop and shutdown (clients spec §7.1).

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use connlib_model::ranges;
use connlib_platform::{DeviceKind, Masquerade, Signal, Signals, TunInterface, gateway_id_path};
use connlib_runtime::{DnsServer, Gateway, GatewayOptions, GatewayRuntimeEvent};
use connlib_tun::Tun;
use connlib_tunnel::TunAddresses;
use phoenix_channel::{
    Component, LoginUrl, Token, TokenPlacement, display_name, driver::find_token,
};
use uuid::Uuid;

use crate::{
    cli::{Cli, LogFormat},
    health,
};

pub(crate) fn run(cli: Cli, environment_token: Option<String>) -> Result<()> {
    if !cli.no_check && !connlib_platform::may_administer_network() {
        bail!(
            "the gateway needs root, or the capability CAP_NET_ADMIN, to make its network interface; \
             --no-check skips this check"
        );
    }
    let _logging = connlib_logging::setup(&connlib_logging::Options {
        process: "firezone-gateway",
        version: env!("CARGO_PKG_VERSION"),
        directives: std::env::var("RUST_LOG").ok(),
        directory: None,
        stdout: match cli.log_format {
            LogFormat::Human => connlib_logging::Stdout::Human,
            LogFormat::Json => connlib_logging::Stdout::Json,
        },
    })?;
    let token = find_token(environment_token.as_deref(), cli.token.as_deref())?;
    let login = login(&cli, token)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("firezone-control")
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(&cli, login));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn login(cli: &Cli, token: Token) -> Result<LoginUrl> {
    let id = match cli.firezone_id.as_deref().map(str::trim) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => connlib_platform::load_or_create_device_id(&gateway_id_path(), DeviceKind::Gateway)?,
    };
    let name = display_name(
        cli.firezone_name.as_deref(),
        connlib_platform::host_name().as_deref(),
        Uuid::new_v4(),
    );
    let login = LoginUrl::gateway(&cli.api_url, Some(token), &id, &name)
        .with_context(|| format!("--api-url {}", cli.api_url))?;
    Ok(login.with_token_placement(TokenPlacement::from_environment()?))
}

async fn serve(cli: &Cli, login: LoginUrl) -> Result<()> {
    let mut signals = Signals::new()?;
    health::serve(cli.health_check_addr).await?;
    if !cli.no_inc_buf {
        connlib_platform::raise_socket_buffer_limits();
    }
    let _masquerade = Masquerade::set_up(cli.masquerade)?;
    let tuns = Tun::open_queues(
        &cli.tun_name,
        connlib_tun::Options {
            offload: !cli.no_offload,
        },
        NonZeroUsize::new(cli.workers.into()).unwrap_or(NonZeroUsize::MIN),
    )
    .with_context(|| format!("cannot make the network interface {}", cli.tun_name))?;
    let mut interface = TunInterface::attach(&cli.tun_name).await?;
    let gateway = Gateway::start(
        GatewayOptions {
            login,
            channel: channel_options(cli)?,
            offload: !cli.no_offload,
        },
        tuns,
    )?;
    let result = events(gateway, &mut interface, &mut signals).await;
    interface.detach().await;
    result
}

/// Handles events until somebody wants to stop, then says goodbye.
async fn events(
    mut gateway: Gateway,
    interface: &mut TunInterface,
    signals: &mut Signals,
) -> Result<()> {
    let started = Instant::now();
    let mut current = None;
    let mut dns_server = None;
    loop {
        tokio::select! {
            event = gateway.next_event() => match event {
                Some(GatewayRuntimeEvent::TunAddresses(addresses)) => {
                    if current == Some(addresses) {
                        continue;
                    }
                    configure(interface, addresses).await?;
                    dns_server = serve_dns(dns_server, addresses).await;
                    if current.replace(addresses).is_none() {
                        let elapsed_ms = started.elapsed().as_millis();
                        tracing::info!(elapsed_ms, "Tunnel ready");
                        if let Err(error) = connlib_platform::notify_ready() {
                            tracing::warn!(%error, "Cannot tell the service manager that the tunnel is ready");
                        }
                    }
                }
                Some(GatewayRuntimeEvent::Disconnected(error)) => {
                    bail!("the portal ended the session: {error}");
                }
                Some(GatewayRuntimeEvent::Failed(error)) => {
                    return Err(error).context("the data path ended");
                }
                None => bail!("the data path ended"),
            },
            signal = signals.next() => match signal {
                Signal::Terminate => break,
                Signal::Hangup => {
                    tracing::info!("Starting the session afresh");
                    gateway.reset();
                }
            },
        }
    }
    tracing::info!("Saying goodbye");
    gateway.stop().await;
    Ok(())
}

/// Names that need more than an address are still looked up without it, so a failure is no reason to end.
async fn serve_dns(previous: Option<DnsServer>, addresses: TunAddresses) -> Option<DnsServer> {
    drop(previous);
    DnsServer::start(addresses)
        .await
        .inspect_err(|error| tracing::warn!(%error, "Cannot serve DNS to clients"))
        .ok()
}

async fn configure(interface: &mut TunInterface, addresses: TunAddresses) -> Result<()> {
    interface.set_addresses(addresses.v4, addresses.v6).await?;
    interface
        .set_routes(
            &BTreeSet::from([ranges::TUNNEL_V4]),
            &BTreeSet::from([ranges::TUNNEL_V6]),
        )
        .await?;
    Ok(())
}

fn channel_options(cli: &Cli) -> Result<phoenix_channel::Options> {
    let version = env!("CARGO_PKG_VERSION");
    let mut options = phoenix_channel::Options::for_program(Component::Connlib, version)?;
    options.budget = Some(cli.max_partition_time);
    Ok(options)
}
