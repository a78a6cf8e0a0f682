//! The data thread: reads, decides, seals, sends; receives, opens, decides, writes. A batch at a time, to completion.

use std::{
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use connlib_session::{Known, PortalInput, PortalOutput};
use connlib_sockets::{Family, ReceiveBuffers, Sockets};
use connlib_tun::Tun;
use connlib_tunnel::{Train, segment::Coalescer};
use mio::{Events, Interest, Poll, Registry, Token, unix::SourceFd};
use tokio::sync::{mpsc, oneshot};

use crate::{
    clock::Clock,
    outgoing::{Lane, Outgoing},
    role::Role,
    tun_io::TunIo,
};

/// Reads of one source before the others get their turn, if each brings little.
const READ_BUDGET: usize = 16;
/// Bytes of one source before the others get their turn: one receive call's worth. While data is taken from a socket the
/// acknowledgements for it wait at the TUN device, and with them whoever sends: sixteen full receive calls are the whole
/// window of a fast connection.
const BYTE_BUDGET: usize = 256 * 1024;
/// Inputs of the other threads per turn.
const INPUT_BUDGET: usize = 64;
/// A failed re-bind is tried again after this long.
const REBIND_DELAY: Duration = Duration::from_secs(1);
/// How long a farewell may wait for a blocked socket.
const FAREWELL: Duration = Duration::from_millis(800);
/// How often a blocked socket is tried meanwhile.
const RETRY_FAREWELL: Duration = Duration::from_millis(10);

/// What the other threads hand to the data thread.
pub(crate) enum Input<R: Role> {
    /// Something happened on the channel to the portal.
    Portal(PortalInput<R::FromPortal, R::ToPortal>),
    /// A wish of the program.
    Command(R::Command),
    /// The network changed. Several workers get the same seed for their key.
    Reset {
        /// See [`Role::reset`].
        key_seed: [u8; 32],
    },
    /// Say goodbye and end; answer when that is done.
    Stop(oneshot::Sender<()>),
}

/// What a data thread wants to happen on the channel to the portal.
pub(crate) struct Output<S> {
    /// Number of the worker.
    pub(crate) worker: usize,
    /// What it knew.
    pub(crate) known: Known,
    pub(crate) output: PortalOutput<S>,
}

/// Which descriptors may have something (edge-triggered: until a read would block).
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    tun: bool,
    v4: bool,
    v6: bool,
}

/// The thread's state. Nothing of it is shared.
pub(crate) struct Worker<R: Role> {
    role: R,
    clock: Clock,
    poll: Poll,
    tun: TunIo,
    sockets: Sockets,
    receive: ReceiveBuffers,
    outgoing: Outgoing,
    coalescer: Coalescer,
    inputs: mpsc::Receiver<Input<R>>,
    portal: mpsc::Sender<Output<R::ToPortal>>,
    /// Number among the workers.
    index: usize,
    known: Known,
    abandoned: Arc<AtomicBool>,
    ready: Ready,
    /// A socket would block: nothing more is read from the TUN device until it has room.
    blocked: bool,
    rebind_at: Option<Instant>,
}

impl<R: Role> Worker<R> {
    const TUN: Token = Token(0);
    const V4: Token = Token(1);
    const V6: Token = Token(2);
    pub(crate) const WAKER: Token = Token(3);

