//! Start-up, event loop and shutdown (clients spec §1.2).

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail};
use connlib_platform::{
    ClientDirectories, DeviceKind, DnsControl, NetworkChanges, ResolverChanges, Signal, Signals,
    Token, TunInterface,
};
use connlib_runtime::{Client, ClientEvent, ClientOptions};
use connlib_tun::Tun;
use phoenix_channel::{Component, DeviceInfo, LoginUrl, TokenPlacement, display_name};
use uuid::Uuid;

use crate::{cli::Cli, configure::Configurator};

/// How often the host's resolvers are looked at where the system tells of changes, in case it misses one.
const DNS_CHECK: Duration = Duration::from_secs(60);
/// How often where it does not.
const DNS_POLL: Duration = Duration::from_secs(5);

pub(crate) fn run(cli: Cli, token: Option<String>) -> Result<()> {
    let _logging = connlib_logging::setup(&connlib_logging::Options {
        process: "firezone-headless-client",
        version: env!("CARGO_PKG_VERSION"),
        directives: std::env::var("RUST_LOG").ok(),
        directory: cli.log_dir.clone(),
        stdout: connlib_logging::Stdout::Human,
    })?;

    // First of all: a crashed predecessor may have left the host without working DNS.
    let dns = DnsControl::new(cli.dns_control.into(), &cli.tun_name);
    dns.deactivate()
        .context("cannot repair the DNS settings of an earlier run")?;

    let token = connlib_platform::read_token(token.as_deref(), &cli.token_path)?;
    let login = login(&cli, &token)?;
    if cli.check {
        tracing::info!("Check passed");
        return Ok(());
    }
    if !connlib_platform::may_administer_network() {
        bail!(
            "the client needs root, or the capability CAP_NET_ADMIN, to make its network interface"
        );
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("firezone-control")
        .enable_all()
        .build()?;
    let result = runtime.block_on(session(&cli, login, dns));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn login(cli: &Cli, token: &Token) -> Result<LoginUrl> {
    let id = match cli.firezone_id.as_deref().map(str::trim) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => {
            let path = ClientDirectories::system().device_id();
            connlib_platform::load_or_create_device_id(&path, DeviceKind::Client)?
        }
    };
    let name = display_name(
        cli.firezone_name.as_deref(),
        connlib_platform::host_name().as_deref(),
        Uuid::new_v4(),
    );
    let (device_serial, device_uuid) = connlib_platform::hardware_identity();
    let device = DeviceInfo {
        device_serial,
        device_uuid,
        ..DeviceInfo::default()
    };
    let token = phoenix_channel::Token::new(token.expose());
    let login = LoginUrl::client(&cli.api_url, Some(token), &id, &name, device)
        .with_context(|| format!("--api-url {}", cli.api_url))?;
    Ok(login.with_token_placement(TokenPlacement::from_environment()?))
}

async fn session(cli: &Cli, login: LoginUrl, dns: DnsControl) -> Result<()> {
    let mut signals = Signals::new()?;
    let tun = Tun::open(&cli.tun_name, tun_options(cli))
        .with_context(|| format!("cannot make the network interface {}", cli.tun_name))?;
    let interface = TunInterface::attach(&cli.tun_name).await?;
    let mut configurator = Configurator::new(interface, dns);

    let mut resolvers = configurator.system_resolvers();
    let client = Client::start(
        ClientOptions {
            login,
            channel: channel_options(cli)?,
            system_resolvers: resolvers.clone(),
            use_internet_resource: cli.activate_internet_resource,
            offload: !cli.no_offload,
        },
        tun,
    )?;
    let result = events(cli, client, &mut configurator, &mut signals, &mut resolvers).await;
    configurator.restore().await;
    result
}

/// Handles events until somebody wants to stop, then says goodbye.
async fn events(
    cli: &Cli,
    mut client: Client,
    configurator: &mut Configurator,
    signals: &mut Signals,
    resolvers: &mut Vec<IpAddr>,
) -> Result<()> {
    let mut network = NetworkChanges::watch(&cli.tun_name)
        .inspect_err(
            |error| tracing::info!(%error, "Cannot watch the network; send SIGHUP after a change"),
        )
        .ok();
    let mut dns_changes = ResolverChanges::watch()
        .inspect_err(|error| {
            tracing::info!(%error, "Cannot watch the DNS configuration; looking at it every 5 s");
        })
        .ok();
    let mut dns_poll = tokio::time::interval(match dns_changes {
        Some(_) => DNS_CHECK,
        None => DNS_POLL,
    });
    dns_poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = client.next_event() => match event {
                Some(ClientEvent::TunConfigUpdated(config)) => {
                    let is_first = configurator.apply(config).await?;
                    if is_first {
                        if let Err(error) = connlib_platform::notify_ready() {
                            tracing::warn!(%error, "Cannot tell the service manager that the tunnel is ready");
                        }
                        if cli.exit {
                            break;
                        }
                    }
                }
                Some(ClientEvent::ResourcesChanged(resources)) => {
                    tracing::debug!(count = resources.len(), "Resources changed");
                    configurator.flush_dns();
                }
                Some(ClientEvent::Disconnected(error)) => bail!("Firezone disconnected: {error}"),
                Some(ClientEvent::Failed(error)) => {
                    return Err(error).context("the data path ended");
                }
                None => bail!("the data path ended"),
            },
            signal = signals.next() => match signal {
                Signal::Terminate => break,
                Signal::Hangup => {
                    tracing::info!("Starting the session afresh");
                    client.reset();
                }
            },
            () = network_change(&mut network) => {
                tracing::info!("The network changed; starting the session afresh");
                client.reset();
            }
            () = resolver_change(&mut dns_changes) => {
                update_resolvers(configurator, resolvers, &client);
            }
            _ = dns_poll.tick() => update_resolvers(configurator, resolvers, &client),
        }
    }
    tracing::info!("Saying goodbye");
    client.stop().await;
    Ok(())
}

/// Waits for a change of network; for ever if nobody watches.
async fn network_change(watcher: &mut Option<NetworkChanges>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for a change of the host's DNS configuration; for ever if nobody watches.
async fn resolver_change(watcher: &mut Option<ResolverChanges>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

/// Tells the data path which DNS servers the host has now, if they are others than before.
fn update_resolvers(configurator: &Configurator, resolvers: &mut Vec<IpAddr>, client: &Client) {
    let current = configurator.system_resolvers();
    if current != *resolvers {
        tracing::info!(count = current.len(), "The host's DNS servers changed");
        resolvers.clone_from(&current);
        client.set_system_resolvers(current);
    }
}

fn channel_options(cli: &Cli) -> Result<phoenix_channel::Options> {
    let version = env!("CARGO_PKG_VERSION");
    let mut options = phoenix_channel::Options::for_program(Component::Connlib, version)?;
    options.budget = cli.max_partition_time;
    Ok(options)
}

fn tun_options(cli: &Cli) -> connlib_tun::Options {
    connlib_tun::Options {
        offload: !cli.no_offload,
    }
}
