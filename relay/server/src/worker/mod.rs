//! The worker: one thread that owns the state machine and all UDP sockets (relay spec §4.3, stage 1).
//!
//! Receive a batch, decide, send a batch; no lock, queue or task switch on the way. Portal and health checks live on
//! another thread and reach this one through [`Handle`].

mod egress;
mod ready;
mod report;
mod socket;
mod sockets;

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use metrics_exporter_prometheus::PrometheusRecorder;
use mio::{Events, Poll, Token, Waker};
use quinn_udp::RecvMeta;
use relay_core::{Command, Server, Train};

use crate::shared::Shared;
use egress::{Egress, Outgoing, listen_socket};
use ready::Ready;
use report::Reporter;
use socket::Batch;
pub(crate) use sockets::BindOptions;
use sockets::{SocketId, Sockets};

/// Buffers per receive call. Batches pay off where many senders meet, at the listen port.
const BUFFERS: usize = 16;
/// Size of a buffer: the most that the kernel joins.
const BUFFER_BYTES: usize = 64 * 1024;
/// Receive calls of one socket before others have their turn.
const TURN_CALLS: usize = 2;
/// Turns between looks at the poll, so that sockets which become readable do not wait long.
const TURNS_PER_POLL: usize = 64;
/// Events per look at the poll.
const EVENTS: usize = 1024;
/// The worker shows itself at least this often.
const TICK: Duration = Duration::from_secs(5);
/// Token of the waker; behind all sockets' tokens.
const WAKER: Token = Token(1 << 17);

/// What the control thread wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// No new allocations; end when the last one is gone.
    Drain,
    /// End at once.
    Stop,
}

/// Reaches the worker from other threads.
#[derive(Clone)]
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Gives an order; a worker that has ended needs none.
    pub(crate) fn give(&self, order: Order) {
        if self.orders.send(order).is_ok()
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!(%error, "Cannot wake the worker");
        }
    }
}

pub(crate) struct Worker {
    server: Server,
    poll: Poll,
    sockets: Sockets,
    egress: Egress,
    ready: Ready,
    buffers: Buffers,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    reporter: Reporter,
    is_draining: bool,
}

/// Memory for one receive call.
struct Buffers {
    memory: Box<[u8]>,
    meta: [RecvMeta; BUFFERS],
}

impl Worker {
    /// Binds the listen port; nothing is answered before [`Self::run`].
    pub(crate) fn new(
        server: Server,
        options: BindOptions,
        shared: Arc<Shared>,
        recorder: PrometheusRecorder,
    ) -> Result<(Self, Handle)> {
        let poll = Poll::new().context("cannot wait for sockets")?;
        let registry = poll.registry().try_clone()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (orders, receiver) = mpsc::channel();
        let worker = Self {
            server,
            sockets: Sockets::new(options, registry)?,
            poll,
            egress: Egress::default(),
            ready: Ready::default(),
            buffers: Buffers::new(),
            orders: receiver,
            shared,
            reporter: Reporter::new(recorder, Instant::now()),
            is_draining: false,
        };
        Ok((worker, Handle { orders, waker }))
    }

