//! iperf3: finding it, its server, one run of its client.

use std::{
    io::ErrorKind,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use demo::{interrupt, process::Process};
use serde::{Deserialize, Serialize};
use testbed::Host;

/// How long the server may take to listen, at first and after a run.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much longer than asked for a run may take, until it counts as hanging.
const SLACK: Duration = Duration::from_secs(20);

/// Which way the payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    /// From the client into the resource.
    Forward,
    /// From the resource to the client.
    Reverse,
}

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Load {
    /// Parallel TCP connections.
    pub(crate) streams: u16,
    /// Which way.
    pub(crate) direction: Direction,
}

/// What one run came to, all streams together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Transfer {
    /// Payload that arrived.
    pub(crate) bytes: u64,
    /// Payload that arrived per second.
    pub(crate) bits_per_second: f64,
    /// Segments that the sender's kernel sent again.
    pub(crate) retransmits: u64,
}

/// iperf3's version line.
///
/// # Errors
///
/// If it is not installed.
pub(crate) fn version() -> Result<String> {
    match Command::new("iperf3").arg("--version").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(text.lines().next().unwrap_or_default().to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("cannot find iperf3 in PATH; install it with `apt-get install iperf3`")
        }
        Err(error) => Err(error).context("cannot start iperf3"),
    }
}

/// A running server, on all addresses of its host. It takes one run at a time.
pub(crate) struct Server {
    process: Process,
    runs: usize,
}

impl Server {
    /// Starts the server.
    pub(crate) fn start(host: &Host, logs: &Path) -> Result<Self> {
        let mut command = host.command("iperf3");
        command.args(["--server", "--forceflush"]);
        let process = Process::start("iperf3-server", command, logs)?;
        Ok(Self { process, runs: 0 })
    }

    /// Waits until the server has put the last run away, and counts one more.
    fn take_turn(&mut self) -> Result<()> {
        let before = self.runs;
        self.process.wait_for("it is idle", PATIENCE, |log| {
            (log.matches("Server listening").count() > before).then_some(())
        })?;
        self.runs += 1;
        Ok(())
    }
}

/// One run of the client.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// Address of the server.
    pub(crate) address: Ipv4Addr,
    /// What to send.
    pub(crate) load: Load,
    /// For how long.
    pub(crate) seconds: u32,
    /// Congestion control by the kernel's name, at both ends.
    pub(crate) congestion: &'a str,
}

impl Run<'_> {
    /// Runs the client on a host.
    pub(crate) fn between(&self, host: &Host, server: &mut Server) -> Result<Transfer> {
        server.take_turn()?;
        let mut command = host.command("iperf3");
        command
            .args(["--client", &self.address.to_string()])
            .args(["--time", &self.seconds.to_string()])
            .args(["--parallel", &self.load.streams.to_string()])
            .args(["--congestion", self.congestion])
            .args(["--connect-timeout", "5000", "--json"]);
        match self.load.direction {
            Direction::Forward => {}
            Direction::Reverse => {
                command.arg("--reverse");
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let limit = Duration::from_secs(self.seconds.into()) + SLACK;
        let text = wait(child, limit)?;
        parse(&text, self.congestion)
    }
}

/// Collects the output on a thread of its own, since a pipe holds less than a long report.
fn wait(mut child: Child, limit: Duration) -> Result<String> {
    let output = child.stdout.take().context("iperf3 without stdout")?;
    let reader = thread::spawn(move || std::io::read_to_string(output));
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        let late = Instant::now() > deadline;
        if late || interrupt::is_pending() {
            child.kill()?;
            child.wait()?;
            interrupt::check()?;
            bail!("iperf3 hangs: not done after {limit:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let text = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    Ok(text?)
}

#[derive(Deserialize)]
struct Report {
    error: Option<String>,
    end: End,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
    sender_tcp_congestion: Option<String>,
}

#[derive(Deserialize)]
struct Sum {
    bytes: u64,
    bits_per_second: f64,
    retransmits: Option<u64>,
}

fn parse(text: &str, congestion: &str) -> Result<Transfer> {
    let report: Report = serde_json::from_str(text).context("iperf3's report is unreadable")?;
    if let Some(error) = report.error {
        bail!("iperf3: {error}");
    }
    let sent = report
        .end
        .sum_sent
        .context("iperf3's report has no sum_sent")?;
    let received = report
        .end
        .sum_received
        .context("iperf3's report has no sum_received")?;
    let used = report.end.sender_tcp_congestion.unwrap_or_default();
    ensure!(
        used == congestion,
        "the sender used congestion control `{used}`, not `{congestion}`"
    );
    Ok(Transfer {
        bytes: received.bytes,
        bits_per_second: received.bits_per_second,
        retransmits: sent
            .retransmits
            .context("iperf3's report has no retransmits")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"start": {}, "intervals": [], "end": {"streams": [],
        "sum_sent": {"start": 0, "end": 1.004, "bytes": 1010, "bits_per_second": 8047.8, "retransmits": 19, "sender": false},
        "sum_received": {"start": 0, "end": 1.0, "bytes": 1000, "bits_per_second": 8000.0, "sender": false},
        "sender_tcp_congestion": "cubic", "receiver_tcp_congestion": "cubic"}}"#;

    #[test]
    fn counts_what_arrived() {
        let transfer = parse(REPORT, "cubic").unwrap();
        let expected = Transfer {
            bytes: 1000,
            bits_per_second: 8000.0,
            retransmits: 19,
        };
        assert_eq!(transfer, expected);
    }

    #[test]
    fn insists_on_the_congestion_control() {
        let error = parse(REPORT, "bbr").unwrap_err().to_string();
        assert_eq!(
            error,
            "the sender used congestion control `cubic`, not `bbr`"
        );
    }

    #[test]
    fn a_failed_run_says_why() {
        let report = r#"{"start": {}, "intervals": [], "end": {},
            "error": "unable to connect to server: Connection refused"}"#;
        let error = parse(report, "cubic").unwrap_err().to_string();
        assert_eq!(
            error,
            "iperf3: unable to connect to server: Connection refused"
        );
    }
}
