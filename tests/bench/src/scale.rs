//! Many clients on one gateway: what each costs it while idle, and what they get together when all send at once; with one
//! worker of the gateway beside several.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::RangedU64ValueParser;
use demo::interrupt;
use serde::Serialize;

use crate::{
    counters::Counters,
    idle::{self, Idle},
    network::{self, Route},
    progress::Progress,
    stage::Stage,
    statistics::Spread,
    swarm::{self, DISCARD_PORT},
};

/// Each client may take this long to connect, on average; and the swarm as a whole at least a minute.
const PATIENCE_PER_CLIENT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory of an idle client at the gateway.
const GOAL_BYTES: f64 = 64.0 * 1024.0;
/// Wake-ups per second and connection of an idle gateway.
const GOAL_WAKE_UPS: f64 = 1.0;
/// Most clients: the portal allows a person no more devices.
const MAX_CLIENTS: u64 = 1000;

/// Command line of `bench scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Portal, relay and gateway are the real programs. The clients are real sessions with real sockets in one process, without
TUN devices; the gateway cannot tell.

Examples:
  bench scale                      10, 100, 1000 clients: about 5 minutes
  bench scale --clients 50 --idle-seconds 10 --seconds 3
  bench scale --clients 8 --workers 1,2 --rounds 3    one and two workers of the gateway in turns, and their ratio")]
pub(crate) struct Options {
    /// Numbers of clients; each gets a fresh system.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10,100,1000",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=MAX_CLIENTS)
    )]
    clients: Vec<usize>,
    /// Seconds of watching the idle gateway.
    #[arg(long, default_value_t = 30, value_parser = RangedU64ValueParser::<u32>::new().range(1..=3600))]
    idle_seconds: u32,
    /// Seconds during which all clients send.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=600))]
    seconds: u32,
    /// Numbers of the gateway's workers, in turns.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1",
        value_parser = clap::value_parser!(u16).range(1..=32)
    )]
    workers: Vec<u16>,
    /// How often each combination has its turn.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    rounds: usize,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    /// Leave the logs of our processes behind.
    #[arg(long)]
    keep_logs: bool,
}

/// One number of clients.
#[derive(Debug, Clone, Serialize)]
struct Row {
    clients: usize,
    /// Of the gateway.
    workers: u16,
    /// From the first login to the last answered packet.
    connect_seconds: f64,
    /// CPU time that connecting took, of all clients together.
    gateway_connect_cpu_seconds: f64,
    relay_connect_cpu_seconds: f64,
    portal_connect_cpu_seconds: f64,
    /// Growth of the gateway's memory by connecting, per client.
    gateway_bytes_per_client: f64,
    /// The same for the relay: one allocation per client.
    relay_bytes_per_client: f64,
    /// The same for the portal.
    portal_bytes_per_client: f64,
    /// The gateway with all clients idle.
    idle: Idle,
    /// Clients that were still there afterwards.
    answered: usize,
    /// Payload that all clients sent, of which the gateway passed on the other.
    sent_gbit_per_second: f64,
    passed_gbit_per_second: f64,
    /// Gateway's CPU seconds per Gbit passed.
    cpu_seconds_per_gbit: f64,
    /// Datagrams that did not fit into the gateway's buffers: all senders together are faster than it.
    udp_drops: u64,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let progress = Progress::new();
    let mut rows = Vec::new();
    for &clients in &options.clients {
        for _ in 0..options.rounds {
            for &workers in &options.workers {
                rows.push(measure(clients, workers, options, &progress)?);
            }
        }
    }
    progress.clear();
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&rows)?),
        false => print!("{}", table(&rows)),
    }
    Ok(())
}

