//! Start-up, supervision and shutdown (relay spec §3, clients spec §7.6).

use std::{
    future::Future,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use connlib_stun::ChannelRange;
use phoenix_channel::{FatalError, LoginUrl, driver::find_token};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use relay_core::{
    Config, PeerPolicy, PortRange, PrivatePeers, PublicAddresses, Quota, Server, Shard, StampSecret,
};
use tokio::sync::oneshot;

use crate::{
    cli::{self, ChannelNumbers, Cli, LogFormat},
    control, health,
    otlp::Exporter,
    platform::{self, Signal, Signals},
    portal, secret_file,
    shared::Shared,
    statistics,
    worker::{BindOptions, Order},
    workers::Workers,
};

/// Descriptors that are not for allocations: listen sockets, portal, health checks, files.
const RESERVED_DESCRIPTORS: usize = 100;
/// Time between looks whether the last allocation is gone.
const EMPTY_POLL: Duration = Duration::from_millis(100);
/// Ports that each worker should have at least. A client cannot choose its worker, so with few ports one might have none
/// left while another has plenty.
const PORTS_PER_WORKER: usize = 256;

pub(crate) fn run(cli: Cli, environment_token: Option<String>) -> Result<()> {
    let logging = connlib_logging::setup(&connlib_logging::Options {
        process: "firezone-relay",
        version: env!("CARGO_PKG_VERSION"),
        directives: std::env::var("RUST_LOG").ok(),
        directory: None,
        stdout: match cli.log_format {
            LogFormat::Human => connlib_logging::Stdout::Human,
            LogFormat::Json => connlib_logging::Stdout::Json,
        },
    })?;
    let logging = Arc::new(logging);
    platform::no_core_dumps();
    let config = config(&cli)?;
    let login = match cli.standalone {
        true => None,
        false => {
            let token = find_token(environment_token.as_deref(), cli.token.as_deref())
                .map_err(|error| anyhow!("{error}, or use --standalone"))?;
            Some(portal::login(&cli, &config, token)?)
        }
    };
    let options = BindOptions {
        public: config.public,
        bind_v4: cli.bind_ip4_addr,
        bind_v6: cli.bind_ip6_addr,
        listen_port: config.listen_port,
        offload: !cli.no_offload,
    };
    let servers = servers(&cli, &config)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        control::serve(&cli, &logging).await?;
        serve(&cli, servers, options, login).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// One per worker, all with the same secret.
fn servers(cli: &Cli, config: &Config) -> Result<Vec<Server>> {
    let count = workers(cli, config)?;
    let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut rng = StdRng::from_seed(seed(cli)?);
    let secret = StampSecret::random(&mut rng);
    let servers = (0..count).map(|index| {
        let shard = Shard::new(index, count).context("no such worker")?;
        let config = Config {
            shard,
            max_allocations: shard.part_of(config.max_allocations),
            stamp_secret: Some(config.stamp_secret.clone().unwrap_or(secret.clone())),
            ..config.clone()
        };
        Ok(Server::new(config, rng.random(), Instant::now(), unix_now)?)
    });
    servers.collect()
}

async fn serve(
    cli: &Cli,
    servers: Vec<Server>,
    options: BindOptions,
    login: Option<LoginUrl>,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let shared = Shared::new(servers.len());
    let secret = servers.first().map(Server::stamp_secret).cloned();
    let secret = secret.context("there is no worker")?;
    let workers = Workers::start(servers, options, &shared)?;
    health::serve(cli, &shared).await?;
    tokio::spawn(statistics::log_regularly(Arc::clone(&shared)));
    let collector = cli.otlp_grpc_endpoint.as_ref();
    let exporter = collector.map(|it| Exporter::start(it, &shared));
    let exporter = exporter.transpose()?;
    let (leave, left) = oneshot::channel();
    let portal = attend_portal(login, secret, Arc::clone(&shared), left);
    let control = Control {
        workers,
        shared,
        leave,
        drain_timeout: cli.drain_timeout,
    };
    let result = supervise(control, portal, &mut signals).await;
    if let Some(exporter) = exporter {
        exporter.finish().await;
    }
    result
}

/// Stays with the portal, if there is one; ends only with an error that no retry mends.
async fn attend_portal(
    login: Option<LoginUrl>,
    secret: StampSecret,
    shared: Arc<Shared>,
    left: oneshot::Receiver<()>,
) -> FatalError {
    match login {
        Some(login) => match portal::run(login, &secret, shared, left).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        },
        None => {
            shared.set_joined(true);
            std::future::pending().await
        }
    }
}

/// What supervision acts through.
struct Control {
    workers: Workers,
    shared: Arc<Shared>,
    leave: oneshot::Sender<()>,
    drain_timeout: Duration,
}

/// Waits for whatever ends the program: a signal, the portal's final word, or a worker.
async fn supervise(
    mut control: Control,
    portal: impl Future<Output = FatalError>,
    signals: &mut Signals,
) -> Result<()> {
    tokio::pin!(portal);
    tokio::select! {
        result = control.workers.ended() => return result.and(Err(anyhow!("a worker ended"))),
        error = &mut portal => return outlive_portal(error, control, signals).await,
        signal = signals.next() => {
            if signal == Signal::Interrupt || control.drain_timeout.is_zero() {
                return control.workers.stop().await;
            }
        }
    }
    tracing::info!(
        allocations = control.shared.allocations(),
        timeout = ?control.drain_timeout,
        "Draining; a second signal ends it"
    );
    control.shared.set_draining();
    control.workers.give(Order::Drain);
    // The portal sends no new clients once its session has ended.
    let _ = control.leave.send(());
    let shared = Arc::clone(&control.shared);
    tokio::select! {
        result = control.workers.ended() => return result.and(Err(anyhow!("a worker ended"))),
        // The session has to be driven to its end; however it ends, the clients are served.
        () = async { portal.await; std::future::pending().await } => {}
        () = emptied(&shared) => {}
        () = tokio::time::sleep(control.drain_timeout) => {
            tracing::info!(allocations = control.shared.allocations(), "Drain time is over");
        }
        _ = signals.next() => {}
    }
    control.workers.stop().await
}

/// The last allocation is gone.
async fn emptied(shared: &Shared) {
    loop {
        tokio::time::sleep(EMPTY_POLL).await;
        if shared.allocations() == 0 {
            return;
        }
    }
}

/// The portal does not want this relay any more, but its clients still do: serve them to the end.
async fn outlive_portal(
    error: FatalError,
    mut control: Control,
    signals: &mut Signals,
) -> Result<()> {
    let error = anyhow!("the portal session ended: {error}");
    let allocations = control.shared.allocations();
    if allocations > 0 {
        tracing::error!(%error, allocations, "Serving the allocations that exist");
        let shared = Arc::clone(&control.shared);
        tokio::select! {
            result = control.workers.ended() => return result.and(Err(error)),
            _ = signals.next() => {}
            () = emptied(&shared) => {}
        }
    }
    control.workers.stop().await.and(Err(error))
}

/// What the program needs, from what was typed.
fn config(cli: &Cli) -> Result<Config> {
    let public = PublicAddresses::new(cli.public_ip4_addr, cli.public_ip6_addr)
        .context("give --public-ip4-addr or --public-ip6-addr")?;
    let ports = PortRange::new(cli.lowest_port, cli.highest_port)
        .context("--lowest-port, --highest-port")?;
    let mut config = match (cli.profile, cli.standalone) {
        (Some(cli::Profile::Open), false) => {
            bail!(
                "--profile open needs --standalone: with a portal, only bound channels may admit peers"
            )
        }
        (Some(cli::Profile::Portal), _) | (None, false) => Config::portal(public),
        (Some(cli::Profile::Open), true) | (None, true) => Config::open(public),
    };
    if !cli.static_user.is_empty() && !cli.standalone {
        bail!("--static-user needs --standalone: the portal mints all credentials");
    }
    if cli.ebpf_offloading.is_some() {
        bail!("--ebpf-offloading: this relay cannot relay in the kernel; leave it out");
    }
    config.quota = match cli.quota {
        cli::Quota::Replace => Quota::ReplaceOldest,
        cli::Quota::Refuse if cli.workers.is_none_or(|count| count.get() > 1) => {
            bail!("--quota refuse counts per worker, so it needs --workers 1")
        }
        cli::Quota::Refuse => Quota::Refuse,
    };
    config.max_bytes_per_second = cli.max_bytes_per_second;
    config.bound_addresses = bound_addresses(cli);
    config.listen_port = cli.listen_port;
    config.ports = ports;
    config.realm.clone_from(&cli.realm);
    config.refusals_per_second = cli.unauth_replies_per_second;
    config.challenge_only_with_username = cli.challenge_only_with_username;
    config.max_allocations = max_allocations(cli, &config);
    config.static_users = cli
        .static_user
        .iter()
        .map(|user| (user.name.clone(), user.password.clone()))
        .collect();
    config.peer_policy = peer_policy(cli);
    if let Some(numbers) = cli.channel_numbers {
        config.channel_numbers = match numbers {
            ChannelNumbers::Rfc8656 => ChannelRange::Strict,
            ChannelNumbers::Rfc5766 => ChannelRange::Wide,
        };
    }
    if let Some(limit) = cli.allocations_per_username {
        config.allocations_per_username = limit;
    }
    if let Some(path) = &cli.stamp_secret_file {
        let secrets = secret_file::load_or_create(path)?;
        config.stamp_secret = Some(secrets.present);
        config.previous_stamp_secret = secrets.previous;
    }
    Ok(config)
}

fn peer_policy(cli: &Cli) -> PeerPolicy {
    PeerPolicy {
        allow: cli.allow_peer_cidr.clone(),
        deny: cli.deny_peer_cidr.clone(),
        private: match cli.peer_policy {
            cli::PrivatePeers::Auto => PrivatePeers::Auto,
            cli::PrivatePeers::Allow => PrivatePeers::Allow,
            cli::PrivatePeers::Deny => PrivatePeers::Deny,
        },
    }
}

fn bound_addresses(cli: &Cli) -> Vec<IpAddr> {
    let bound = [IpAddr::V4(cli.bind_ip4_addr), IpAddr::V6(cli.bind_ip6_addr)];
    bound
        .into_iter()
        .filter(|ip| !ip.is_unspecified())
        .collect()
}

/// As many allocations as there can be sockets.
fn max_allocations(cli: &Cli, config: &Config) -> usize {
    let wanted = cli.max_allocations.unwrap_or(config.max_allocations);
    let Some(descriptors) = platform::raise_descriptor_limit() else {
        return wanted;
    };
    let per_allocation = config.public.iter().count().max(1);
    let possible = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / per_allocation;
    tracing::info!(descriptors, possible, "Allocations that open files allow");
    wanted.min(possible)
}

/// As many workers as asked for, or as there are processors; every one of them must have ports.
fn workers(cli: &Cli, config: &Config) -> Result<u16> {
    let pairs = usize::from(cli.highest_port / 2 - cli.lowest_port / 2) + 1;
    let count = match cli.workers {
        Some(wish) if usize::from(wish.get()) > pairs => {
            bail!("--workers {wish}: the port range has ports for at most {pairs}")
        }
        Some(wish) => wish.get().into(),
        None => {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            processors.min(config.ports.iter().count() / PORTS_PER_WORKER)
        }
    };
    Ok(u16::try_from(count.clamp(1, platform::max_workers()))?)
}

/// Seeds everything, the stamp secret included. A chosen seed makes all credentials predictable.
fn seed(cli: &Cli) -> Result<[u8; 32]> {
    let Some(seed) = cli.rng_seed else {
        return Ok(rand::rng().random());
    };
    let is_loopback = cli.public_ip4_addr.is_none_or(|ip| ip.is_loopback())
        && cli.public_ip6_addr.is_none_or(|ip| ip.is_loopback());
    if !is_loopback && !cli.standalone {
        bail!(
            "--rng-seed makes all credentials predictable; it is for loopback addresses and --standalone"
        );
    }
    tracing::warn!("--rng-seed makes all credentials predictable");
    Ok(StdRng::seed_from_u64(seed).random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn config_of(arguments: &[&str]) -> Result<Config> {
        let arguments = ["relay"].iter().chain(arguments);
        config(&Cli::try_parse_from(arguments).unwrap())
    }

    #[test]
    fn an_address_is_needed() {
        assert!(config_of(&[]).is_err());
        assert!(config_of(&["--public-ip6-addr", "2001:db8::1"]).is_ok());
    }

    // relay C-27
    #[test]
    fn relay_27_an_inverted_range_does_not_start() {
        let range = ["--lowest-port", "2000", "--highest-port", "1999"];
        let error = config_of(&[&["--public-ip4-addr", "192.0.2.1"][..], &range].concat());
        assert!(error.unwrap_err().to_string().contains("--lowest-port"));
    }

    #[test]
    fn the_open_profile_is_for_stand_alone_relays() {
        let address = ["--public-ip4-addr", "192.0.2.1"];
        let with = |more: &[&str]| config_of(&[&address[..], more].concat());
        assert!(with(&["--profile", "open"]).is_err());
        assert!(with(&["--static-user", "a:b"]).is_err());
        let open = with(&["--standalone"]).unwrap();
        assert_eq!(open.profile, relay_core::Profile::Open);
        assert_eq!(open.channel_numbers, ChannelRange::Wide);
        let portal = with(&["--standalone", "--profile", "portal"]).unwrap();
        assert_eq!(portal.profile, relay_core::Profile::Portal);
    }

    #[test]
    fn a_chosen_seed_is_for_tests() {
        let seeded = |more: &[&str]| {
            let base = ["relay", "--rng-seed", "1", "--public-ip4-addr"];
            seed(&Cli::try_parse_from(base.iter().chain(more)).unwrap())
        };
        assert!(seeded(&["192.0.2.1"]).is_err());
        assert!(seeded(&["192.0.2.1", "--standalone"]).is_ok());
        assert!(seeded(&["127.0.0.1"]).is_ok());
    }
}