    #[expect(
        clippy::too_many_arguments,
        reason = "called once, each of a type of its own"
    )]
    pub(crate) fn new(
        role: R,
        clock: Clock,
        poll: Poll,
        tun: Tun,
        sockets: Sockets,
        inputs: mpsc::Receiver<Input<R>>,
        index: usize,
        portal: mpsc::Sender<Output<R::ToPortal>>,
        abandoned: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let tun = TunIo::new(tun);
        let this = Self {
            role,
            clock,
            poll,
            coalescer: Coalescer::new(tun.coalescing()),
            tun,
            sockets,
            receive: ReceiveBuffers::new(),
            outgoing: Outgoing::new(),
            inputs,
            portal,
            index,
            known: Known::default(),
            abandoned,
            ready: Ready {
                tun: true,
                v4: true,
                v6: true,
            },
            blocked: false,
            rebind_at: None,
        };
        let tun = this.tun.as_raw_fd();
        this.poll
            .registry()
            .register(&mut SourceFd(&tun), Self::TUN, Interest::READABLE)?;
        this.register_sockets()?;
        Ok(this)
    }

    /// Runs until stopped or abandoned.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(16);
        loop {
            self.wait(&mut events)?;
            if self.abandoned.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = self.clock.now();
            if let Some(done) = self.take_inputs(now) {
                self.say_goodbye(now);
                let _ = done.send(());
                return Ok(());
            }
            if self.role.poll_timeout().is_some_and(|at| at <= now) {
                self.role.handle_timeout(now);
            }
            self.finish(now);
            self.read_tun(now)?;
            self.read_handed(now)?;
            self.read_sockets(now)?;
            self.finish(now);
        }
    }

    /// Sleeps until a descriptor, a queue or a deadline has something, or not at all if something is left to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let from_tun = self.ready.tun || self.role.was_handed();
        let busy = self.ready.v4 || self.ready.v6 || (from_tun && !self.blocked);
        let timeout = match busy {
            true => Some(Duration::ZERO),
            false => self.until_deadline(),
        };
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut is_writable = false;
        for event in &*events {
            is_writable |= event.is_writable();
            match event.token() {
                Self::TUN => self.ready.tun = true,
                Self::V4 => self.ready.v4 |= event.is_readable(),
                Self::V6 => self.ready.v6 |= event.is_readable(),
                _ => {}
            }
        }
        if is_writable {
            self.set_blocked(false);
        }
        Ok(())
    }

    fn until_deadline(&mut self) -> Option<Duration> {
        let deadline = [self.role.poll_timeout(), self.rebind_at];
        let deadline = deadline.into_iter().flatten().min()?;
        Some(deadline.saturating_duration_since(self.clock.now()))
    }

    /// Takes what the other threads have handed over; the result is a wish to stop.
    fn take_inputs(&mut self, now: Instant) -> Option<oneshot::Sender<()>> {
        for _ in 0..INPUT_BUDGET {
            let Ok(input) = self.inputs.try_recv() else {
                break;
            };
            match input {
                Input::Portal(input) => {
                    self.known.connections += u64::from(matches!(input, PortalInput::Connected));
                    self.role.handle_portal(input, now);
                }
                Input::Command(command) => self.role.handle_command(command, now),
                Input::Reset { key_seed } => {
                    self.known.resets += 1;
                    self.role.reset(key_seed, now);
                    self.rebind(now);
                }
                Input::Stop(done) => return Some(done),
            }
            self.finish(now);
        }
        if self.rebind_at.is_some_and(|at| at <= now) {
            self.rebind(now);
        }
        None
    }

    /// TUN → network. Full batches leave at once, so that the other end works on them while the next is sealed; the rest
    /// leaves at the end of the round, so that packets of one flow share system calls. Of what is read in one go, however
    /// many rounds it takes, only the very last batch is not full.
    fn read_tun(&mut self, now: Instant) -> io::Result<()> {
        self.outgoing.keep_open(false);
        if !self.ready.tun || self.blocked {
            return Ok(());
        }
        let written = self.outgoing.written();
        take_turns(|| {
            let Some(packet) = self.tun.read()? else {
                self.ready.tun = false;
                return Ok(Turn::Over);
            };
            let bytes = packet.buf.len();
            let mut sink = self.outgoing.sink(Lane::of(&packet));
            self.role.handle_tun(packet, now, &mut sink);
            Ok(self.send_ready(bytes))
        })?;
        self.role.hand_over();
        let is_growing = self.outgoing.written() > written;
        self.outgoing.keep_open(self.ready.tun && is_growing);
        self.flush();
        Ok(())
    }

    /// TUN → network, for packets that came out of another worker's queue of the device.
    fn read_handed(&mut self, now: Instant) -> io::Result<()> {
        if self.blocked || !self.role.was_handed() {
            return Ok(());
        }
        take_turns(|| {
            let mut sink = self.outgoing.sink(Lane::Data);
            if !self.role.handle_handed(now, &mut sink) {
                return Ok(Turn::Over);
            }
            // Parcels are bounded by themselves.
            Ok(self.send_ready(0))
        })?;
        self.flush();
        Ok(())
    }

    /// Sends full batches after a read of so many bytes, unless there is no room for more.
    fn send_ready(&mut self, bytes: usize) -> Turn {
        self.queue_transmits();
        let is_sent = self.outgoing.flush_ready(&mut self.sockets);
        match !is_sent && self.outgoing.is_nearly_full() {
            true => Turn::Over,
            false => Turn::Read(bytes),
        }
    }

    /// Network → TUN.
    fn read_sockets(&mut self, now: Instant) -> io::Result<()> {
        for family in Family::ALL {
            take_turns(|| {
                if !*self.ready_flag(family) {
                    return Ok(Turn::Over);
                }
                self.receive(family, now).map(Turn::Read)
            })?;
        }
        Ok(())
    }

    /// One receive call: opens what it brought, writes it to the TUN device and tells how many bytes it was.
    fn receive(&mut self, family: Family, now: Instant) -> io::Result<usize> {
        let Some(socket) = self.sockets.get(family) else {
            *self.ready_flag(family) = false;
            return Ok(0);
        };
        let trains = match self.receive.receive(socket) {
            Ok(Some(trains)) => trains,
            Ok(None) => {
                *self.ready_flag(family) = false;
                return Ok(0);
            }
            Err(error) => {
                // One socket's trouble must not end the other's work; ICMP errors surface here.
                tracing::debug!(%error, ?family, "Receiving failed");
                return Ok(0);
            }
        };
        let mut bytes = 0;
        for train in trains {
            bytes += train.bytes.len();
            let mut datagrams = Train::new(train.bytes, train.stride);
            while !datagrams.is_empty() {
                if self.coalescer.is_full() {
                    self.tun.write(&mut self.coalescer);
                }
                self.role.handle_train(
                    train.local,
                    train.from,
                    train.ecn,
                    &mut datagrams,
                    now,
                    &mut self.coalescer,
                );
            }
        }
        self.tun.write(&mut self.coalescer);
        self.queue_transmits();
        self.flush();
        Ok(bytes)
    }

    fn ready_flag(&mut self, family: Family) -> &mut bool {
        match family {
            Family::V4 => &mut self.ready.v4,
            Family::V6 => &mut self.ready.v6,
        }
    }

    /// Hands on everything that the state machine has made by itself.
    fn finish(&mut self, now: Instant) {
        while let Ok(room) = self.portal.try_reserve() {
            let Some(output) = self.role.poll_portal(now) else {
                break;
            };
            room.send(Output {
                worker: self.index,
                known: self.known,
                output,
            });
        }
        self.role.drain_events(now);
        self.queue_transmits();
        while let Some(packet) = self.role.poll_packet() {
            if self.coalescer.is_full() {
                self.tun.write(&mut self.coalescer);
            }
            let _ = self.coalescer.push(packet.as_slice());
        }
        self.tun.write(&mut self.coalescer);
        self.flush();
    }

    fn queue_transmits(&mut self) {
        while let Some(transmit) = self.role.poll_transmit() {
            self.outgoing.push(&transmit);
        }
    }

    fn flush(&mut self) {
        let is_complete = self.outgoing.flush(&mut self.sockets);
        self.set_blocked(!is_complete);
    }

    /// Asks to be told when a socket has room, only while that is of interest: otherwise every datagram that the network
    /// has taken would wake the thread.
    fn set_blocked(&mut self, is_blocked: bool) {
        if self.blocked == is_blocked {
            return;
        }
        let interest = match is_blocked {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        match self.each_socket(|registry, fd, token| registry.reregister(fd, token, interest)) {
            Ok(()) => self.blocked = is_blocked,
            // Not to be blocked without being told when it ends.
            Err(error) => {
                tracing::warn!(%error, "Cannot watch the UDP sockets");
                self.blocked = false;
            }
        }
    }

    /// New sockets on new ports, so that no relay or NAT sees an old 3-tuple.
    fn rebind(&mut self, now: Instant) {
        self.outgoing.clear();
        self.rebind_at = None;
        let bound = self.sockets.rebind().map_err(io::Error::other);
        if let Err(error) = bound.and_then(|()| self.register_sockets()) {
            tracing::warn!(%error, "No UDP socket; trying again");
            self.rebind_at = Some(now + REBIND_DELAY);
        }
        self.blocked = false;
        self.ready.v4 = true;
        self.ready.v6 = true;
    }

    fn register_sockets(&self) -> io::Result<()> {
        self.each_socket(|registry, fd, token| registry.register(fd, token, Interest::READABLE))
    }

    fn each_socket(
        &self,
        change: impl Fn(&Registry, &mut SourceFd<'_>, Token) -> io::Result<()>,
    ) -> io::Result<()> {
        for (family, socket) in self.sockets.iter() {
            let token = match family {
                Family::V4 => Self::V4,
                Family::V6 => Self::V6,
            };
            let fd = socket.as_std().as_raw_fd();
            change(self.poll.registry(), &mut SourceFd(&fd), token)?;
        }
        Ok(())
    }

    /// Sends a goodbye to every peer; waits a moment for a blocked socket.
    fn say_goodbye(&mut self, now: Instant) {
        self.role.shutdown(now);
        self.queue_transmits();
        self.outgoing.keep_open(false);
        let flush = || {
            self.flush();
            self.blocked
        };
        insist(flush, Instant::now, std::thread::sleep);
    }
}

/// Flushes until a socket is not blocked any more, for [`FAREWELL`] at most.
fn insist(
    mut is_blocked: impl FnMut() -> bool,
    mut now: impl FnMut() -> Instant,
    mut pause: impl FnMut(Duration),
) {
    let deadline = now() + FAREWELL;
    while is_blocked() && now() < deadline {
        pause(RETRY_FAREWELL);
    }
}

/// What came of looking at a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It brought so many bytes and may have more.
    Read(usize),
    /// It is dry, or what it brings cannot be taken now.
    Over,
}

