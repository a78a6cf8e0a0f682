//! A client that blocks: C-48, in a network namespace of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    process::{Launch, receive, socket},
    raw::{Raw, framed, refresh},
};

/// Nobody else is in the namespace.
pub(crate) const FIRST_PORT: u16 = 20_000;
const ARGUMENTS: [&str; 3] = ["--standalone", "--profile", "portal"];

/// Runs a test in a fresh network namespace, or says why it cannot.
pub(crate) fn in_namespace(commands: &[&str], test: impl FnOnce() + Send + 'static) {
    let script = commands.join(" && ");
    let thread = std::thread::spawn(move || {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            println!("cannot run: a network namespace needs root ({error})");
            return;
        }
        // Set up from this thread, whose namespace the child inherits.
        let status = Command::new("sh").args(["-ec", &script]).status().unwrap();
        if !status.success() {
            println!("cannot run: `{script}` failed");
            return;
        }
        test();
    });
    thread.join().unwrap();
}

/// A device so slow that an allocation's socket fills up: its client loses data, nobody else does.
#[test]
fn relay_48_a_blocked_allocation_delays_nobody() {
    let slow = [
        "ip link set lo up",
        "ip link add slow type veth peer name end",
        "ip addr add 203.0.113.1/24 dev slow",
        "ip link set slow up",
        "ip link set end up",
        "ip neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev slow nud permanent",
        "tc qdisc add dev slow root tbf rate 8kbit burst 1600 limit 1000000000",
    ];
    in_namespace(&slow, || {
        let relay = Launch::new(FIRST_PORT, &ARGUMENTS).ready();
        let server = relay.server(Ipv4Addr::LOCALHOST);
        let mut blocked = Raw::new(server, "blocked");
        blocked.allocate();
        blocked.bind(0x4000, "203.0.113.9:9".parse().unwrap());
        let mut other = Raw::new(server, "other");
        let relayed = other.allocate();
        let peer = socket("127.0.0.1:0");
        other.bind(0x4000, peer.local_addr().unwrap());

        let deadline = Instant::now() + Duration::from_secs(30);
        let mut round = 0_u32;
        while dropped(&relay.get("/metrics").unwrap().1) == 0 {
            assert!(Instant::now() < deadline, "the socket never fills up");
            for _ in 0..500 {
                blocked.send(&framed(0x4000, &[7; 1300]));
            }
            round += 1;
            other.send(&framed(0x4000, &round.to_be_bytes()));
            assert_eq!(receive(&peer).0, round.to_be_bytes());
            let back: SocketAddr = (Ipv4Addr::LOCALHOST, relayed.port()).into();
            peer.send_to(b"back", back).unwrap();
            assert_eq!(receive(&other.socket).0, framed(0x4000, b"back"));
        }
        // The blocked client can still talk to the relay.
        assert_eq!(blocked.code(refresh(None)), None);
    });
}

fn dropped(metrics: &str) -> u64 {
    let line = metrics
        .lines()
        .find(|line| line.starts_with("relay_drops_total") && line.contains("queue_full"));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}
