//! One UDP socket: receives trains, sends batches, and keeps what the kernel does not take now.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::standing::{self, Look};
use crate::platform::{
    self,
    datagrams::{self, Departure, Ecn, MAX_DEPARTURES, Receiver},
};

/// Datagrams that wait for one socket; what comes on top is dropped. A quarter of a second at 1000 packets per second.
const MAX_QUEUED_DATAGRAMS: usize = 256;
/// Bytes that wait for one socket, whatever the datagrams' sizes.
const MAX_QUEUED_BYTES: usize = 512 * 1024;
/// A network that carries IP packets of 1280 bytes takes segments up to this size. Refusals of larger ones say something
/// about their size, not about the offload.
const SAFE_SEGMENT: usize = 1200;

/// What became of datagrams on their way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SendCounters {
    /// Datagrams handed to the kernel.
    pub(crate) datagrams: u64,
    /// System calls for them.
    pub(crate) calls: u64,
    /// Dropped because the socket's queue was full.
    pub(crate) queue_full: u64,
    /// Refused by the kernel, e.g. too large or no route.
    pub(crate) refused: u64,
}

impl SendCounters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.datagrams += other.datagrams;
        self.calls += other.calls;
        self.queue_full += other.queue_full;
        self.refused += other.refused;
    }
}

/// Datagrams to one destination: each `segment_size` bytes, the last perhaps shorter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) to: SocketAddr,
    pub(crate) ecn: Ecn,
    pub(crate) bytes: &'a [u8],
    pub(crate) segment_size: usize,
}

/// How a socket is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) bind: SocketAddr,
    /// Address that replies come from, if the kernel shall not choose.
    pub(crate) source: Option<IpAddr>,
    /// Kernel buffer wanted in each direction, in bytes.
    pub(crate) buffer_bytes: usize,
    pub(crate) offload: bool,
    /// Whether other sockets of this program are bound to the same port.
    pub(crate) is_shared: bool,
}

#[derive(Debug)]
pub(crate) struct UdpSocket {
    io: mio::net::UdpSocket,
    plan: Plan,
    arrivals: standing::Queue,
    /// Largest segment that the offload may be tried with; lowered by refusals.
    max_segment: usize,
    queue: VecDeque<Queued>,
    queued_datagrams: usize,
    queued_bytes: usize,
    /// Whether an event tells when it takes datagrams again. It costs one for every datagram sent, so only then.
    is_awaited: bool,
}

/// What is left of a batch.
#[derive(Debug)]
struct Queued {
    to: SocketAddr,
    ecn: Ecn,
    bytes: Vec<u8>,
    segment_size: usize,
}

/// How far an attempt to send got.
enum Progress {
    Done,
    /// The kernel takes no more; this much is sent or lost for good.
    Blocked(usize),
}

/// Whether the address can be bound by nobody but us.
pub(crate) fn probe(bind: SocketAddr) -> io::Result<()> {
    new_socket(bind)?.bind(&bind.into())
}

