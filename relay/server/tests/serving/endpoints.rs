//! Metrics and control over HTTP.

use std::net::{Ipv4Addr, SocketAddr};

use super::process::{Launch, http, ports};

const ARGUMENTS: [&str; 3] = ["--standalone", "--profile", "portal"];

#[test]
fn metrics_and_control_at_addresses_of_their_own() {
    let first = ports();
    let own = ports();
    let [metrics, control] = [0, 1].map(|it| SocketAddr::from((Ipv4Addr::LOCALHOST, own + it)));
    let (metrics_text, control_text) = (metrics.to_string(), control.to_string());
    let more = [
        "--metrics-addr",
        &metrics_text,
        "--control-endpoint",
        &control_text,
    ];
    let relay = Launch::new(first, &[&ARGUMENTS[..], &more].concat()).ready();
    assert_eq!(relay.get("/metrics").unwrap().0, 404);
    let (status, text) = http(metrics, "GET", "/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(text.contains("relay_active_allocations 0"), "{text}");
    assert!(!text.contains("user"), "{text}");

    let post = |query: &str| {
        http(control, "POST", &format!("/log_filter{query}"))
            .unwrap()
            .0
    };
    assert_eq!(post("?directives=debug"), 200);
    assert_eq!(post("?directives=a%3Db%3Dc%3D%5B"), 400);
    assert_eq!(post(""), 400);
    assert_eq!(http(control, "GET", "/healthz").unwrap().0, 404);
}
