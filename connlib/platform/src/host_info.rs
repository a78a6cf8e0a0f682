//! What a component tells the portal about its host (portal spec §1.4).

use std::fs;

/// The host's name, if it has a readable one.
pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// `<os>/<os version> <component>/<protocol version> (<arch>; <kernel release>)`, ASCII only.
pub fn user_agent(component: &str, protocol_version: &str) -> String {
    let (name, version) = os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let kernel = nix::sys::utsname::uname()
        .ok()
        .and_then(|uname| uname.release().to_str().map(str::to_owned));
    let extra = match kernel {
        Some(kernel) => format!(" ({}; {kernel})", std::env::consts::ARCH),
        None => format!(" ({})", std::env::consts::ARCH),
    };
    format!("{name}/{version} {component}/{protocol_version}{extra}")
        .chars()
        .filter(|c| c.is_ascii() && !c.is_ascii_control())
        .collect()
}

fn os_release(text: &str) -> (String, String) {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let value = line.strip_prefix('=')?.trim_matches('"');
        (!value.is_empty()).then(|| value.to_owned())
    };
    let name = value("NAME")
        .and_then(|name| name.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| "Linux".to_owned());
    let version = value("VERSION_ID").unwrap_or_else(|| "0".to_owned());
    (name, version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n";
        assert_eq!(os_release(text), ("Debian".into(), "12".into()));
        assert_eq!(os_release(""), ("Linux".into(), "0".into()));
    }

    #[test]
    fn user_agent_names_the_component_as_one_word() {
        let agent = user_agent("connlib", "1.5.0");
        assert!(
            agent.split(' ').any(|word| word == "connlib/1.5.0"),
            "{agent}"
        );
        assert!(agent.is_ascii());
    }
}
