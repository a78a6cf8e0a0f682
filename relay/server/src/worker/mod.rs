//! The workers: threads that each own a part of the clients, their sockets and the state machine for them (relay spec
//! §4.3, stages 1 to 3).
//!
//! Receive a batch, decide, send a batch; no lock, queue or task switch on the way. Every worker has a socket of its own
//! on the listen port, and the kernel gives a client's datagrams always to the same one. Portal and health checks live on
//! another thread and reach the workers through [`Handle`].

mod buffers;
mod egress;
mod ready;
mod siblings;
mod socket;
mod sockets;
mod standing;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use mio::{Events, Poll, Token, Waker};
use relay_core::{Command, Server, Train};

use crate::{platform::datagrams::Ecn, shared::Shared, statistics::Statistics};
use buffers::{Buffers, FEW_BUFFERS};
use egress::{Egress, MAX_RUNS, Outgoing, listen_socket};
use ready::Ready;
use siblings::{Inbox, Parcel, Siblings};
use socket::{Batch, SendCounters};
pub(crate) use sockets::BindOptions;
use sockets::{SocketId, Sockets};
use standing::Look;

/// Turns between looks at the poll, so that sockets which become readable do not wait long.
const TURNS_PER_POLL: usize = 64;
/// Events per look at the poll.
const EVENTS: usize = 1024;
/// The worker shows itself, publishes what it counted and looks at the wall clock this often.
const TICK: Duration = Duration::from_secs(1);
/// Token of the waker; behind all sockets' tokens.
const WAKER: Token = Token(1 << 17);

/// What the control thread wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// No new allocations.
    Drain,
    /// End at once.
    Stop,
}

/// Reaches a worker from other threads.
#[derive(Debug, Clone)]
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
            tracing::warn!(%error, "Cannot wake a worker");
        }
    }
}

/// What a worker counts beside its state machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IoCounters {
    pub(crate) sent: SendCounters,
    /// Calls that brought something.
    pub(crate) receive_calls: u64,
    /// Buffers that they filled.
    pub(crate) received_trains: u64,
    /// Datagrams for which the kernel had no room.
    pub(crate) receive_overruns: u64,
    /// Datagrams for allocations of another worker that could not keep up.
    pub(crate) sibling_busy: u64,
}

impl IoCounters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent.add(&other.sent);
        self.receive_calls += other.receive_calls;
        self.received_trains += other.received_trains;
        self.receive_overruns += other.receive_overruns;
        self.sibling_busy += other.sibling_busy;
    }
}

pub(crate) struct Worker {
    index: usize,
    server: Server,
    poll: Poll,
    sockets: Sockets,
    egress: Egress,
    ready: Ready,
    buffers: Buffers,
    siblings: Siblings,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    counters: IoCounters,
    next_tick: Instant,
}

/// Makes one worker per server; nothing is answered before [`Worker::run`].
///
/// # Errors
/// The listen port cannot be bound.
pub(crate) fn group(
    servers: Vec<Server>,
    options: BindOptions,
    shared: &Arc<Shared>,
) -> Result<(Vec<Worker>, Vec<Handle>)> {
    sockets::probe(&options)?;
    let mut polls = Vec::new();
    let mut inboxes = Vec::new();
    for _ in &servers {
        let poll = Poll::new().context("cannot wait for sockets")?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        inboxes.push(Arc::new(Inbox::new(Arc::clone(&waker))));
        polls.push((poll, waker));
    }
    let mut workers = Vec::new();
    let mut handles = Vec::new();
    for (server, (poll, waker)) in servers.into_iter().zip(polls) {
        let (shard, limit) = (
            server.config().shard,
            server.config().allocations_per_username,
        );
        let (orders, receiver) = mpsc::channel();
        let registry = poll.registry().try_clone()?;
        workers.push(Worker {
            index: usize::from(shard.index()),
            siblings: Siblings::new(shard, inboxes.clone(), limit),
            sockets: Sockets::new(options, shard, registry)?,
            server,
            poll,
            egress: Egress::default(),
            ready: Ready::default(),
            buffers: Buffers::new(),
            orders: receiver,
            shared: Arc::clone(shared),
            counters: IoCounters::default(),
            next_tick: Instant::now(),
        });
        handles.push(Handle { orders, waker });
    }
    Ok((workers, handles))
}

