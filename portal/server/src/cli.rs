//! The command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use connlib_logging::Stdout;

use crate::{
    config_file::ConfigFile,
    platform::{Signal, Signals},
    server::Server,
    token_command::{self, TokenCommand},
    watch::FileWatch,
};

/// The Firezone portal: decides who may reach what, and introduces clients, gateways and relays to each other.
#[derive(Debug, Parser)]
#[command(name = "firezone-portal", version)]
struct Cli {
    /// Configuration file; portal.example.toml explains it.
    #[arg(
        short,
        long,
        global = true,
        env = "FIREZONE_PORTAL_CONFIG",
        default_value = "/etc/firezone/portal.toml"
    )]
    config: PathBuf,

    /// Folder for log files of JSON lines.
    #[arg(long, env = "LOG_DIR")]
    log_dir: Option<PathBuf>,

    /// Write logs to stdout as JSON lines.
    #[arg(long, env = "FIREZONE_LOG_JSON")]
    log_json: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the portal (what happens without a command).
    Run,
    /// Check the configuration file and exit.
    Check,
    /// Make tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// The program: `args` starts with its name. Mistakes are told on stderr, in one sentence.
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Also help and version, which are no mistakes.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    match &cli.command {
        None | Some(Command::Run) => serve(&cli),
        Some(Command::Check) => {
            ConfigFile::read(&cli.config)?;
            println!("{} is fine", cli.config.display());
            Ok(())
        }
        Some(Command::Token(command)) => token_command::execute(command, &cli.config),
    }
}

fn serve(cli: &Cli) -> anyhow::Result<()> {
    let config = ConfigFile::read(&cli.config)?;
    let _logging = connlib_logging::setup(&connlib_logging::Options {
        process: "firezone-portal",
        version: env!("CARGO_PKG_VERSION"),
        directives: std::env::var("RUST_LOG").ok(),
        directory: cli.log_dir.clone(),
        stdout: if cli.log_json {
            Stdout::Json
        } else {
            Stdout::Human
        },
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(serve_until_stopped(&cli.config, config))
}

async fn serve_until_stopped(path: &Path, config: ConfigFile) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot receive signals")?;
    let mut watch = FileWatch::new(path)
        .inspect_err(|error| tracing::warn!(%error, "the configuration file cannot be watched; send SIGHUP after changes"))
        .ok();
    let server = Server::start(path, config).await?;
    loop {
        let changed = async {
            match &mut watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = changed => Signal::Reload,
        };
        match signal {
            Signal::Reload => {
                if let Err(error) = server.reload().await {
                    tracing::warn!(%error, "keeping the old configuration");
                }
            }
            Signal::Stop => {
                tracing::info!("stopping");
                server.shutdown().await;
                return Ok(());
            }
        }
    }
}
