//! ICE credentials and candidates (portal protocol §2.6).

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Secret, lenient};

/// Most candidates that are taken from one message: far above what a host with many interfaces has.
pub const MAX_CANDIDATES: usize = 128;
/// Longest candidate line that is taken.
const MAX_CANDIDATE_LEN: usize = 512;

/// User name fragment and password of one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// `ufrag`.
    pub username: String,
    /// `pwd`.
    pub password: Secret,
}

/// Whether the text has the form of an SDP candidate line (RFC 8839 §5.1) with an IP address.
pub fn is_candidate(line: &str) -> bool {
    let line = line.strip_prefix("a=").unwrap_or(line);
    let Some(rest) = line.strip_prefix("candidate:") else {
        return false;
    };
    let mut words = rest.split_ascii_whitespace();
    let mut next_is = |valid: fn(&str) -> bool| words.next().is_some_and(valid);
    let is_number = |word: &str| word.parse::<u64>().is_ok();
    line.len() <= MAX_CANDIDATE_LEN
        && next_is(|foundation| !foundation.is_empty())
        && next_is(is_number)
        && next_is(|transport| !transport.is_empty())
        && next_is(is_number)
        && next_is(|address| address.parse::<IpAddr>().is_ok())
        && next_is(|port| port.parse::<u16>().is_ok())
        && next_is(|word| word == "typ")
        && next_is(|kind| !kind.is_empty())
}

/// Lines that are no candidates are skipped.
pub(crate) fn candidates<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let mut lines: Vec<String> = lenient::list_with(deserializer, |entry| {
        let line = entry.as_str().filter(|line| is_candidate(line));
        if line.is_none() {
            tracing::debug!("skipping a text that is no ICE candidate");
        }
        Ok::<_, std::convert::Infallible>(line.map(str::to_owned))
    })?;
    lines.truncate(MAX_CANDIDATES);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "candidate:842163049 1 udp 2130706175 192.0.2.44 52625 typ host";

    #[derive(Deserialize)]
    struct Lines(#[serde(deserialize_with = "candidates")] Vec<String>);

    // portal 57
    #[test]
    fn portal_57_valid_candidates_survive_bad_ones() {
        let json = serde_json::json!([
            "",
            "garbage",
            7,
            null,
            HOST,
            "candidate:1 1 udp 1 host.local 5 typ host",
            "candidate:1467250027 1 udp 1694498815 2001:db8::7 52625 typ srflx raddr :: rport 0",
            "candidate:1 1 udp 1 192.0.2.1 70000 typ host",
            format!("{HOST} {}", "x".repeat(600)),
        ]);
        let Lines(lines) = serde_json::from_value(json).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], HOST);
    }

    #[test]
    fn number_of_candidates_is_bounded() {
        let json = serde_json::json!(vec![HOST; MAX_CANDIDATES + 50]);
        let Lines(lines) = serde_json::from_value(json).unwrap();
        assert_eq!(lines.len(), MAX_CANDIDATES);
    }
}
