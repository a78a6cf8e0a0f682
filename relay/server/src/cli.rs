//! The command line (relay spec §3.1, clients spec §1.6).

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::{NonZeroU16, NonZeroU64},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use ipnet::IpNet;

/// Firezone relay: passes on encrypted datagrams between clients and gateways that cannot reach each other directly.
///
/// The token comes from the environment variable FIREZONE_TOKEN.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "firezone-relay",
    version,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Subcommand>,

    /// IPv4 address that clients and peers reach this relay at.
    #[arg(long, env = "PUBLIC_IP4_ADDR", value_name = "ADDRESS")]
    pub(crate) public_ip4_addr: Option<Ipv4Addr>,

    /// IPv6 address that clients and peers reach this relay at.
    #[arg(long, env = "PUBLIC_IP6_ADDR", value_name = "ADDRESS")]
    pub(crate) public_ip6_addr: Option<Ipv6Addr>,

    /// Local IPv4 address to bind.
    #[arg(
        long,
        env = "BIND_IP4_ADDR",
        default_value = "0.0.0.0",
        value_name = "ADDRESS"
    )]
    pub(crate) bind_ip4_addr: Ipv4Addr,

    /// Local IPv6 address to bind.
    #[arg(
        long,
        env = "BIND_IP6_ADDR",
        default_value = "::",
        value_name = "ADDRESS"
    )]
    pub(crate) bind_ip6_addr: Ipv6Addr,

    /// Port that clients talk to.
    #[arg(long, env = "LISTEN_PORT", default_value_t = relay_core::config::DEFAULT_LISTEN_PORT)]
    pub(crate) listen_port: u16,

    /// Lowest port of allocations.
    #[arg(long, env = "LOWEST_PORT", default_value_t = 49152)]
    pub(crate) lowest_port: u16,

    /// Highest port of allocations.
    #[arg(long, env = "HIGHEST_PORT", default_value_t = 65535)]
    pub(crate) highest_port: u16,

    /// WebSocket URL of the portal.
    #[arg(short = 'u', long, env = "FIREZONE_API_URL", value_name = "URL")]
    pub(crate) api_url: Option<String>,

    /// Token; other users can see it, so prefer FIREZONE_TOKEN.
    #[arg(hide = true)]
    pub(crate) token: Option<String>,

    /// Name of this relay in the portal; the host name if not given.
    #[arg(env = "FIREZONE_NAME")]
    pub(crate) name: Option<String>,

    /// Send the token over an unencrypted connection to a public address.
    #[arg(long)]
    pub(crate) insecure_portal: bool,

    /// Serve without a portal, as an ordinary TURN server.
    #[arg(long)]
    pub(crate) standalone: bool,

    /// Which parts of TURN to serve; open if --standalone is given.
    #[arg(long, value_enum)]
    pub(crate) profile: Option<Profile>,

    /// User of a stand-alone relay, may be repeated; other users can see it, so prefer the environment.
    #[arg(long, env = "STATIC_USER", value_name = "NAME:PASSWORD", hide_env_values = true, value_delimiter = ',', value_parser = static_user)]
    pub(crate) static_user: Vec<StaticUser>,

    /// Keep the secret behind all credentials in this file, so that they survive restarts; created if absent.
    #[arg(long, env = "STAMP_SECRET_FILE", value_name = "FILE")]
    pub(crate) stamp_secret_file: Option<PathBuf>,

    /// Realm of the credentials; published clients refuse any other.
    #[arg(long, env = "REALM", default_value = connlib_stun::DEFAULT_REALM)]
    pub(crate) realm: String,

    /// Channel numbers that clients may choose: 0x4000-0x4fff, or 0x4000-0x7fff as in the older standard.
    #[arg(long, env = "CHANNEL_NUMBERS", value_enum)]
    pub(crate) channel_numbers: Option<ChannelNumbers>,

    /// Allocations of one user name, the oldest making room; 0 for any number.
    #[arg(long, env = "ALLOCATIONS_PER_USERNAME", value_name = "NUMBER")]
    pub(crate) allocations_per_username: Option<usize>,

    /// What becomes of a user who asks for more allocations than that.
    #[arg(long, env = "QUOTA", value_enum, default_value = "replace")]
    pub(crate) quota: Quota,

    /// Payload in bytes that one allocation may relay per second, both directions together.
    #[arg(long, env = "MAX_BYTES_PER_SECOND", value_name = "BYTES")]
    pub(crate) max_bytes_per_second: Option<NonZeroU64>,

    /// Most allocations at the same time; as many as file descriptors allow if not given.
    #[arg(long, env = "MAX_ALLOCATIONS", value_name = "NUMBER")]
    pub(crate) max_allocations: Option<usize>,

    /// Threads that relay; one per processor if not given. Only Linux can use more than one.
    #[arg(
        long,
        alias = "num-worker-threads",
        env = "NUM_WORKER_THREADS",
        value_name = "NUMBER"
    )]
    pub(crate) workers: Option<NonZeroU16>,

    /// Whether clients may talk to private networks: auto (if this relay is in one), allow, deny.
    #[arg(long, env = "PEER_POLICY", value_enum, default_value = "auto")]
    pub(crate) peer_policy: PrivatePeers,

    /// Network that clients may talk to in any case; may be repeated.
    #[arg(
        long,
        env = "ALLOW_PEER_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) allow_peer_cidr: Vec<IpNet>,

    /// Network that clients may not talk to; may be repeated.
    #[arg(
        long,
        env = "DENY_PEER_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) deny_peer_cidr: Vec<IpNet>,

    /// Unsigned refusals per second and source.
    #[arg(
        long,
        env = "UNAUTH_REPLIES_PER_SECOND",
        default_value_t = 20,
        value_name = "NUMBER"
    )]
    pub(crate) unauth_replies_per_second: u32,

    /// Ignore requests without a user name.
    #[arg(long, env = "CHALLENGE_ONLY_WITH_USERNAME")]
    pub(crate) challenge_only_with_username: bool,

    /// How long to serve existing allocations after SIGTERM, e.g. 60s; 0s to exit at once.
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "60s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) drain_timeout: Duration,

    /// Address of the health endpoint.
    #[arg(
        long,
        env = "HEALTH_CHECK_ADDR",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS"
    )]
    pub(crate) health_check_addr: SocketAddr,

    /// Address of the metrics endpoint; that of the health endpoint if not given.
    #[arg(long, env = "METRICS_ADDR", value_name = "ADDRESS")]
    pub(crate) metrics_addr: Option<SocketAddr>,

    /// Address of the control endpoint, best a loopback one: POST /log_filter?directives=… changes what is logged.
    #[arg(long, env = "CONTROL_ENDPOINT", value_name = "ADDRESS")]
    pub(crate) control_endpoint: Option<SocketAddr>,

    /// Format of the log on stdout.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "human")]
    pub(crate) log_format: LogFormat,

    /// Do not use the kernel's offloads for UDP.
    #[arg(long, env = "FIREZONE_NO_OFFLOAD", hide = true)]
    pub(crate) no_offload: bool,

    /// Seed of all randomness, secrets included; for tests.
    #[arg(long, env = "RNG_SEED", hide = true)]
    pub(crate) rng_seed: Option<u64>,

    /// Send metrics to this OpenTelemetry collector, unencrypted, every OTEL_METRIC_EXPORT_INTERVAL milliseconds (60000);
    /// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say who sends them.
    #[arg(long, env = "OTLP_GRPC_ENDPOINT", value_name = "HOST:PORT")]
    pub(crate) otlp_grpc_endpoint: Option<CollectorAddress>,

    /// Accepted for compatibility; logs for that service have the format json.
    #[arg(long, env = "GOOGLE_CLOUD_PROJECT_ID", hide = true)]
    pub(crate) google_cloud_project_id: Option<String>,

    /// Refused: this program does not relay in the kernel.
    #[arg(long, env = "EBPF_OFFLOADING", hide = true, value_name = "INTERFACE")]
    pub(crate) ebpf_offloading: Option<String>,

    /// Accepted for compatibility; this program sends no telemetry.
    #[arg(long, env = "FIREZONE_TELEMETRY", hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) telemetry: Option<String>,
}

