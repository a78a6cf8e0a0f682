//! Many clients in one process: real sessions with real portal channels and UDP sockets, but no TUN device.
//!
//! A thousand client processes with a namespace each would measure the machine. What is measured here is the gateway,
//! which cannot tell the difference: each member logs in as a device of its own, asks for access, finds a path, and
//! sends packets that it makes itself.
//!
//! The swarm is a process of its own (this executable, started with [`ARGUMENT`]), so that its work is not counted for
//! anybody else. It takes one command per line on its standard input and answers with one line each.
//!
//! | Command | Answer |
//! |---|---|
//! | `ping` | `answered N`: members whose echo came back |
//! | `missing` | `missing WHO`: members without a connection, with their addresses |
//! | `load SECONDS` | `sent BYTES`: payload that all members together handed to their sockets |

mod member;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser as _;
use tokio::sync::{Semaphore, broadcast, mpsc};

pub(crate) use member::DISCARD_PORT;

/// First argument of the swarm's command line.
pub(crate) const ARGUMENT: &str = "__swarm";
/// Members that log in and look for a path at the same time; more of them only wait for each other.
const AT_ONCE: usize = 16;
/// How long answers to echo requests may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Command line of the swarm.
#[derive(Debug, clap::Parser)]
struct Arguments {
    #[arg(long)]
    portal: String,
    #[arg(long, env = "FIREZONE_TOKEN", hide_env_values = true)]
    token: String,
    /// Addresses that the members share.
    #[arg(long, required = true)]
    local: Vec<Ipv4Addr>,
    /// Host behind the gateway.
    #[arg(long)]
    target: Ipv4Addr,
    #[arg(long)]
    count: usize,
}

/// What members are told.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Send one echo request.
    Ping,
    /// Send as fast as it goes, for so long.
    Load(Duration),
}

/// What all members count together.
#[derive(Debug, Default)]
struct Tally {
    connected: AtomicU64,
    /// Numbers and addresses of those that are not connected yet.
    missing: Mutex<BTreeMap<usize, Option<Ipv4Addr>>>,
    answered: AtomicU64,
    sent: AtomicU64,
}

impl Tally {
    fn missing(&self) -> MutexGuard<'_, BTreeMap<usize, Option<Ipv4Addr>>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all members have in common.
struct Shared {
    arguments: Arguments,
    tally: Tally,
    /// Permission to connect.
    turnstile: Arc<Semaphore>,
}

/// Becomes the swarm if the command line says so.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    if arguments.next().as_deref() != Some(ARGUMENT) {
        return None;
    }
    let arguments = Arguments::parse_from(std::iter::once(program).chain(arguments));
    Some(match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swarm: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(Arc::new(Shared {
        arguments,
        tally: Tally::default(),
        turnstile: Arc::new(Semaphore::new(AT_ONCE)),
    })))
}

async fn serve(shared: Arc<Shared>) -> Result<()> {
    let (orders, _) = broadcast::channel(4);
    let mut members = tokio::task::JoinSet::new();
    for number in 0..shared.arguments.count {
        members.spawn(member::run(number, Arc::clone(&shared), orders.subscribe()));
    }
    let mut lines = lines();
    let mut told = 0;
    loop {
        let tick = tokio::time::sleep(Duration::from_millis(200));
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => println!("{}", obey(&line, &shared, &orders).await?),
                None => return Ok(()),
            },
            Some(ended) = members.join_next() => {
                ended.context("a member panicked")?.context("a member ended")?;
            }
            () = tick, if told < shared.arguments.count as u64 => {
                told = shared.tally.connected.load(Ordering::Relaxed);
                println!("connected {told}");
            }
        }
    }
}

/// Standard input, line by line, until it ends.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Carries out one command; the result is its answer.
async fn obey(line: &str, shared: &Shared, orders: &broadcast::Sender<Order>) -> Result<String> {
    let Tally { answered, sent, .. } = &shared.tally;
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("ping"), None) => {
            answered.store(0, Ordering::Relaxed);
            orders.send(Order::Ping)?;
            let all = shared.arguments.count as u64;
            let everybody = async {
                while answered.load(Ordering::Relaxed) < all {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let _ = tokio::time::timeout(PATIENCE, everybody).await;
            Ok(format!("answered {}", answered.load(Ordering::Relaxed)))
        }
        (Some("missing"), None) => Ok(format!("missing {:?}", shared.tally.missing())),
        (Some("load"), Some(seconds)) => {
            sent.store(0, Ordering::Relaxed);
            let time = Duration::from_secs(seconds.parse()?);
            orders.send(Order::Load(time))?;
            tokio::time::sleep(time).await;
            Ok(format!("sent {}", sent.load(Ordering::Relaxed)))
        }
        _ => anyhow::bail!("unknown command `{line}`"),
    }
}
