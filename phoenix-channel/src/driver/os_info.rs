//! What the machine says about its operating system, for the `User-Agent` header.

use std::env::consts;

use crate::user_agent::{InvalidVersion, OsInfo, PROTOCOL_VERSION_ENVIRONMENT, ProtocolVersion};

impl OsInfo {
    /// Reads the usual files of Linux; elsewhere only the names known at build time.
    pub fn detect() -> Self {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            name: release_field(&release, "NAME").unwrap_or_else(|| consts::OS.to_owned()),
            version: release_field(&release, "VERSION_ID").unwrap_or_default(),
            architecture: consts::ARCH.to_owned(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

impl ProtocolVersion {
    /// The version that `FIREZONE_PROTOCOL_VERSION` names, else the default.
    pub fn from_environment() -> Result<Self, InvalidVersion> {
        match std::env::var(PROTOCOL_VERSION_ENVIRONMENT) {
            Ok(text) if !text.trim().is_empty() => Self::parse(&text),
            Ok(_) | Err(_) => Ok(Self::default()),
        }
    }
}

/// One assignment of `os-release(5)`, without quotes.
fn release_field(text: &str, name: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_without_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nEMPTY=\n";
        assert_eq!(
            release_field(text, "NAME").as_deref(),
            Some("Debian GNU/Linux")
        );
        assert_eq!(release_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(release_field(text, "EMPTY"), None);
        assert_eq!(release_field(text, "ID"), None);
    }

    #[test]
    fn architecture_is_always_known() {
        assert!(!OsInfo::detect().architecture.is_empty());
    }
}