fn measure(clients: usize, workers: u16, options: &Options, progress: &Progress) -> Result<Row> {
    let stage = Stage::with_workers(Route::Direct, workers, options.keep_logs, progress)?;
    let _discard = stage
        .network
        .gateway
        .run(|| Ok(UdpSocket::bind((network::SERVER, DISCARD_PORT))?))?;
    let processes = stage.system.all();
    let read = |name| Counters::read(processes[name]);
    let before = [read("gateway")?, read("relay")?, read("portal")?];

    let started = Instant::now();
    let mut swarm = Swarm::start(&stage, clients)?;
    swarm.wait_until_connected(clients, progress)?;
    let connect_seconds = started.elapsed().as_secs_f64();
    let connected = [read("gateway")?, read("relay")?, read("portal")?];
    let connect_cpu = |index: usize| (connected[index] - before[index]).cpu_seconds;

    let gateway = [("gateway".to_owned(), processes["gateway"])];
    let time = Duration::from_secs(options.idle_seconds.into());
    let idle = idle::watch(&gateway, time, progress)?.remove(0);
    let after = [read("gateway")?, read("relay")?, read("portal")?];
    let per_client = |index: usize| {
        let [before, after] = [&before, &after].map(|all| all[index].rss_bytes as f64);
        (after - before) / clients as f64
    };
    let answered = swarm.ask("ping", "answered ")? as usize;

    progress.say(&format!("{clients} clients send"));
    let (then, since) = (read("gateway")?, Instant::now());
    let sent = swarm.ask(&format!("load {}", options.seconds), "sent ")? as f64 * 8.0 / 1e9;
    let grown = read("gateway")? - then;
    let seconds = since.elapsed().as_secs_f64();
    let passed = grown.tun_in_bytes as f64 * 8.0 / 1e9;
    drop(swarm);
    stage.system.stop()?;
    Ok(Row {
        clients,
        workers,
        connect_seconds,
        gateway_connect_cpu_seconds: connect_cpu(0),
        relay_connect_cpu_seconds: connect_cpu(1),
        portal_connect_cpu_seconds: connect_cpu(2),
        gateway_bytes_per_client: per_client(0),
        relay_bytes_per_client: per_client(1),
        portal_bytes_per_client: per_client(2),
        idle,
        answered,
        sent_gbit_per_second: sent / seconds,
        passed_gbit_per_second: passed / seconds,
        cpu_seconds_per_gbit: grown.cpu_seconds / passed,
        udp_drops: grown.udp_drops,
    })
}

/// The running swarm.
struct Swarm {
    child: Child,
    orders: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Swarm {
    fn start(stage: &Stage, clients: usize) -> Result<Self> {
        let mut command = stage.network.client.command(std::env::current_exe()?);
        command
            .arg(swarm::ARGUMENT)
            .args(["--portal", &stage.system.portal_url()])
            .args(network::swarm_addresses().map(|address| format!("--local={address}")))
            .args(["--target", &network::SERVER.to_string()])
            .args(["--count", &clients.to_string()])
            .env("FIREZONE_TOKEN", stage.system.swarm_token())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the swarm")?;
        let orders = child.stdin.take().context("a swarm without stdin")?;
        let output = child.stdout.take().context("a swarm without stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            orders,
            lines,
        })
    }

    fn wait_until_connected(&mut self, clients: usize, progress: &Progress) -> Result<()> {
        let patience = PATIENCE.max(PATIENCE_PER_CLIENT * u32::try_from(clients)?);
        let deadline = Instant::now() + patience;
        let mut told = 0;
        while told < clients {
            if Instant::now() > deadline {
                let missing = self.answer("missing", "missing ")?;
                bail!(
                    "{told} of {clients} clients are connected after {patience:?}; missing: {missing}"
                );
            }
            let line = self.next_line(deadline + PATIENCE)?;
            if let Some(count) = line.strip_prefix("connected ") {
                let count = count.parse()?;
                if count != told {
                    progress.say(&format!("{count} of {clients} clients are connected"));
                }
                told = count;
            }
        }
        Ok(())
    }

    /// Gives an order and reads the number in its answer.
    fn ask(&mut self, order: &str, prefix: &str) -> Result<u64> {
        Ok(self.answer(order, prefix)?.parse()?)
    }

    /// Gives an order and reads what stands behind `prefix` in its answer.
    fn answer(&mut self, order: &str, prefix: &str) -> Result<String> {
        writeln!(self.orders, "{order}")?;
        let deadline = Instant::now() + PATIENCE * 11;
        loop {
            let line = self.next_line(deadline)?;
            if let Some(answer) = line.strip_prefix(prefix) {
                return Ok(answer.to_owned());
            }
        }
    }

