//! The generator of `bench turn` against our own relay, in namespaces. Rates are low: this is about counting, not speed.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Output};

use serde_json::Value;

/// A rate that any machine can do, in packets per second.
const RATE: u32 = 2000;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("turn")
        .args(arguments)
        .output()
        .unwrap()
}

/// The JSON on stdout, or `None` where namespaces cannot be made.
fn measure(arguments: &[&str]) -> Option<Value> {
    let output = bench(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("cannot make") || stderr.contains("/dev/net/tun") {
        eprintln!("skipped: {stderr}");
        return None;
    }
    assert!(output.status.success(), "{stderr}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[track_caller]
fn load(arguments: &[&str]) {
    let rate = RATE.to_string();
    let common = [
        "load",
        "--rate",
        &rate,
        "--seconds",
        "1",
        "--no-pin",
        "--json",
    ];
    let Some(result) = measure(&[&common[..], arguments].concat()) else {
        return;
    };
    let number = |name: &str| result[name].as_u64().unwrap();
    let sent = number("sent");
    // Far from the whole second's worth only if the machine is busy with something else.
    assert!(
        (u64::from(RATE) / 10..=u64::from(RATE)).contains(&sent),
        "{result}"
    );
    assert!(number("received") > sent / 2, "{result}");
    assert!(number("received") <= sent, "{result}");
    assert_eq!((number("strange"), number("late")), (0, 0), "{result}");
    assert!(
        result["server"]["cpu_seconds"].as_f64().unwrap() > 0.0,
        "{result}"
    );
}

#[test]
fn clients_to_peers() {
    load(&["--allocations", "3", "--size", "64"]);
}

#[test]
fn peers_to_clients_over_ipv6() {
    load(&[
        "--direction",
        "peer-to-client",
        "--family",
        "v6",
        "--allocations",
        "3",
    ]);
}

#[test]
fn both_ways_across_families_in_trains() {
    load(&["--direction", "both", "--family", "v4-to-v6", "--gso"]);
}

#[test]
fn between_two_allocations() {
    load(&["--direction", "relay-relay", "--allocations", "2"]);
}

#[test]
fn refreshes_are_answered_beside_the_load() {
    let rate = RATE.to_string();
    let arguments = [
        "load",
        "--rate",
        &rate,
        "--seconds",
        "2",
        "--refresh",
        "1",
        "--no-pin",
        "--json",
    ];
    let Some(result) = measure(&arguments) else {
        return;
    };
    let refreshes = &result["refreshes"];
    assert!(refreshes["sent"].as_u64().unwrap() >= 2, "{result}");
    assert_eq!(refreshes["sent"], refreshes["granted"], "{result}");
}

#[test]
fn a_relay_of_a_portal_stays_joined() {
    let arguments = [
        "load",
        "--portal",
        "--mbit",
        "0.1",
        "--allocations",
        "3",
        "--seconds",
        "2",
        "--no-pin",
        "--json",
    ];
    let Some(result) = measure(&arguments) else {
        return;
    };
    assert!(result["portal"]["asked"].as_u64().unwrap() >= 2, "{result}");
    assert_eq!(result["portal"]["failed"], 0, "{result}");
}

#[test]
fn idle_allocations_have_a_price() {
    let arguments = [
        "hold",
        "--allocations",
        "200",
        "--seconds",
        "1",
        "--no-pin",
        "--json",
    ];
    let Some(result) = measure(&arguments) else {
        return;
    };
    let bytes = result["rss_bytes_per_allocation"].as_f64().unwrap();
    assert!((0.0..1_000_000.0).contains(&bytes), "{result}");
}

#[test]
fn nobody_elses_server_is_loaded() {
    let output = bench(&[
        "load",
        "--flood",
        "--server",
        "203.0.113.1:3478",
        "--user",
        "u",
        "--password",
        "p",
    ]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("is not on loopback"), "{stderr}");
}

#[test]
fn a_quiet_allocation_counts_by_itself() {
    let rate = RATE.to_string();
    let arguments = [
        "load",
        "--rate",
        &rate,
        "--allocations",
        "3",
        "--quiet",
        "100",
        "--direction",
        "both",
        "--seconds",
        "1",
        "--no-pin",
        "--json",
    ];
    let Some(result) = measure(&arguments) else {
        return;
    };
    let quiet = &result["quiet"];
    // One each way every tenth of a second, unless the machine is busy with something else.
    let sent = quiet["sent"].as_u64().unwrap();
    assert!((2..=20).contains(&sent), "{result}");
    assert!(quiet["latency"]["p99_us"].as_f64().unwrap() > 0.0);
    assert!(result["sent"].as_u64().unwrap() > sent, "{result}");
}
