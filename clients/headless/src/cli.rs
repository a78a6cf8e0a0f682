//! The command line (clients spec §1.2).

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use connlib_platform::{DnsControlMethod, parse_boolean};

/// Firezone client for machines without a user: connects to your resources through your gateways.
///
/// The token comes from the environment variable FIREZONE_TOKEN, or from the file given with --token-path.
#[derive(Debug, Clone, Parser)]
#[command(name = "firezone-headless-client", version)]
pub(crate) struct Cli {
    /// WebSocket URL of the portal.
    #[arg(
        short = 'u',
        long,
        env = "FIREZONE_API_URL",
        default_value = "wss://api.firezone.dev/"
    )]
    pub(crate) api_url: String,

    /// Check the configuration and exit, without touching the network.
    #[arg(long)]
    pub(crate) check: bool,

    /// Exit once the tunnel is ready. For tests of an installation.
    #[arg(long)]
    pub(crate) exit: bool,

    /// Name of this device in the portal; the host name if not given.
    #[arg(long, env = "FIREZONE_NAME", value_name = "NAME")]
    pub(crate) firezone_name: Option<String>,

    /// Identity of this device; kept in the state directory if not given.
    #[arg(short = 'i', long, env = "FIREZONE_ID", value_name = "ID")]
    pub(crate) firezone_id: Option<String>,

    /// Accepted for compatibility; this program sends no telemetry.
    #[arg(long, env = "FIREZONE_NO_TELEMETRY", hide = true,
          num_args = 0..=1, default_missing_value = "true", value_parser = parse_boolean)]
    pub(crate) no_telemetry: Option<bool>,

    /// File with the token. Must belong to root and be readable by nobody else.
    #[arg(
        long,
        env = "FIREZONE_TOKEN_PATH",
        value_name = "PATH",
        default_value = "/etc/dev.firezone.client/token"
    )]
    pub(crate) token_path: PathBuf,

    /// How names of resources are made known to this machine.
    #[arg(
        long,
        env = "FIREZONE_DNS_CONTROL",
        value_name = "METHOD",
        default_value = "systemd-resolved"
    )]
    pub(crate) dns_control: DnsControlArgument,

    /// Directory for log files of JSON lines; without it, logs go to stdout only.
    #[arg(short = 'l', long, env = "LOG_DIR", value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,

    /// Give up when the portal cannot be reached for this long, e.g. 5m, 1h, 30d; default: never.
    #[arg(short = 'm', long, env = "MAX_PARTITION_TIME", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) max_partition_time: Option<Duration>,

    /// Use the internet resource, if there is one.
    #[arg(long, env = "FIREZONE_ACTIVATE_INTERNET_RESOURCE",
          num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_boolean)]
    pub(crate) activate_internet_resource: bool,

    /// Name of the network interface.
    #[arg(long, default_value = connlib_platform::default_tun_name(), hide = true)]
    pub(crate) tun_name: String,

    /// Do not use the kernel's offloads for the network interface and UDP.
    #[arg(long, env = "FIREZONE_NO_OFFLOAD", hide = true,
          num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_boolean)]
    pub(crate) no_offload: bool,

    /// Does nothing; kept for old unit files.
    #[arg(hide = true, value_parser = ["standalone"])]
    pub(crate) mode: Option<String>,
}

/// Values of `--dns-control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DnsControlArgument {
    /// Leave DNS alone: only resources by address work.
    Disabled,
    /// Rewrite /etc/resolv.conf, and restore it at the end.
    EtcResolvConf,
    /// Tell systemd-resolved.
    SystemdResolved,
}

impl From<DnsControlArgument> for DnsControlMethod {
    fn from(argument: DnsControlArgument) -> Self {
        match argument {
            DnsControlArgument::Disabled => Self::Disabled,
            DnsControlArgument::EtcResolvConf => Self::EtcResolvConf,
            DnsControlArgument::SystemdResolved => Self::SystemdResolved,
        }
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
    fn clients_01_defaults() {
        let cli = Cli::try_parse_from(["client"]).unwrap();

        assert_eq!(cli.api_url, "wss://api.firezone.dev/");
        assert_eq!(cli.dns_control, DnsControlArgument::SystemdResolved);
        assert_eq!(cli.max_partition_time, None);
        assert!(!cli.activate_internet_resource && !cli.check && !cli.exit);
    }

    #[test]
    fn clients_03_token_is_no_flag() {
        assert!(Cli::try_parse_from(["client", "--token", "x"]).is_err());
        assert!(Cli::try_parse_from(["client", "x"]).is_err());
        assert!(Cli::try_parse_from(["client", "standalone"]).is_ok());
    }

    #[test]
    fn durations_are_written_as_people_do() {
        let cli = Cli::try_parse_from(["client", "-m", "30d"]).unwrap();
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        assert_eq!(cli.max_partition_time, Some(month));
    }
}
