//! Installs the logging of a program.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::SystemTime;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::cleanup;
use crate::file::LogFile;
use crate::filter::{self, InvalidFilter};
use crate::human::HumanFormat;
use crate::json::JsonLayer;

/// What goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    /// Text for people, coloured on a terminal.
    Human,
    /// JSON lines, for collectors that read a container's output.
    Json,
    /// Nothing.
    Silent,
}

/// What a program wants of its logging.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Name of the program, first part of its log files' names.
    pub process: &'a str,
    /// Version of the program, for the first line.
    pub version: &'a str,
    /// Filter as the user wrote it, usually the value of `RUST_LOG`; `info` when empty.
    pub directives: Option<String>,
    /// Where to write a file of JSON lines, if at all.
    pub directory: Option<PathBuf>,
    /// What goes to stdout.
    pub stdout: Stdout,
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The filter is not valid.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// The log file cannot be created.
    #[error("cannot write logs to {}: {source}", .directory.display())]
    Directory {
        /// Where it was to be.
        directory: PathBuf,
        /// Why it cannot.
        source: io::Error,
    },
    /// Logging is set up already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Keeps logging alive; must live until the end of the program. Dropping it writes what still waits.
#[derive(Debug)]
pub struct Guard {
    filter: reload::Handle<EnvFilter, Registry>,
    path: Option<PathBuf>,
    // Stops the clean-up thread when it is dropped.
    _cleanup: Option<Sender<()>>,
    // Last, so that what the other parts log on their way out is still written.
    _writer: Option<WorkerGuard>,
}

impl Guard {
    /// The log file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Replaces the filter while the program runs; an invalid one changes nothing.
    pub fn set_filter(&self, directives: &str) -> Result<(), InvalidFilter> {
        let filter = filter::parse(directives)?;
        if let Err(error) = self.filter.reload(filter) {
            tracing::warn!(%error, "the log filter cannot be replaced");
        }
        Ok(())
    }
}

/// Installs logging for the whole process and logs the first line.
pub fn setup(options: &Options<'_>) -> Result<Guard, SetupError> {
    let directives = options.directives.as_deref().unwrap_or_default();
    let (filter, handle) = reload::Layer::new(filter::parse(directives)?);
    let log = options
        .directory
        .as_deref()
        .map(|directory| open(directory, options.process))
        .transpose()?;
    let path = log.as_ref().map(|log| log.path().to_owned());
    let (writer, writer_guard) = log.map(LogFile::into_background).unzip();
    tracing_subscriber::registry()
        .with(filter)
        .with(stdout_layer(options.stdout))
        .with(writer.map(|writer| JsonLayer::new(move || writer.clone())))
        .try_init()?;
    log_start(options, filter::effective(directives), path.as_deref());
    Ok(Guard {
        filter: handle,
        path,
        _cleanup: options.directory.clone().map(keep_clean),
        _writer: writer_guard,
    })
}

fn open(directory: &Path, process: &str) -> Result<LogFile, SetupError> {
    LogFile::create(directory, process).map_err(|source| SetupError::Directory {
        directory: directory.to_owned(),
        source,
    })
}

type FilteredRegistry =
    tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn stdout_layer(kind: Stdout) -> Option<Box<dyn Layer<FilteredRegistry> + Send + Sync>> {
    match kind {
        Stdout::Human => Some(
            tracing_subscriber::fmt::layer()
                .with_ansi(io::stdout().is_terminal())
                .event_format(HumanFormat)
                .boxed(),
        ),
        Stdout::Json => Some(JsonLayer::new(io::stdout).boxed()),
        Stdout::Silent => None,
    }
}

fn log_start(options: &Options<'_>, directives: &str, path: Option<&Path>) {
    tracing::info!(
        arch = std::env::consts::ARCH,
        os = std::env::consts::OS,
        version = options.version,
        directives,
        uptime_secs = uptime_secs(),
        log_path = path.map(|path| path.display().to_string()),
        "{} started",
        options.process,
    );
}

/// How long the machine has been up, where the system says so in a file.
fn uptime_secs() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    text.split(['.', ' ']).next()?.parse().ok()
}

/// Enforces the size cap now and every hour until the returned sender is dropped.
fn keep_clean(directory: PathBuf) -> Sender<()> {
    let (stop, stopped) = mpsc::channel();
    let clean = move || {
        loop {
            if let Err(error) = cleanup::enforce_cap(
                std::slice::from_ref(&directory),
                cleanup::MAX_TOTAL_BYTES,
                SystemTime::now(),
            ) {
                tracing::warn!(%error, "cannot clean up logs");
            }
            if stopped.recv_timeout(cleanup::INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("log-cleanup".to_owned())
        .spawn(clean)
    {
        tracing::warn!(%error, "logs are not cleaned up");
    }
    stop
}
