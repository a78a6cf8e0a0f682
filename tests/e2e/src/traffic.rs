//! Traffic that goes on while a scenario stops and starts processes.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use demo::{
    interrupt,
    probe::ping::{DEFAULT_PAYLOAD, Echo},
};
use testbed::Host;

/// Time between two requests.
const INTERVAL: Duration = Duration::from_millis(100);

/// Echo requests at a steady pace, in the background.
#[derive(Debug)]
pub struct Traffic {
    address: IpAddr,
    history: Arc<Mutex<History>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// When which request went out and when it was answered.
#[derive(Debug, Default)]
struct History {
    sent: BTreeMap<u16, Instant>,
    /// Sent, answered.
    answers: Vec<(Instant, Instant)>,
}

impl Traffic {
    /// Starts to ping an address from a host.
    ///
    /// # Errors
    ///
    /// If the host has no ping sockets.
    pub fn start(host: &Host, address: IpAddr) -> Result<Self> {
        let echo = host.run(|| Ok(Echo::open(address, DEFAULT_PAYLOAD)?))?;
        let history = Arc::<Mutex<History>>::default();
        let stop = Arc::<AtomicBool>::default();
        let thread = {
            let (history, stop) = (history.clone(), stop.clone());
            thread::spawn(move || ping(&echo, &history, &stop))
        };
        Ok(Self {
            address,
            history,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits until a request that was sent after `since` is answered; returns how long after `since` that was.
    ///
    /// # Errors
    ///
    /// If that does not happen within `patience` of `since`.
    pub fn wait_for_answer(&self, since: Instant, patience: Duration) -> Result<Duration> {
        loop {
            interrupt::check()?;
            let history = lock(&self.history);
            let first = history.answers.iter().find(|(sent, _)| *sent > since);
            if let Some((_, answered)) = first {
                return Ok(answered.duration_since(since));
            }
            drop(history);
            if since.elapsed() > patience {
                bail!("{} has not answered for {patience:?}", self.address);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The longest time without an answer between `since` and now.
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let history = lock(&self.history);
        let answers = history.answers.iter().map(|(_, answered)| *answered);
        let mut longest = Duration::ZERO;
        let mut previous = since;
        for answered in answers.filter(|at| *at > since).chain([Instant::now()]) {
            longest = longest.max(answered.saturating_duration_since(previous));
            previous = answered;
        }
        longest
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there shows as missing answers here.
            let _ = thread.join();
        }
    }
}

fn ping(echo: &Echo, history: &Mutex<History>, stop: &AtomicBool) {
    let mut sequence = 0_u16;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        sequence = sequence.wrapping_add(1);
        // Without a route, or after an ICMP error, the request is lost like any other.
        let _ = echo.request(sequence);
        lock(history).sent.insert(sequence, now);
        while let Some(answered) = echo.reply(now + INTERVAL) {
            let mut history = lock(history);
            if let Some(sent) = history.sent.remove(&answered) {
                history.answers.push((sent, Instant::now()));
            }
        }
    }
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A TCP connection with half a request on it, finished when the scenario wants to know whether it survived.
#[derive(Debug)]
pub struct HeldRequest {
    stream: TcpStream,
}

impl HeldRequest {
    /// Connects from a host and sends the first half of a request for the page.
    ///
    /// # Errors
    ///
    /// If the server does not accept.
    pub fn open(host: &Host, address: IpAddr) -> Result<Self> {
        let patience = Duration::from_secs(10);
        let target = SocketAddr::new(address, 80);
        let mut stream = host.run(|| Ok(TcpStream::connect_timeout(&target, patience)?))?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET / HTTP/1.1\r\n")?;
        Ok(Self { stream })
    }

    /// Sends the second half and reads the page.
    ///
    /// # Errors
    ///
    /// If the connection did not survive.
    pub fn finish(mut self) -> Result<()> {
        self.stream
            .write_all(b"\r\n")
            .context("the connection is gone")?;
        let mut answer = String::new();
        self.stream
            .read_to_string(&mut answer)
            .context("the connection is gone")?;
        ensure!(
            answer.ends_with(demo::http_server::PAGE),
            "not the page: {answer}"
        );
        Ok(())
    }
}