fn new_socket(bind: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    if bind.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

impl UdpSocket {
    /// Binds a non-blocking socket and registers it, edge-triggered, for both directions. An IPv6 socket takes IPv6
    /// only, so that both families share a port number.
    pub(crate) fn bind(plan: Plan, registry: &Registry, token: Token) -> io::Result<Self> {
        let socket = new_socket(plan.bind)?;
        if plan.is_shared {
            platform::share_port(&socket)?;
        }
        // Limits of the system apply; what was granted is logged once for the listen sockets.
        platform::enlarge_receive_buffer(&socket, plan.buffer_bytes)?;
        socket.set_send_buffer_size(plan.buffer_bytes)?;
        socket.bind(&plan.bind.into())?;
        socket.set_nonblocking(true)?;
        let mut io = mio::net::UdpSocket::from_std(socket.into());
        datagrams::prepare(&io, plan.bind.is_ipv6(), plan.offload)?;
        let can_segment = plan.offload && datagrams::can_segment(&io);
        registry.register(&mut io, token, Interest::READABLE)?;
        Ok(Self {
            io,
            max_segment: if can_segment { usize::MAX } else { 0 },
            arrivals: standing::Queue::new(plan.buffer_bytes),
            plan,
            queue: VecDeque::new(),
            queued_datagrams: 0,
            queued_bytes: 0,
            is_awaited: false,
        })
    }

    /// Has an event tell when the socket takes datagrams again exactly while some wait for that.
    pub(crate) fn await_room(&mut self, registry: &Registry, token: Token) {
        let is_awaited = !self.queue.is_empty();
        if is_awaited == self.is_awaited {
            return;
        }
        let interest = match is_awaited {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        match registry.reregister(&mut self.io, token, interest) {
            Ok(()) => self.is_awaited = is_awaited,
            Err(error) => tracing::debug!(%error, "Cannot wait for room at a socket"),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) {
        if let Err(error) = registry.deregister(&mut self.io) {
            tracing::debug!(%error, "Cannot deregister a socket");
        }
    }

    /// What the kernel granted: receive and send buffer in bytes.
    pub(crate) fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        let socket = SockRef::from(&self.io);
        Ok((
            platform::granted_buffer(socket.recv_buffer_size()?),
            platform::granted_buffer(socket.send_buffer_size()?),
        ))
    }

    /// Datagrams for which the kernel had no room so far; `None` where it does not tell.
    pub(crate) fn receive_overruns(&self) -> Option<u64> {
        platform::receive_overruns(&self.io)
    }

    /// Fills buffers with what is there.
    pub(crate) fn receive<'a>(
        &self,
        receiver: &mut Receiver,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        receiver.receive(&self.io, buffers)
    }

    /// A receive call has shown this. Whether the queue is kept short from now on.
    pub(super) fn note_queue(&mut self, look: Look, now: Instant) -> bool {
        let change = self.arrivals.note(look, now);
        self.resize(change);
        change.is_some()
    }

    /// Another second is over for a short queue. Whether it stays short.
    pub(crate) fn tick_queue(&mut self) -> bool {
        let overruns = self.receive_overruns().unwrap_or(0);
        let change = self.arrivals.tick(overruns);
        self.resize(change);
        self.arrivals.is_short()
    }

    fn resize(&self, receive_buffer: Option<usize>) {
        if let Some(bytes) = receive_buffer
            && let Err(error) = platform::enlarge_receive_buffer(&SockRef::from(&self.io), bytes)
        {
            tracing::debug!(%error, "Cannot change a receive buffer");
        }
    }

    /// Sends a batch behind whatever waits already.
    pub(crate) fn send(&mut self, batch: Batch<'_>, counters: &mut SendCounters) {
        if !self.queue.is_empty() {
            self.enqueue(batch, counters);
            return;
        }
        if let Progress::Blocked(done) = self.transmit(batch, counters) {
            let bytes = &batch.bytes[done..];
            self.enqueue(Batch { bytes, ..batch }, counters);
        }
    }

    /// Sends batches in their order, as many per call as the kernel takes.
    pub(crate) fn send_many(&mut self, mut batches: &[Batch<'_>], counters: &mut SendCounters) {
        while let Some((first, rest)) = batches.split_first() {
            let sent = match self.queue.is_empty() && !rest.is_empty() {
                true => self.transmit_whole(batches, counters),
                false => 0,
            };
            if sent > 0 {
                batches = &batches[sent..];
            } else {
                self.send(*first, counters);
                batches = rest;
            }
        }
    }

    /// Hands batches that need one message each to the kernel by one call; returns how many it took. Those that it did
    /// not take, for whatever reason, have to be sent one by one.
    fn transmit_whole(&self, batches: &[Batch<'_>], counters: &mut SendCounters) -> usize {
        let last = batches[batches.len() - 1];
        let departures: [Departure<'_>; MAX_DEPARTURES] = std::array::from_fn(|index| {
            let batch = batches.get(index).unwrap_or(&last);
            self.departure(batch, batch.bytes)
        });
        let whole = batches
            .iter()
            .take(MAX_DEPARTURES)
            .take_while(|batch| batch.bytes.len() <= self.part_len(batch.segment_size))
            .count();
        let sent = match whole {
            0 => 0,
            _ => datagrams::send_many(&self.io, &departures[..whole]).unwrap_or(0),
        };
        counters.calls += u64::from(sent > 0);
        let datagrams: usize = batches[..sent].iter().map(Batch::datagrams).sum();
        counters.datagrams += datagrams as u64;
        sent
    }

    /// The socket takes datagrams again.
    pub(crate) fn flush(&mut self, counters: &mut SendCounters) {
        while let Some(mut first) = self.queue.pop_front() {
            let datagrams = first.batch().datagrams();
            match self.transmit(first.batch(), counters) {
                Progress::Done => {
                    self.queued_datagrams -= datagrams;
                    self.queued_bytes -= first.bytes.len();
                }
                Progress::Blocked(done) => {
                    first.bytes.drain(..done);
                    self.queued_bytes -= done;
                    self.queued_datagrams -= datagrams - first.batch().datagrams();
                    self.queue.push_front(first);
                    return;
                }
            }
        }
    }

    fn enqueue(&mut self, batch: Batch<'_>, counters: &mut SendCounters) {
        let datagrams = batch.datagrams();
        if self.queued_datagrams + datagrams > MAX_QUEUED_DATAGRAMS
            || self.queued_bytes + batch.bytes.len() > MAX_QUEUED_BYTES
        {
            counters.queue_full += datagrams as u64;
            return;
        }
        self.queued_datagrams += datagrams;
        self.queued_bytes += batch.bytes.len();
        self.queue.push_back(Queued {
            to: batch.to,
            ecn: batch.ecn,
            bytes: batch.bytes.to_vec(),
            segment_size: batch.segment_size,
        });
    }

    /// Sends from the beginning until all is gone or the kernel takes no more.
    fn transmit(&mut self, batch: Batch<'_>, counters: &mut SendCounters) -> Progress {
        let mut done = 0;
        loop {
            let rest = &batch.bytes[done..];
            let part = &rest[..rest.len().min(self.part_len(batch.segment_size))];
            let datagrams = part.len().div_ceil(batch.segment_size.max(1)).max(1) as u64;
            match self.transmit_part(&batch, part) {
                Ok(()) => {
                    counters.calls += 1;
                    counters.datagrams += datagrams;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Blocked(done);
                }
                Err(error) if datagrams > 1 && is_offload_refusal(&error) => {
                    self.lower_offload(batch.segment_size);
                    continue;
                }
                Err(error) => {
                    tracing::trace!(%error, to = %batch.to, "Datagrams refused");
                    counters.refused += datagrams;
                }
            }
            done += part.len();
            if done >= batch.bytes.len() {
                return Progress::Done;
            }
        }
    }

    fn transmit_part(&self, batch: &Batch<'_>, part: &[u8]) -> io::Result<()> {
        datagrams::send(&self.io, &self.departure(batch, part))
    }

    fn departure<'b>(&self, batch: &Batch<'_>, part: &'b [u8]) -> Departure<'b> {
        let segment_size = (batch.segment_size < part.len()).then_some(batch.segment_size);
        Departure {
            to: batch.to,
            source: self.plan.source,
            ecn: batch.ecn,
            bytes: part,
            segment_size: segment_size.and_then(|size| u16::try_from(size).ok()),
        }
    }

    /// Bytes that one call may take.
    fn part_len(&self, segment_size: usize) -> usize {
        match segment_size <= self.max_segment {
            true => usize::MAX,
            false => segment_size,
        }
    }

    /// The kernel refused segments of this size. Large ones may exceed the network's packets, which says nothing about
    /// smaller ones of other clients; otherwise the network adapter cannot do it.
    fn lower_offload(&mut self, segment_size: usize) {
        self.max_segment = match segment_size > SAFE_SEGMENT {
            true => segment_size - 1,
            false => {
                tracing::warn!(
                    "The system refuses UDP segmentation offload; sending datagrams one by one"
                );
                0
            }
        };
    }
}

impl Batch<'_> {
    /// At least one: an empty datagram is one too.
    fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.segment_size.max(1)).max(1)
    }
}

impl Queued {
    fn batch(&self) -> Batch<'_> {
        Batch {
            to: self.to,
            ecn: self.ecn,
            bytes: &self.bytes,
            segment_size: self.segment_size,
        }
    }
}

/// What Linux answers when a batch cannot be segmented on its way: EINVAL, EIO, or EMSGSIZE in newer kernels.
fn is_offload_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput || platform::is_refusal_of_size(error)
}