/// Reads until the source has nothing more, at most [`READ_BUDGET`] times or [`BYTE_BUDGET`] bytes: then the clock, the
/// portal and the other sources have their turn.
#[inline]
fn take_turns(mut read: impl FnMut() -> io::Result<Turn>) -> io::Result<()> {
    let mut total = 0;
    for _ in 0..READ_BUDGET {
        let Turn::Read(bytes) = read()? else {
            break;
        };
        total += bytes;
        if total >= BYTE_BUDGET {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often a source is read that never dries and brings `bytes` each time.
    fn reads_of(bytes: usize) -> usize {
        let mut reads = 0;
        take_turns(|| {
            reads += 1;
            Ok(Turn::Read(bytes))
        })
        .unwrap();

        reads
    }

    #[test]
    fn tunnel_85_a_source_that_never_dries_leaves_the_others_their_turn() {
        assert_eq!(reads_of(100), READ_BUDGET);
        assert_eq!(reads_of(0), READ_BUDGET);
    }

    /// Acknowledgements wait for no more than one receive call's worth of data.
    #[test]
    fn tunnel_85_a_source_that_brings_much_has_shorter_turns() {
        assert_eq!(reads_of(64 * 1024), 4);
        assert_eq!(reads_of(BYTE_BUDGET), 1);
        assert_eq!(reads_of(BYTE_BUDGET + 1), 1);
    }

    #[test]
    fn tunnel_85_a_source_is_read_until_it_is_dry() {
        let mut left = vec![1, 2, 3];
        take_turns(|| Ok(left.pop().map_or(Turn::Over, Turn::Read))).unwrap();

        assert!(left.is_empty());
    }

    /// Flushes a socket that is blocked for the first so many times; how long that took, and how many times it was tried.
    fn farewell(blocked: usize) -> (Duration, usize) {
        let (start, elapsed) = (Instant::now(), Cell::new(Duration::ZERO));
        let mut tries = 0;
        insist(
            || {
                tries += 1;
                tries <= blocked
            },
            || start + elapsed.get(),
            |pause| elapsed.set(elapsed.get() + pause),
        );
        (elapsed.get(), tries)
    }

    #[test]
    fn tunnel_72_a_blocked_socket_delays_the_end_by_less_than_a_second() {
        let (elapsed, tries) = farewell(usize::MAX);
        assert!(elapsed >= FAREWELL && elapsed < Duration::from_secs(1));
        assert!(tries > 50, "a socket that has room again is noticed soon");
        assert_eq!(farewell(0), (Duration::ZERO, 1));
        assert_eq!(farewell(3), (RETRY_FAREWELL * 3, 4));
    }

    #[test]
    fn tunnel_85_an_error_ends_the_turn() {
        let mut reads = 0;
        let result = take_turns(|| {
            reads += 1;
            Err(io::Error::other("gone"))
        });

        assert!(result.is_err());
        assert_eq!(reads, 1);
    }
}
