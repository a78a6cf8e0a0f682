//! Making the system ask our stub resolver (clients spec §3).
//!
//! [`DnsControl::deactivate`] runs at start (a crashed predecessor may have left its settings), at every end, and on
//! drop; all of it is synchronous so that it also works there.

use std::{io, net::IpAddr, path::PathBuf};

#[cfg(target_os = "linux")]
use crate::linux::{ResolvConf, resolved};

/// How DNS is controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsControlMethod {
    /// Not at all.
    Disabled,
    /// By rewriting `/etc/resolv.conf`.
    EtcResolvConf,
    /// By telling systemd-resolved.
    SystemdResolved,
}

/// Why DNS could not be controlled.
#[derive(Debug, thiserror::Error)]
pub enum DnsControlError {
    /// The file is managed by a resolver service.
    #[error(
        "{path} is a symbolic link, so another program manages it; use --dns-control systemd-resolved or disabled",
        path = path.display()
    )]
    Symlink {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `resolvectl` is missing or refused.
    #[error(
        "systemd-resolved did not take our DNS settings ({0}); use --dns-control etc-resolv-conf or disabled"
    )]
    Resolved(String),
}

/// Controls the system's DNS as long as it lives.
#[derive(Debug)]
pub struct DnsControl {
    method: DnsControlMethod,
    interface: String,
    #[cfg(target_os = "linux")]
    resolv_conf: ResolvConf,
}

impl DnsControl {
    /// Control by `method` for the given TUN interface. Changes nothing yet.
    pub fn new(method: DnsControlMethod, interface: &str) -> Self {
        Self {
            method,
            interface: interface.to_owned(),
            resolv_conf: ResolvConf::system(),
        }
    }

    /// Points the system at these servers.
    ///
    /// # Errors
    ///
    /// If the chosen method does not work on this host.
    pub fn set(
        &self,
        servers: &[IpAddr],
        search_domain: Option<&str>,
    ) -> Result<(), DnsControlError> {
        match self.method {
            DnsControlMethod::Disabled => Ok(()),
            DnsControlMethod::EtcResolvConf => self.resolv_conf.activate(servers, search_domain),
            DnsControlMethod::SystemdResolved => {
                resolved::activate(&self.interface, servers, search_domain)
            }
        }
    }

    /// Gives the system its own servers back.
    ///
    /// # Errors
    ///
    /// If a file cannot be restored.
    pub fn deactivate(&self) -> Result<(), DnsControlError> {
        match self.method {
            // systemd-resolved's settings die with the interface.
            DnsControlMethod::Disabled | DnsControlMethod::SystemdResolved => Ok(()),
            DnsControlMethod::EtcResolvConf => self.resolv_conf.revert(),
        }
    }

    /// Makes the system forget cached answers.
    pub fn flush(&self) {
        if self.method == DnsControlMethod::SystemdResolved {
            resolved::flush();
        }
    }

    /// The servers that the system would use without us, in order.
    pub fn system_resolvers(&self) -> Vec<IpAddr> {
        match self.method {
            DnsControlMethod::Disabled | DnsControlMethod::EtcResolvConf => {
                self.resolv_conf.servers()
            }
            DnsControlMethod::SystemdResolved => resolved::servers(),
        }
    }
}

impl Drop for DnsControl {
    fn drop(&mut self) {
        if let Err(error) = self.deactivate() {
            tracing::error!(%error, "Cannot restore the system's DNS settings");
        }
    }
}