/// Commands beside serving.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Put a fresh secret into the stamp secret file; credentials of the one before stay valid after the next restart.
    RotateSecret(RotateArguments),
    /// Print user name and password of a stand-alone relay's user.
    MintCredentials(MintArguments),
}

/// What credentials are minted from.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MintArguments {
    /// The relay's --stamp-secret-file.
    #[arg(long, env = "STAMP_SECRET_FILE", value_name = "FILE")]
    pub(crate) stamp_secret_file: PathBuf,

    /// How long the credentials are valid, e.g. 1h, 30d.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) valid_for: Duration,

    /// Text without a colon that tells users apart; random if not given.
    #[arg(long)]
    pub(crate) salt: Option<String>,
}

/// What is rotated.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RotateArguments {
    /// The relay's --stamp-secret-file.
    #[arg(long, env = "STAMP_SECRET_FILE", value_name = "FILE")]
    pub(crate) stamp_secret_file: PathBuf,
}

/// Where an OpenTelemetry collector is, as a URL; written as host or address, and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CollectorAddress(pub(crate) String);

impl FromStr for CollectorAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host_and_port = text.strip_prefix("http://").unwrap_or(text);
        let host_and_port = host_and_port.trim_end_matches('/');
        let is_socket = host_and_port.parse::<SocketAddr>().is_ok();
        let is_name = host_and_port.rsplit_once(':').is_some_and(|(host, port)| {
            let is_host =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !host.is_empty() && host.bytes().all(is_host) && port.parse::<u16>().is_ok()
        });
        match is_socket || is_name {
            true => Ok(Self(format!("http://{host_and_port}"))),
            false => Err("a collector is written host:port".to_owned()),
        }
    }
}

