//! systemd-resolved, by its command-line tool (clients spec §3.1).

use std::{net::IpAddr, process::Command};

use crate::dns_control::DnsControlError;

/// Sends all queries of the system to `servers` on `interface`.
pub(crate) fn activate(
    interface: &str,
    servers: &[IpAddr],
    search_domain: Option<&str>,
) -> Result<(), DnsControlError> {
    let servers = servers.iter().map(IpAddr::to_string).collect::<Vec<_>>();
    let mut dns = vec!["dns", interface];
    dns.extend(servers.iter().map(String::as_str));
    resolvectl(&dns)?;
    // "~." takes all queries; a search domain comes beside it, not instead.
    let mut domains = vec!["domain", interface, "~."];
    domains.extend(search_domain);
    resolvectl(&domains)?;
    resolvectl(&["llmnr", interface, "false"])
}

/// Flushes the cache, best effort.
pub(crate) fn flush() {
    if let Err(error) = resolvectl(&["flush-caches"]) {
        tracing::debug!(%error, "Cannot flush the DNS cache");
    }
}

/// All servers that it knows of.
pub(crate) fn servers() -> Vec<IpAddr> {
    let Ok(output) = Command::new("resolvectl").arg("dns").output() else {
        return Vec::new();
    };
    parse_servers(&String::from_utf8_lossy(&output.stdout))
}

/// Addresses may carry a scope (`%eth0`) and the name of a DNS-over-TLS server (`#dns.example`).
fn parse_servers(text: &str) -> Vec<IpAddr> {
    text.split_whitespace()
        .filter_map(|word| word.split(['#', '%']).next())
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn resolvectl(arguments: &[&str]) -> Result<(), DnsControlError> {
    let output = Command::new("resolvectl")
        .args(arguments)
        .output()
        .map_err(|error| DnsControlError::Resolved(format!("cannot run resolvectl: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let command = arguments.join(" ");
    Err(DnsControlError::Resolved(format!(
        "resolvectl {command}: {said}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_with_names_and_scopes_are_found() {
        let text = "Global: 1.1.1.1#cloudflare-dns.com\nLink 2 (eth0): 192.168.1.1 fe80::1%eth0\nLink 3 (lo):\n";

        let servers = parse_servers(text);

        let expected: [IpAddr; 3] =
            ["1.1.1.1", "192.168.1.1", "fe80::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(servers, expected);
    }
}