    fn next_line(&self, deadline: Instant) -> Result<String> {
        loop {
            interrupt::check()?;
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => {
                    ensure!(Instant::now() < deadline, "the swarm does not answer");
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the swarm has ended"),
            }
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // Its members need no farewell: the system around them ends next.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "One gateway, direct paths. Memory: growth per connected client. Idle: the gateway with all clients silent.\n\
         Load: all clients send UDP of 1200 bytes as fast as they can; passed: written to the gateway's TUN device.\n\n\
         {:>7} {:>7} {:>9} {:>16} {:>11} {:>11} {:>11} {:>9} {:>10} {:>12} {:>8} {:>8} {:>7} {:>8}\n",
        "clients",
        "workers",
        "connect",
        "(CPU s of each)",
        "gateway KiB",
        "relay KiB",
        "portal KiB",
        "idle CPU",
        "wake-ups/s",
        "per client",
        "answered",
        "passed",
        "CPU",
        "drops"
    );
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:>7} {:>7} {:>7.1} s {:>16} {:>11.1} {:>11.1} {:>11.1} {:>7.2} % {:>10.1} {:>12.3} {:>8} {:>3.2} G/s {:>7.3} {:>8}",
            row.clients,
            row.workers,
            row.connect_seconds,
            row.connect_cpu(),
            row.gateway_bytes_per_client / 1024.0,
            row.relay_bytes_per_client / 1024.0,
            row.portal_bytes_per_client / 1024.0,
            row.idle.cpu_percent,
            row.idle.wake_ups_per_second,
            row.wake_ups_per_client(),
            row.answered,
            row.passed_gbit_per_second,
            row.cpu_seconds_per_gbit,
            row.udp_drops,
        );
    }
    text += &ratios(rows);
    let verdict = |met| if met { "ok    " } else { "MISSED" };
    if let Some(most) = rows.iter().max_by_key(|row| row.clients) {
        let _ = writeln!(
            text,
            "\n{} memory per idle client at the gateway < 64 KiB\n{} wake-ups per second and idle connection <= {GOAL_WAKE_UPS}\n{} every client is still there",
            verdict(most.gateway_bytes_per_client < GOAL_BYTES),
            verdict(most.wake_ups_per_client() <= GOAL_WAKE_UPS),
            verdict(rows.iter().all(|row| row.answered == row.clients)),
        );
    }
    text
}

/// What further workers change, as ratios of medians to the first number of workers; nothing without turns.
fn ratios(rows: &[Row]) -> String {
    let mut text = String::new();
    let median = |clients, workers, figure: fn(&Row) -> f64| {
        let same = |row: &&Row| (row.clients, row.workers) == (clients, workers);
        Spread::of(rows.iter().filter(same).map(figure)).map_or(f64::NAN, |it| it.median)
    };
    let mut seen = BTreeSet::new();
    for row in rows {
        let Some(first) = rows.iter().find(|other| other.clients == row.clients) else {
            continue;
        };
        if first.workers == row.workers || !seen.insert((row.clients, row.workers)) {
            continue;
        }
        let ratio = |figure| {
            median(row.clients, row.workers, figure) / median(row.clients, first.workers, figure)
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} clients, {} ÷ {} workers: passed {:.2}, CPU per Gbit {:.2}, idle wake-ups {:.2}, memory per client {:.2}",
            row.clients,
            row.workers,
            first.workers,
            ratio(|row| row.passed_gbit_per_second),
            ratio(|row| row.cpu_seconds_per_gbit),
            ratio(|row| row.idle.wake_ups_per_second),
            ratio(|row| row.gateway_bytes_per_client),
        );
    }
    if !text.is_empty() {
        text.insert(0, '\n');
    }
    text
}

impl Row {
    /// Gateway, relay, portal.
    fn connect_cpu(&self) -> String {
        format!(
            "({:.1} {:.1} {:.1})",
            self.gateway_connect_cpu_seconds,
            self.relay_connect_cpu_seconds,
            self.portal_connect_cpu_seconds
        )
    }

    fn wake_ups_per_client(&self) -> f64 {
        self.idle.wake_ups_per_second / self.clients as f64
    }
}