impl Worker {
    /// Serves until it is told to stop.
    pub(crate) fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.wait(&mut events)?;
            let now = Instant::now();
            for event in &events {
                self.note(event);
            }
            if let Some(Order::Stop) = self.read_orders() {
                // What was counted since the last tick would be missing from the last export.
                self.tick(now);
                return Ok(());
            }
            self.receive();
            self.read_siblings(now);
            self.keep_time(now);
        }
    }

    /// Waits for events, the next deadline or the next tick; not at all while a socket holds more.
    fn wait(&mut self, events: &mut Events) -> Result<()> {
        let timeout = match self.ready.is_empty() && !self.siblings.is_waiting() {
            true => {
                let deadline = self.server.poll_timeout();
                let until = deadline.map_or(self.next_tick, |at| at.min(self.next_tick));
                until.saturating_duration_since(Instant::now())
            }
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

    /// Carries out orders, except for the one that ends everything.
    fn read_orders(&mut self) -> Option<Order> {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Stop => return Some(Order::Stop),
                Order::Drain => self.server.drain(),
            }
        }
        None
    }

    /// Gives readable sockets their turns, of two receive calls each. What allocations bring for clients leaves through one
    /// socket, so it is collected over some turns.
    fn receive(&mut self) {
        let mut collecting = 0;
        for _ in 0..TURNS_PER_POLL {
            let Some(id) = self.ready.next() else {
                break;
            };
            let now = Instant::now();
            let first = match id {
                SocketId::Listen(_) => self.buffers.suitable(),
                SocketId::Allocation(..) => FEW_BUFFERS,
            };
            if self.receive_batch(id, first, now)
                && self.receive_batch(id, self.buffers.suitable(), now)
            {
                self.ready.add_busy(id);
            }
            collecting += 1;
            if collecting == MAX_RUNS {
                self.flush();
                collecting = 0;
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        self.egress.flush(&mut self.sockets);
        self.siblings.dispatch();
    }

    /// Handles what one receive call brings. Whether there may be more: a call that fills its last buffer has not seen
    /// the end of the queue, and the kernel announces only what comes behind it.
    fn receive_batch(&mut self, id: SocketId, most: usize, now: Instant) -> bool {
        let Some(socket) = self.sockets.get(id) else {
            return false;
        };
        let filled = match self.buffers.fill(socket, most) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.sockets.note_queue(id, Look::Other, now);
                return false;
            }
            Err(error) => {
                // What lies behind the error is read when the next datagram arrives; an error that stays must not keep
                // the worker busy.
                tracing::debug!(%error, ?id, "Cannot receive");
                return false;
            }
        };
        let look = match filled == most && self.buffers.suitable() == FEW_BUFFERS {
            true => Look::Trains,
            false => Look::Other,
        };
        self.sockets.note_queue(id, look, now);
        self.counters.receive_calls += 1;
        self.counters.received_trains += filled as u64;
        for index in 0..filled {
            self.handle_train(id, index, now);
            self.execute_commands(now);
        }
        if matches!(id, SocketId::Listen(_)) {
            self.flush();
        }
        filled == most
    }

    fn handle_train(&mut self, id: SocketId, index: usize, now: Instant) {
        let received = self.buffers.get(index);
        self.egress.ecn = received.ecn;
        let (from, train) = (received.from, received.train);
        let mut out = Outgoing {
            egress: &mut self.egress,
            sockets: &mut self.sockets,
            siblings: &mut self.siblings,
        };
        match id {
            SocketId::Listen(_) => self.server.handle_client_input(from, train, now, &mut out),
            SocketId::Allocation(port, _) => self
                .server
                .handle_peer_input(port, from, train, now, &mut out),
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
                Command::UserGained { username, client } => {
                    self.siblings.user_gained(username, client);
                }
                Command::UserLost { username, client } => {
                    self.siblings.user_lost(username, client);
                }
            }
            let allocations = self.server.allocation_count();
            self.shared.set_allocations(self.index, allocations);
        }
    }

    fn reply(&mut self, to: SocketAddr, bytes: &[u8]) {
        let batch = Batch {
            to,
            ecn: Ecn::default(),
            bytes,
            segment_size: bytes.len(),
        };
        self.sockets.send(listen_socket(to), batch);
    }

    /// Handles what other workers have sent.
    fn read_siblings(&mut self, now: Instant) {
        if !self.siblings.is_waiting() {
            return;
        }
        for (username, client) in self.siblings.read_notices() {
            self.server.evict(&username, client);
        }
        self.execute_commands(now);
        // Those that come meanwhile have to wait until the sockets had their turn.
        for _ in 0..siblings::MAX_PARCELS {
            let Some(parcel) = self.siblings.next_parcel() else {
                return;
            };
            self.unpack(&parcel, now);
            self.siblings.unpacked(parcel);
        }
    }

    fn unpack(&mut self, parcel: &Parcel, now: Instant) {
        for (port, from, ecn, bytes, segment_size) in parcel.trains() {
            self.egress.ecn = ecn;
            let mut out = Outgoing {
                egress: &mut self.egress,
                sockets: &mut self.sockets,
                siblings: &mut self.siblings,
            };
            let train = Train::new(bytes, segment_size);
            self.server
                .handle_peer_input(port, from.address(), train, now, &mut out);
            self.execute_commands(now);
        }
        self.egress.flush(&mut self.sockets);
    }

    /// Deadlines, and signs of life.
    fn keep_time(&mut self, now: Instant) {
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
            self.execute_commands(now);
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        if let Ok(unix_now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            self.server.set_unix_time(unix_now, now);
        }
        self.sockets.tick();
        let io = IoCounters {
            sent: self.sockets.counters(),
            receive_overruns: self.sockets.receive_overruns(),
            sibling_busy: self.siblings.dropped,
            ..self.counters
        };
        let statistics = Statistics {
            allocations: self.server.allocation_count(),
            channels: self.server.channel_count(),
            relay: self.server.counters().clone(),
            io,
        };
        self.shared.set_statistics(self.index, statistics);
        self.shared.tick(self.index, now);
    }
}