    /// Serves until it is told to stop, or drained.
    pub(crate) fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.wait(&mut events)?;
            for event in &events {
                self.note(event);
            }
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Stop => return Ok(()),
                    Order::Drain => {
                        self.is_draining = true;
                        self.server.drain();
                    }
                }
            }
            self.receive();
            self.tick();
            if self.is_draining && self.server.allocation_count() == 0 {
                return Ok(());
            }
        }
    }

    /// Waits for events, the next deadline or the next tick; not at all while a socket holds more.
    fn wait(&mut self, events: &mut Events) -> Result<()> {
        let until = match self.server.poll_timeout() {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()).min(TICK),
            None => TICK,
        };
        let timeout = match self.ready.is_empty() {
            true => until,
            false => Duration::ZERO,
        };
        match self.poll.poll(events, Some(timeout)) {
            // A debugger or profiler may interrupt the wait.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result.context("cannot wait for sockets"),
        }
    }

    fn note(&mut self, event: &mio::event::Event) {
        let Some(id) = SocketId::from_token(event.token()) else {
            return;
        };
        if event.is_writable() {
            self.sockets.flush(id);
        }
        if event.is_readable() || event.is_error() {
            self.ready.add(id);
        }
    }

    /// Gives readable sockets their turns.
    fn receive(&mut self) {
        for _ in 0..TURNS_PER_POLL {
            let Some(id) = self.ready.next() else {
                return;
            };
            let now = Instant::now();
            for _ in 0..TURN_CALLS {
                if !self.receive_batch(id, now) {
                    break;
                }
                self.ready.add_busy(id);
            }
        }
    }

    /// Handles what one receive call brings. Whether there may be more.
    fn receive_batch(&mut self, id: SocketId, now: Instant) -> bool {
        let Some(socket) = self.sockets.get(id) else {
            return false;
        };
        let filled = match self.buffers.fill(socket) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                // What lies behind the error is read when the next datagram arrives; an error that stays must not keep
                // the worker busy.
                tracing::debug!(%error, ?id, "Cannot receive");
                return false;
            }
        };
        for index in 0..filled {
            self.handle_train(id, index, now);
            self.execute_commands(now);
        }
        self.egress.flush(&mut self.sockets);
        true
    }

    fn handle_train(&mut self, id: SocketId, index: usize, now: Instant) {
        let Self {
            server,
            sockets,
            egress,
            buffers,
            ..
        } = self;
        let (from, train) = buffers.train(index);
        egress.ecn = buffers.meta[index].ecn;
        let mut out = Outgoing { egress, sockets };
        match id {
            SocketId::Listen(_) => server.handle_client_input(from, train, now, &mut out),
            SocketId::Allocation(port, _) => {
                server.handle_peer_input(port, from, train, now, &mut out);
            }
        }
    }

    fn execute_commands(&mut self, now: Instant) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { to, bytes } => self.reply(to.address(), &bytes),
                Command::CreateAllocation { port, family } => {
                    match self.sockets.open(port, family) {
                        Ok(()) => self.server.handle_port_bound(port, family, now),
                        Err(error) => {
                            tracing::debug!(%port, ?family, %error, "Cannot bind the port of an allocation");
                            self.server.handle_port_failed(port, family, now);
                        }
                    }
                }
                Command::FreeAllocation { port, family } => {
                    self.egress.flush(&mut self.sockets);
                    self.sockets.close(port, family);
                }
            }
        }
    }

    fn reply(&mut self, to: SocketAddr, bytes: &[u8]) {
        let batch = Batch {
            to,
            ecn: None,
            bytes,
            segment_size: bytes.len(),
        };
        self.sockets.send(listen_socket(to), batch);
    }

    /// Deadlines, and signs of life.
    fn tick(&mut self) {
        let now = Instant::now();
        self.server.handle_timeout(now);
        self.execute_commands(now);
        self.shared.tick(self.server.allocation_count(), now);
        if self
            .reporter
            .report(&self.server, self.sockets.counters(), now)
            && let Ok(unix_now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)
        {
            self.server.set_unix_time(unix_now, now);
        }
    }
}

impl Buffers {
    fn new() -> Self {
        Self {
            memory: vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            meta: [RecvMeta::default(); BUFFERS],
        }
    }

    fn fill(&mut self, socket: &socket::UdpSocket) -> io::Result<usize> {
        let mut chunks = self.memory.chunks_exact_mut(BUFFER_BYTES);
        let mut next = || IoSliceMut::new(chunks.next().unwrap_or_default());
        let mut slices: [IoSliceMut<'_>; BUFFERS] = std::array::from_fn(|_| next());
        socket.receive(&mut slices, &mut self.meta)
    }

    /// The sender and the datagrams of one filled buffer.
    fn train(&self, index: usize) -> (SocketAddr, Train<'_>) {
        let meta = &self.meta[index];
        let start = index * BUFFER_BYTES;
        let len = meta.len.min(BUFFER_BYTES);
        let bytes = &self.memory[start..start + len];
        (meta.addr, Train::new(bytes, meta.stride))
    }
}
