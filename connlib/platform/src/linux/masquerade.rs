//! Forwarding and masquerading of a gateway, through the `nft` program where it is present (clients spec §7.2).

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    str::FromStr,
};

use super::default_tun_name;

/// What the administrator asked for (`FIREZONE_MASQUERADE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MasqueradeMode {
    /// Do it if possible; otherwise say once what is missing.
    #[default]
    Auto,
    /// Do it or fail.
    On,
    /// Touch nothing.
    Off,
}

impl FromStr for MasqueradeMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            other => Err(format!("`{other}` is not one of auto, on, off")),
        }
    }
}

/// Why masquerading could not be set up although it was asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set up masquerading: {problem}; run this yourself, or set FIREZONE_MASQUERADE=off:\n{commands}"
)]
pub struct MasqueradeError {
    problem: String,
    commands: String,
}

/// The rules, as long as this value lives.
#[derive(Debug)]
pub struct Masquerade {
    installed: bool,
}

const SYSCTLS: [(&str, &str); 3] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv6.conf.default.forwarding", "1"),
];

impl Masquerade {
    /// Turns on forwarding and installs the table `inet firezone`, replacing a left-over.
    ///
    /// # Errors
    ///
    /// With [`MasqueradeMode::On`], if anything of it fails.
    pub fn set_up(mode: MasqueradeMode) -> Result<Self, MasqueradeError> {
        if mode == MasqueradeMode::Off {
            return Ok(Self { installed: false });
        }
        match enable_forwarding().and_then(|()| nft(&ruleset())) {
            Ok(()) => {
                tracing::info!("Forwarding is on and the table `inet firezone` is installed");
                Ok(Self { installed: true })
            }
            Err(problem) if mode == MasqueradeMode::On => Err(MasqueradeError {
                problem,
                commands: commands(),
            }),
            Err(problem) => {
                let commands = commands();
                tracing::warn!(
                    "Masquerading is not set up ({problem}). Unless the private network routes the tunnel ranges \
                     back to this host, run:\n{commands}"
                );
                Ok(Self { installed: false })
            }
        }
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        if self.installed
            && let Err(error) = nft("delete table inet firezone\n")
        {
            tracing::warn!(error, "Cannot remove the table `inet firezone`");
        }
    }
}

/// The table: masquerade the tunnel ranges on any other interface, and let them through the forward hook.
fn ruleset() -> String {
    let tun = default_tun_name();
    format!(
        "table inet firezone\n\
         delete table inet firezone\n\
         table inet firezone {{\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   ip saddr 100.64.0.0/11 oifname != \"{tun}\" masquerade\n\
         \x20   ip6 saddr fd00:2021:1111::/107 oifname != \"{tun}\" masquerade\n\
         \x20 }}\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy accept;\n\
         \x20   iifname \"{tun}\" accept\n\
         \x20   oifname \"{tun}\" accept\n\
         \x20 }}\n\
         }}\n"
    )
}

fn commands() -> String {
    let sysctls = SYSCTLS
        .iter()
        .map(|(name, value)| format!("sysctl -w {name}={value}\n"))
        .collect::<String>();
    format!("{sysctls}nft -f - <<'END'\n{}END", ruleset())
}

fn enable_forwarding() -> Result<(), String> {
    for (name, value) in SYSCTLS {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let current = fs::read_to_string(&path).unwrap_or_default();
        if current.trim() == value {
            continue;
        }
        fs::write(&path, value).map_err(|error| format!("cannot set {name}: {error}"))?;
    }
    Ok(())
}

fn nft(script: &str) -> Result<(), String> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run nft: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(script.as_bytes())
            .map_err(|error| format!("nft: {error}"))?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| format!("nft: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("nft: {}", said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_off_touches_nothing() {
        assert_eq!("auto".parse(), Ok(MasqueradeMode::Auto));
        assert_eq!("off".parse(), Ok(MasqueradeMode::Off));
        assert!("yes".parse::<MasqueradeMode>().is_err());
        let masquerade = Masquerade::set_up(MasqueradeMode::Off).unwrap();
        assert!(!masquerade.installed);
    }

    #[test]
    fn advice_contains_both_ranges_and_the_sysctls() {
        let text = commands();
        for part in [
            "100.64.0.0/11",
            "fd00:2021:1111::/107",
            "net.ipv4.ip_forward=1",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
