//! The command line (clients spec §1.5).

use std::{net::SocketAddr, time::Duration};

use clap::{Parser, ValueEnum};
use connlib_platform::{MasqueradeMode, parse_boolean};

/// Firezone gateway: lets clients reach the resources of its site, as far as your policies allow.
///
/// The token comes from the environment variable FIREZONE_TOKEN.
#[derive(Debug, Clone, Parser)]
#[command(name = "firezone-gateway", version)]
pub(crate) struct Cli {
    /// WebSocket URL of the portal.
    #[arg(
        short = 'u',
        long,
        env = "FIREZONE_API_URL",
        default_value = "wss://api.firezone.dev/"
    )]
    pub(crate) api_url: String,

    /// Token; other users can see it, so prefer FIREZONE_TOKEN.
    #[arg(hide = true)]
    pub(crate) token: Option<String>,

    /// Name of this gateway in the portal; the host name if not given.
    #[arg(short = 'n', long, env = "FIREZONE_NAME", value_name = "NAME")]
    pub(crate) firezone_name: Option<String>,

    /// Identity of this gateway; kept in /var/lib/firezone/gateway_id if not given.
    #[arg(short = 'i', long, env = "FIREZONE_ID", value_name = "ID")]
    pub(crate) firezone_id: Option<String>,

    /// Accepted for compatibility; this program sends no telemetry.
    #[arg(long, env = "FIREZONE_NO_TELEMETRY", hide = true,
          num_args = 0..=1, default_missing_value = "true", value_parser = parse_boolean)]
    pub(crate) no_telemetry: Option<bool>,

    /// Start without root and without the capability CAP_NET_ADMIN.
    #[arg(long)]
    pub(crate) no_check: bool,

    /// Address of the health and metrics endpoint.
    #[arg(
        long,
        env = "HEALTH_CHECK_ADDR",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS"
    )]
    pub(crate) health_check_addr: SocketAddr,

    /// Threads that handle packets, each with its share of the clients; more than one pays off with several clients that
    /// keep one processor busy.
    ///
    /// Each holds allocations on the relays and a UDP port of its own, at the start 52625 and the following. A portal
    /// that does not provide for that leaves all clients to the first.
    #[arg(
        long,
        env = "FIREZONE_WORKERS",
        default_value = "1",
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u16).range(1..=connlib_runtime::MAX_WORKERS as i64)
    )]
    pub(crate) workers: u16,

    /// Accepted for compatibility; --workers says how many threads handle packets.
    #[arg(long, env = "FIREZONE_NUM_TUN_THREADS", hide = true)]
    pub(crate) tun_threads: Option<u32>,

    /// Format of the log on stdout.
    #[arg(long, env = "FIREZONE_LOG_FORMAT", value_enum, default_value = "human")]
    pub(crate) log_format: LogFormat,

    /// Give up when the portal cannot be reached for this long, e.g. 5m, 1h, 30d.
    #[arg(short = 'm', long, env = "FIREZONE_MAX_PARTITION_TIME", value_name = "TIME",
          default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) max_partition_time: Duration,

    /// Do not raise the kernel's limits for socket buffers.
    #[arg(long, env = "FIREZONE_NO_INC_BUF",
          num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_boolean)]
    pub(crate) no_inc_buf: bool,

    /// Forwarding and masquerading: auto (if possible), on (or fail), off (rules are managed elsewhere).
    #[arg(
        long,
        env = "FIREZONE_MASQUERADE",
        default_value = "auto",
        value_name = "MODE"
    )]
    pub(crate) masquerade: MasqueradeMode,

    /// Name of the network interface.
    #[arg(long, default_value = connlib_platform::default_tun_name(), hide = true)]
    pub(crate) tun_name: String,

    /// Do not use the kernel's offloads for the network interface and UDP.
    #[arg(long, env = "FIREZONE_NO_OFFLOAD", hide = true,
          num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_boolean)]
    pub(crate) no_offload: bool,
}

/// Format of the log on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text.
    Human,
    /// JSON lines.
    Json,
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
    fn clients_01_defaults() {
        let cli = Cli::try_parse_from(["gateway"]).unwrap();

        assert_eq!(cli.health_check_addr.to_string(), "0.0.0.0:8080");
        assert_eq!(cli.max_partition_time, Duration::from_secs(24 * 60 * 60));
        assert_eq!(cli.masquerade, MasqueradeMode::Auto);
        assert_eq!(cli.workers, 1);
    }

    #[test]
    fn number_of_workers_is_bounded() {
        for (workers, is_valid) in [("0", false), ("1", true), ("32", true), ("33", false)] {
            let cli = Cli::try_parse_from(["gateway", "--workers", workers]);
            assert_eq!(cli.is_ok(), is_valid, "{workers}");
        }
    }
}
