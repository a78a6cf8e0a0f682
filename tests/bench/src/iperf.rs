//! iperf3: finding it, its server, one run of its client.

use std::{
    io::ErrorKind,
    net::IpAddr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use demo::{interrupt, process::Process};
use serde::Deserialize;
use tempfile::TempDir;
use testbed::Host;

use crate::load::{Direction, Load, Traffic, Transfer};

/// How long the server may take to listen, at first and after a run.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much longer than asked for a run may take, until it counts as hanging.
const SLACK: Duration = Duration::from_secs(20);

/// Buffer of iperf3's UDP sockets. With the default of 208 KB iperf3 itself loses datagrams when super-packets come in.
const UDP_BUFFER: &str = "4M";

/// How iperf3 is told what to send.
fn arguments(load: Load, congestion: &str) -> Result<Vec<String>> {
    let mut arguments = match load.traffic {
        Traffic::Tcp { streams } => vec![
            "--parallel".to_owned(),
            streams.to_string(),
            "--congestion".to_owned(),
            congestion.to_owned(),
        ],
        Traffic::Udp { megabits, size } => vec![
            "--udp".to_owned(),
            "--bitrate".to_owned(),
            format!("{megabits}M"),
            "--length".to_owned(),
            size.to_string(),
            "--window".to_owned(),
            UDP_BUFFER.to_owned(),
        ],
        Traffic::Quic => bail!("iperf3 does not send trains"),
    };
    match load.direction {
        Direction::Forward => {}
        Direction::Reverse => arguments.push("--reverse".to_owned()),
        Direction::Both => arguments.push("--bidir".to_owned()),
    }
    Ok(arguments)
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

/// A running server, on one address of its host: on all of them, its UDP socket would answer from whichever the kernel
/// likes. It takes one run at a time.
pub(crate) struct Server {
    process: Process,
    address: IpAddr,
    runs: usize,
    _logs: TempDir,
}

impl Server {
    /// Starts the server.
    pub(crate) fn start(host: &Host, address: IpAddr) -> Result<Self> {
        let logs = tempfile::Builder::new()
            .prefix("firezone-bench-iperf-")
            .tempdir()?;
        let mut command = host.command("iperf3");
        command
            .args(["--server", "--forceflush"])
            .args(["--bind", &address.to_string()]);
        let process = Process::start("iperf3-server", command, logs.path())?;
        Ok(Self {
            process,
            address,
            runs: 0,
            _logs: logs,
        })
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
    /// What to send.
    pub(crate) load: Load,
    /// For how long.
    pub(crate) seconds: u32,
    /// TCP's congestion control by the kernel's name, at both ends.
    pub(crate) congestion: &'a str,
}

impl Run<'_> {
    /// Runs the client on a host.
    pub(crate) fn between(&self, host: &Host, server: &mut Server) -> Result<Transfer> {
        server.take_turn()?;
        let mut command = host.command("iperf3");
        command
            .args(["--client", &server.address.to_string()])
            .args(["--time", &self.seconds.to_string()])
            .args(arguments(self.load, self.congestion)?)
            .args(["--connect-timeout", "5000", "--json"]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let limit = Duration::from_secs(self.seconds.into()) + SLACK;
        let text = wait(child, limit)?;
        parse(&text, self.load, self.congestion)
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
    sum_sent_bidir_reverse: Option<Sum>,
    sum_received_bidir_reverse: Option<Sum>,
    sender_tcp_congestion: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sum {
    bytes: u64,
    bits_per_second: f64,
    retransmits: u64,
    packets: u64,
    lost_packets: u64,
}

fn parse(text: &str, load: Load, congestion: &str) -> Result<Transfer> {
    let report: Report = serde_json::from_str(text).context("iperf3's report is unreadable")?;
    if let Some(error) = report.error {
        bail!("iperf3: {error}");
    }
    let end = report.end;
    if let Traffic::Tcp { .. } = load.traffic {
        let used = end.sender_tcp_congestion.unwrap_or_default();
        ensure!(
            used == congestion,
            "the sender used congestion control `{used}`, not `{congestion}`"
        );
    }
    let mut directions = vec![(end.sum_sent, end.sum_received)];
    if load.direction == Direction::Both {
        directions.push((end.sum_sent_bidir_reverse, end.sum_received_bidir_reverse));
    }
    let mut total = Transfer {
        slower_bits_per_second: f64::INFINITY,
        ..Transfer::default()
    };
    for (sent, received) in directions {
        let sent = sent.context("iperf3's report does not say what was sent")?;
        let received = received.context("iperf3's report does not say what arrived")?;
        total.bytes += received.bytes;
        total.bits_per_second += received.bits_per_second;
        total.slower_bits_per_second = total.slower_bits_per_second.min(received.bits_per_second);
        total.retransmits += sent.retransmits;
        total.datagrams += received.packets;
        total.lost += received.lost_packets;
    }
    ensure!(total.bytes > 0, "nothing arrived");
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{DATAGRAM, Version};

    const TCP: Load = Load {
        traffic: Traffic::Tcp { streams: 1 },
        direction: Direction::Forward,
        ip: Version::V4,
    };
    const REPORT: &str = r#"{"start": {}, "intervals": [], "end": {"streams": [],
        "sum_sent": {"start": 0, "end": 1.004, "bytes": 1010, "bits_per_second": 8047.8, "retransmits": 19, "sender": true},
        "sum_received": {"start": 0, "end": 1.0, "bytes": 1000, "bits_per_second": 8000.0, "sender": true},
        "sum_sent_bidir_reverse": {"bytes": 510, "bits_per_second": 4010.0, "retransmits": 1, "sender": false},
        "sum_received_bidir_reverse": {"bytes": 500, "bits_per_second": 4000.0, "sender": false},
        "sender_tcp_congestion": "cubic", "receiver_tcp_congestion": "cubic"}}"#;

    #[test]
    fn counts_what_arrived() {
        let transfer = parse(REPORT, TCP, "cubic").unwrap();
        let expected = Transfer {
            bytes: 1000,
            bits_per_second: 8000.0,
            slower_bits_per_second: 8000.0,
            retransmits: 19,
            ..Transfer::default()
        };
        assert_eq!(transfer, expected);
    }

    #[test]
    fn both_directions_are_added_up() {
        let load = Load {
            direction: Direction::Both,
            ..TCP
        };
        let transfer = parse(REPORT, load, "cubic").unwrap();
        assert_eq!((transfer.bytes, transfer.retransmits), (1500, 20));
        assert_eq!(transfer.bits_per_second, 12_000.0);
        assert_eq!(transfer.slower_bits_per_second, 4000.0);
    }

    #[test]
    fn datagrams_lost_on_the_way() {
        let report = r#"{"end": {
            "sum_sent": {"bytes": 12489600, "bits_per_second": 99908107.9, "lost_packets": 0, "packets": 10408},
            "sum_received": {"bytes": 12426000, "bits_per_second": 98989669.6, "lost_packets": 52, "packets": 10400}}}"#;
        let load = Load {
            traffic: Traffic::Udp {
                megabits: 100,
                size: DATAGRAM,
            },
            ..TCP
        };
        let transfer = parse(report, load, "cubic").unwrap();
        assert_eq!((transfer.lost, transfer.datagrams), (52, 10_400));
        assert_eq!(transfer.loss_percent(), 0.5);
    }

    #[test]
    fn insists_on_the_congestion_control() {
        let error = parse(REPORT, TCP, "bbr").unwrap_err().to_string();
        assert_eq!(
            error,
            "the sender used congestion control `cubic`, not `bbr`"
        );
    }

    #[test]
    fn a_failed_run_says_why() {
        let report = r#"{"start": {}, "intervals": [], "end": {},
            "error": "unable to connect to server: Connection refused"}"#;
        let error = parse(report, TCP, "cubic").unwrap_err().to_string();
        assert_eq!(
            error,
            "iperf3: unable to connect to server: Connection refused"
        );
    }
}
