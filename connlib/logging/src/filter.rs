//! The filter: directives in the grammar of `EnvFilter`, behind directives that silence noisy crates.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What is logged when nobody asked for anything.
pub const DEFAULT_DIRECTIVES: &str = "info";

/// Crates that log more than anybody wants to read. A directive of the user for the same crate comes later and wins.
const SILENCED: &str = "netlink_proto=warn,netlink_packet_route=warn,rtnetlink=warn,os_info=warn,rustls=warn,\
                        tokio_rustls=warn,tungstenite=info,tokio_tungstenite=info,h2=warn,hyper=warn,hyper_util=warn,\
                        hickory_proto=warn,hickory_resolver=warn,hickory_net=warn,notify=warn,mio=warn,opentelemetry=warn";

/// Directives that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the log filter `{directives}` is not valid: {source}")]
pub struct InvalidFilter {
    directives: String,
    source: ParseError,
}

/// Parses `directives`; empty ones mean [`DEFAULT_DIRECTIVES`].
pub fn parse(directives: &str) -> Result<EnvFilter, InvalidFilter> {
    let effective = effective(directives);
    EnvFilter::try_new(format!("{SILENCED},{effective}")).map_err(|source| InvalidFilter {
        directives: effective.to_owned(),
        source,
    })
}

/// The directives in force for what the user wrote.
pub fn effective(directives: &str) -> &str {
    match directives.trim() {
        "" => DEFAULT_DIRECTIVES,
        some => some,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_means_the_default() {
        let text = parse("  ").unwrap().to_string();
        assert!(
            text.split(',').any(|directive| directive == "info"),
            "{text}"
        );
    }

    #[test]
    fn noisy_crates_are_silenced_unless_the_user_asks_for_them() {
        assert!(parse("debug").unwrap().to_string().contains("rustls=warn"));
        let asked = parse("rustls=trace").unwrap().to_string();
        assert!(
            asked.contains("rustls=trace") && !asked.split(',').any(|d| d == "rustls=warn"),
            "{asked}"
        );
    }

    #[test]
    fn nonsense_is_rejected_with_the_text_that_was_written() {
        let error = parse("a=b=c=[").unwrap_err().to_string();
        assert!(error.contains("a=b=c=["), "{error}");
    }
}
