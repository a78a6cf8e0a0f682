//! The `User-Agent` header, from which the portal reads the version of the protocol that a component speaks.
//!
//! ```text
//! Ubuntu/24.04 connlib/1.5.0 (firezone/0.1.0; x86_64; 6.8.0-51-generic)
//! ```
//!
//! The portal splits at single spaces and takes the first word that starts with `connlib/` or `relay/`. That word
//! carries the *protocol* version, which decides compatibility with peers; the product's own version stands behind it.

use std::fmt;

/// Protocol version claimed unless configured otherwise: inside the window of peers 1.4 to 1.6 for every portal.
pub const DEFAULT_PROTOCOL_VERSION: &str = "1.5.0";

/// Environment variable that overrides [`DEFAULT_PROTOCOL_VERSION`].
pub const PROTOCOL_VERSION_ENVIRONMENT: &str = "FIREZONE_PROTOCOL_VERSION";

/// A checked protocol version (`major.minor.patch`, optionally with a semver suffix).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolVersion(String);

/// The text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version of the form 1.5.0")]
pub struct InvalidVersion(String);

impl ProtocolVersion {
    /// Checks `text`: three numbers, then perhaps a suffix that starts with `-` or `+`.
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let text = text.trim();
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (core, suffix) = text.split_at(end);
        let is_number = |part: &str| {
            !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit())
        };
        let is_core = core.split('.').count() == 3 && core.split('.').all(is_number);
        let is_suffix = suffix
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.'));
        match is_core && is_suffix && suffix.len() != 1 {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidVersion(text.to_owned())),
        }
    }
}

impl Default for ProtocolVersion {
    fn default() -> Self {
        Self(DEFAULT_PROTOCOL_VERSION.to_owned())
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The word that carries the protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Clients and gateways. Old portals refuse any other word for these.
    Connlib,
    /// Relays.
    Relay,
}

/// What is known about the operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsInfo {
    /// Name, e.g. `Ubuntu`.
    pub name: String,
    /// Version, e.g. `24.04`; empty when unknown.
    pub version: String,
    /// Processor architecture, e.g. `x86_64`; empty when unknown.
    pub architecture: String,
    /// Kernel release; empty when unknown.
    pub kernel: String,
}

/// Builds the header. Whatever is no printable ASCII is left out, because it would make the request invalid.
pub fn user_agent(
    component: Component,
    protocol: &ProtocolVersion,
    product_version: &str,
    os: &OsInfo,
) -> String {
    let word = match component {
        Component::Connlib => "connlib",
        Component::Relay => "relay",
    };
    let product = match product_version {
        "" => String::new(),
        version => format!("firezone/{version}"),
    };
    let extra: Vec<&str> = [&product, &os.architecture, &os.kernel]
        .into_iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
        .collect();
    let extra = match extra.is_empty() {
        true => String::new(),
        false => format!(" ({})", extra.join("; ")),
    };
    let name = match os.name.trim() {
        "" => "Unknown",
        name => name,
    };
    let version = match os.version.trim() {
        "" => "0",
        version => version,
    };
    format!("{name}/{version} {word}/{protocol}{extra}")
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ubuntu() -> OsInfo {
        OsInfo {
            name: "Ubuntu".to_owned(),
            version: "24.04".to_owned(),
            architecture: "x86_64".to_owned(),
            kernel: "6.8.0-51-generic".to_owned(),
        }
    }

    #[test]
    fn portal_09_carries_the_protocol_version_as_a_word() {
        let agent = user_agent(
            Component::Connlib,
            &ProtocolVersion::default(),
            "0.1.0",
            &ubuntu(),
        );
        assert_eq!(
            agent,
            "Ubuntu/24.04 connlib/1.5.0 (firezone/0.1.0; x86_64; 6.8.0-51-generic)"
        );
        let relay = user_agent(Component::Relay, &ProtocolVersion::default(), "", &ubuntu());
        assert!(
            relay.split(' ').any(|word| word == "relay/1.5.0"),
            "{relay}"
        );
    }

    #[test]
    fn portal_09_is_ascii_only() {
        let os = OsInfo {
            name: "Öß\r\nX: y".to_owned(),
            ..OsInfo::default()
        };
        let agent = user_agent(Component::Connlib, &ProtocolVersion::default(), "", &os);
        assert_eq!(agent, "X: y/0 connlib/1.5.0");
    }

    #[test]
    fn versions_are_checked() {
        for good in ["1.5.0", "1.5.0-rc.1", " 2.0.10 ", "1.2.3+build"] {
            assert!(ProtocolVersion::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1.5",
            "1.5.x",
            "development",
            "1.5.0 x",
            "1.5.0-",
            "1.5.0\r\nX: y",
        ] {
            assert!(ProtocolVersion::parse(bad).is_err(), "{bad}");
        }
    }
}
