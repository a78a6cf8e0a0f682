//! The configuration file: TOML that is checked completely before anything is done with it.
//!
//! Two steps: [`schema`] is what can be written, [`resolve`] turns names into ids and checks what they refer to. Every
//! mistake is one [`ConfigError`] with file, line, what is wrong and what to do.

mod error;
mod filter;
mod resolve;
mod schema;
mod time;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use error::ConfigError;
use portal_core::config::Config;

/// Largest file that is read: tens of thousands of resources.
const MAX_FILE_LEN: u64 = 16 * 1024 * 1024;

/// Everything that the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFile {
    /// How to serve; changes need a restart, except for renewed certificates.
    pub server: ServerSettings,
    /// Who may reach what.
    pub portal: Config,
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificate chain and key for TLS; `None` is plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where records are kept.
    pub database: Database,
    /// Most connections at once.
    pub max_connections: usize,
    /// Whether a proxy in front sets address and place.
    pub trust_proxy_headers: bool,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Where records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// Nowhere: they are gone with the process.
    Memory,
    /// An SQLite file.
    File(PathBuf),
}

impl ConfigFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Names file, line, mistake and fix.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let error = |problem: String| {
            ConfigError::new(path, None, problem, "Name an existing file with --config.")
        };
        let metadata = fs::metadata(path);
        let len = metadata
            .map_err(|e| error(format!("cannot be read: {e}")))?
            .len();
        if len > MAX_FILE_LEN {
            return Err(error(format!(
                "has {len} bytes, {MAX_FILE_LEN} are allowed"
            )));
        }
        let text = fs::read_to_string(path);
        let text = text.map_err(|e| error(format!("cannot be read: {e}")))?;
        Self::parse(path, &text)
    }

    /// Checks text; `path` is for messages and for relative paths.
    ///
    /// # Errors
    ///
    /// Names file, line, mistake and fix.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: schema::File = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| error::line_of(text, span.start));
            let problem = error.message().trim().replace('\n', ", ");
            let fix = "Compare with portal.example.toml.";
            ConfigError::new(path, line, problem, fix)
        })?;
        resolve::Resolver::new(path, text).resolve(file)
    }
}

#[cfg(test)]
mod tests;
