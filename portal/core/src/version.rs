//! Versions of components: read from the User-Agent, and which gateways suit which clients (portal protocol §1.4, §7.5).

use std::fmt;

/// A component's version; pre-release and build parts are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Incompatible when different.
    pub major: u32,
    /// Compatible within the window of [`Version::serves`].
    pub minor: u32,
    /// Always compatible.
    pub patch: u32,
}

/// Words of a User-Agent whose rest is a component's version.
const COMPONENTS: [&str; 8] = [
    "connlib",
    "relay",
    "headless-client",
    "gui-client",
    "apple-client",
    "android-client",
    "gateway",
    "client",
];

impl Version {
    /// Reads `1.4.2`, also with a suffix like `-rc.1+build`.
    pub fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut numbers = core.split('.').map(|part| part.parse().ok());
        let version = Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next()??,
        };
        numbers.next().is_none().then_some(version)
    }

    /// The version in a User-Agent such as `Debian/12 gateway/1.5.0 (x86_64)`: of the first word that names a component.
    pub fn from_user_agent(user_agent: &str) -> Option<Self> {
        user_agent
            .split(' ')
            .filter_map(|word| word.split_once('/'))
            .find(|(component, _)| COMPONENTS.contains(component))
            .and_then(|(_, version)| Self::parse(version))
    }

    /// Whether a gateway of this version suits a client of that version: one minor version older up to one newer.
    pub fn serves(self, client: Self) -> bool {
        let low = client.minor.saturating_sub(1);
        let high = client.minor.saturating_add(2);
        self.major == client.major && (low..high).contains(&self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Operating system and its version: what stands before the component's word, split at the last slash.
pub(crate) fn operating_system(user_agent: &str) -> Option<(&str, &str)> {
    let end = COMPONENTS
        .iter()
        .filter_map(|component| user_agent.find(&format!(" {component}/")))
        .min()?;
    user_agent[..end].rsplit_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn user_agents_of_all_generations() {
        for (user_agent, expected) in [
            (
                "Ubuntu/24.04.1 connlib/1.4.2 (x86_64; 6.8.0-51-generic)",
                "1.4.2",
            ),
            ("relay/0.1.0", "0.1.0"),
            ("Debian/12 gateway/1.5.0 (x86_64; 6.1.0-28-amd64)", "1.5.0"),
            ("Mac OS/15.1 apple-client/1.5.11-rc.1", "1.5.11"),
        ] {
            assert_eq!(
                Version::from_user_agent(user_agent),
                Some(version(expected))
            );
        }
        assert_eq!(Version::from_user_agent("Mozilla/5.0"), None);
        assert_eq!(Version::from_user_agent("X/1 connlib/development"), None);
        let os = operating_system("Mac OS/15.1 apple-client/1.5.11 (arm64)");
        assert_eq!(os, Some(("Mac OS", "15.1")));
        assert_eq!(operating_system("relay/0.1.0"), None);
    }

    #[test]
    fn window_is_one_minor_down_to_one_up() {
        let client = version("1.5.0");
        for (gateway, serves) in [
            ("1.3.9", false),
            ("1.4.0", true),
            ("1.5.99", true),
            ("1.6.3", true),
            ("1.7.0", false),
            ("2.5.0", false),
        ] {
            assert_eq!(version(gateway).serves(client), serves, "{gateway}");
        }
        assert!(version("1.0.0").serves(version("1.0.3")));
    }

    #[test]
    fn no_version_is_none() {
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "a.b.c",
            "1.2.x",
            "99999999999.0.0",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
