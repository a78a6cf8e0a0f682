//! Filters as they are written: `tcp`, `tcp:443`, `udp:1000-2000`, `icmp`.

use std::ops::RangeInclusive;

use connlib_model::Filter;

/// What to write instead of something that is no filter.
pub(super) const EXAMPLES: &str = r#"Write "tcp", "tcp:443", "udp:1000-2000" or "icmp"."#;

/// Reads a filter; `None` when it is none.
pub(super) fn parse(text: &str) -> Option<Filter> {
    let (protocol, ports) = match text.split_once(':') {
        Some((protocol, ports)) => (protocol, Some(parse_ports(ports)?)),
        None => (text, None),
    };
    match (protocol.trim(), ports) {
        ("tcp", ports) => Some(Filter::Tcp(ports.unwrap_or(0..=u16::MAX))),
        ("udp", ports) => Some(Filter::Udp(ports.unwrap_or(0..=u16::MAX))),
        ("icmp", None) => Some(Filter::Icmp),
        _ => None,
    }
}

fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse("tcp"), Some(Filter::ALL_TCP));
        assert_eq!(parse("tcp:80"), Some(Filter::Tcp(80..=80)));
        assert_eq!(parse("udp:100 - 200"), Some(Filter::Udp(100..=200)));
        assert_eq!(parse("icmp"), Some(Filter::Icmp));
        for bad in [
            "",
            "sctp",
            "icmp:8",
            "tcp:",
            "tcp:x",
            "tcp:9-8",
            "tcp:70000",
            "443",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