/// What becomes of a user who asks for too many allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Quota {
    /// The oldest one makes room.
    Replace,
    /// The request is refused.
    Refuse,
}

/// A long-term user.
#[derive(Clone)]
pub(crate) struct StaticUser {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for StaticUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StaticUser({}:…)", self.name)
    }
}

/// Which parts of TURN are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Channels only.
    Portal,
    /// Permissions and indications too.
    Open,
}

/// Channel numbers that clients may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChannelNumbers {
    /// 0x4000-0x4fff.
    Rfc8656,
    /// 0x4000-0x7fff.
    Rfc5766,
}

/// Whether clients may talk to private networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrivatePeers {
    /// If one of the public addresses is private.
    Auto,
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// Format of the log on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text.
    Human,
    /// JSON lines.
    #[value(alias = "google-cloud")]
    Json,
}

fn static_user(text: &str) -> Result<StaticUser, String> {
    match text.split_once(':') {
        Some((name, password)) if !name.is_empty() && !password.is_empty() => Ok(StaticUser {
            name: name.to_owned(),
            password: password.to_owned(),
        }),
        // The text is secret and must not be repeated.
        _ => Err("a static user is written name:password".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let cli = Cli::try_parse_from(["relay"]).unwrap();
        assert_eq!(cli.health_check_addr.to_string(), "0.0.0.0:8080");
        assert_eq!(cli.drain_timeout, Duration::from_secs(60));
        assert_eq!((cli.lowest_port, cli.highest_port), (49152, 65535));
        assert_eq!(cli.listen_port, 3478);
    }

    #[test]
    fn positional_token_and_name() {
        let cli = Cli::try_parse_from(["relay", "--public-ip4-addr", "192.0.2.1", "tok", "me"]);
        let cli = cli.unwrap();
        assert_eq!(
            (cli.token.as_deref(), cli.name.as_deref()),
            (Some("tok"), Some("me"))
        );
        assert!(cli.command.is_none());
    }

    // relay C-50
    #[test]
    fn relay_50_collectors_by_socket_and_by_domain() {
        let parse = |text: &str| text.parse::<CollectorAddress>().map(|it| it.0);
        for text in [
            "127.0.0.1:4317",
            "[::1]:4317",
            "otel.example.com:4317",
            "otel:4317",
        ] {
            assert_eq!(parse(text), Ok(format!("http://{text}")));
            assert_eq!(
                parse(&format!("http://{text}")),
                Ok(format!("http://{text}"))
            );
        }
        for text in ["", "otel", ":4317", "otel:port", "a b:1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_do_not_print() {
        let cli = Cli::try_parse_from(["relay", "--static-user", "me:hunter2"]).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
        let error = Cli::try_parse_from(["relay", "--static-user", "a:b", "--static-user", "x"]);
        assert!(error.is_err());
    }
}
