//! Where files live (clients spec §1.8).

use std::path::PathBuf;

/// Directories of the client programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientDirectories {
    /// Device id and settings.
    pub config: PathBuf,
    /// Log files.
    pub logs: PathBuf,
}

impl ClientDirectories {
    /// The system-wide directories of a client that runs as a service.
    pub fn system() -> Self {
        Self {
            config: PathBuf::from("/var/lib/dev.firezone.client/config"),
            logs: PathBuf::from("/var/log/dev.firezone.client"),
        }
    }

    /// The file that holds the device id.
    pub fn device_id(&self) -> PathBuf {
        self.config.join("firezone-id.json")
    }
}

/// The file that holds a gateway's id.
pub fn gateway_id_path() -> PathBuf {
    PathBuf::from("/var/lib/firezone/gateway_id")
}
