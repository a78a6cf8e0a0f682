//! coturn's own clients against a stand-alone relay: C-1, C-39, C-40, C-45. They come with Debian's package `coturn`.

use std::process::{Child, Command, Output, Stdio};

use super::process::{Launch, Relay, block, credentials};

const ALLOCATIONS: u16 = 256;

struct Bench {
    relay: Relay,
    peers: Vec<Child>,
    peer_port: String,
}

impl Bench {
    /// A stand-alone relay and a peer that sends everything back; `None` where the tools are not installed.
    fn new() -> Option<Self> {
        if Command::new("turnutils_peer").arg("-h").output().is_err() {
            println!("cannot run: turnutils_uclient is not installed (Debian package coturn)");
            return None;
        }
        let first = block(ALLOCATIONS);
        let peer_port = block(0).to_string();
        let peer = |address| {
            Command::new("turnutils_peer")
                .args(["-L", address, "-p", &peer_port])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let peers = ["127.0.0.1", "::1"].map(|address| peer(address).unwrap());
        let relay = Launch {
            allocations: ALLOCATIONS,
            ..Launch::new(first, &["--standalone"])
        };
        Some(Self {
            relay: relay.ready(),
            peers: peers.into(),
            peer_port,
        })
    }

    /// Runs the client; panics unless all its messages came back.
    fn run(&self, arguments: &[&str], server: &str) {
        let (username, password) = credentials("uclient");
        let output = Command::new("timeout")
            .args([
                "100",
                "turnutils_uclient",
                "-v",
                "-u",
                &username,
                "-w",
                &password,
            ])
            .args(["-p", &self.relay.port.to_string(), "-r", &self.peer_port])
            .args(["-c", "-n", "200", "-l", "1000"])
            .args(arguments)
            .arg(server)
            .output()
            .unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{arguments:?}: {text}");
        let last = text
            .lines()
            .rfind(|line| line.contains("Total lost packets"));
        let last = last.unwrap_or_else(|| panic!("{arguments:?}: {text}"));
        assert!(
            last.contains("Total lost packets 0 ("),
            "{arguments:?}: {last}"
        );
    }

    /// All of them at the same time.
    fn run_all(&self, cases: &[(&[&str], &str)]) {
        std::thread::scope(|scope| {
            for (arguments, server) in cases {
                scope.spawn(|| self.run(arguments, server));
            }
        });
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for peer in &mut self.peers {
            let _ = peer.kill();
            let _ = peer.wait();
        }
    }
}

fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|it| String::from_utf8_lossy(it)).concat()
}

#[test]
fn relay_45_uclient_through_channels() {
    let Some(bench) = Bench::new() else { return };
    bench.run_all(&[
        (&["-m", "1", "-e", "127.0.0.1"], "127.0.0.1"),
        (&["-m", "50", "-e", "127.0.0.1"], "127.0.0.1"),
        (&["-m", "1", "-g", "-e", "127.0.0.1"], "127.0.0.1"),
        (&["-m", "1", "-x", "-e", "::1"], "::1"),
    ]);
}

#[test]
fn relay_45_uclient_across_families() {
    let Some(bench) = Bench::new() else { return };
    bench.run_all(&[
        (&["-m", "1", "-x", "-e", "::1"], "127.0.0.1"),
        (&["-m", "1", "-e", "127.0.0.1"], "::1"),
    ]);
}

#[test]
fn relay_39_uclient_with_indications() {
    let Some(bench) = Bench::new() else { return };
    bench.run_all(&[
        (&["-m", "1", "-s", "-e", "127.0.0.1"], "127.0.0.1"),
        (&["-m", "10", "-s", "-e", "127.0.0.1"], "127.0.0.1"),
        (&["-m", "1", "-s", "-x", "-e", "::1"], "::1"),
        (&["-m", "1", "-s", "-x", "-e", "::1"], "127.0.0.1"),
        (&["-m", "1", "-s", "-e", "127.0.0.1"], "::1"),
    ]);
}

#[test]
fn relay_40_uclient_from_client_to_client() {
    let Some(bench) = Bench::new() else { return };
    bench.run_all(&[
        (&["-m", "2", "-y"], "127.0.0.1"),
        (&["-m", "2", "-y", "-s"], "127.0.0.1"),
    ]);
}

#[test]
fn relay_01_stunclient() {
    let Some(bench) = Bench::new() else { return };
    for server in ["127.0.0.1", "::1"] {
        let output = Command::new("timeout")
            .args(["20", "turnutils_stunclient", "-p"])
            .arg(bench.relay.port.to_string())
            .arg(server)
            .output()
            .unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("reflexive addr"), "{text}");
    }
}
