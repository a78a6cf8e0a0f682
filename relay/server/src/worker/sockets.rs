//! All sockets of a relay: the listen port and the allocations, each in up to two families.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    time::Instant,
};

use anyhow::{Context as _, Result};
use mio::{Registry, Token};
use relay_core::{AllocationPort, Family, PublicAddresses, Shard};

use super::{
    socket::{self, Batch, Plan, SendCounters, UdpSocket},
    standing::Look,
};

/// Kernel buffers of the listen port, which carries everybody's data.
const LISTEN_BUFFER: usize = 8 * 1024 * 1024;
/// Buffers of the listen port below this lose bursts that are everyday.
const SMALL_LISTEN_BUFFER: usize = 1024 * 1024;
/// Kernel buffers of an allocation: what a TCP connection through the tunnel has in flight. With a quarter of it, one
/// connection at full speed lost datagrams here. Memory is only used while something waits.
const ALLOCATION_BUFFER: usize = 4 * 1024 * 1024;

/// Which socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SocketId {
    /// The listen port.
    Listen(Family),
    /// An allocation.
    Allocation(AllocationPort, Family),
}

impl SocketId {
    /// The token of this socket; listen sockets use port 0.
    pub(crate) fn token(self) -> Token {
        let (port, family) = match self {
            Self::Listen(family) => (0, family),
            Self::Allocation(port, family) => (usize::from(port.get()), family),
        };
        Token(port << 1 | usize::from(family == Family::V6))
    }

    /// The socket of a token.
    pub(crate) fn from_token(token: Token) -> Option<Self> {
        let family = match token.0 & 1 {
            0 => Family::V4,
            _ => Family::V6,
        };
        match u16::try_from(token.0 >> 1).ok()? {
            0 => Some(Self::Listen(family)),
            port => Some(Self::Allocation(AllocationPort::new(port), family)),
        }
    }
}

impl Hash for SocketId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.token().0);
    }
}

/// Spreads [`SocketId`]s over a table, once per batch of datagrams. Ports are drawn by the relay, so nobody can choose
/// them to collide.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_usize(&mut self, value: usize) {
        /// 2^64 divided by the golden ratio: multiples of it fill the upper bits evenly, which tables look at.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let spread = (value as u64).wrapping_mul(SPREAD);
        self.0 = spread ^ spread >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(self.0 as usize ^ usize::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What the sockets are bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BindOptions {
    pub(crate) public: PublicAddresses,
    pub(crate) bind_v4: Ipv4Addr,
    pub(crate) bind_v6: Ipv6Addr,
    pub(crate) listen_port: u16,
    pub(crate) offload: bool,
}

pub(crate) struct Sockets {
    options: BindOptions,
    /// Whether other workers listen at the same port.
    is_shared: bool,
    /// Source addresses for sockets that are bound to no particular one.
    sources: [Option<IpAddr>; 2],
    registry: Registry,
    table: HashMap<SocketId, UdpSocket, BuildHasherDefault<IdHasher>>,
    /// Those whose receive queue is kept short.
    short: Vec<SocketId>,
    counters: SendCounters,
    /// Of sockets that were closed.
    overruns_before: u64,
}

/// Makes sure that nobody else listens at our port: among sockets that share a port the kernel would not complain.
///
/// # Errors
/// Somebody does.
pub(crate) fn probe(options: &BindOptions) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        if options.public.get(family).is_some() {
            let bind = options.bind_address(family, options.listen_port);
            socket::probe(bind).with_context(|| format!("cannot listen on UDP {bind}"))?;
        }
    }
    Ok(())
}

impl BindOptions {
    fn bind_address(&self, family: Family, port: u16) -> SocketAddr {
        match family {
            Family::V4 => SocketAddr::new(IpAddr::V4(self.bind_v4), port),
            Family::V6 => SocketAddr::new(IpAddr::V6(self.bind_v6), port),
        }
    }
}

impl Sockets {
    /// Binds the listen port.
    pub(crate) fn new(options: BindOptions, shard: Shard, registry: Registry) -> Result<Self> {
        let source = |family| source(&options, family);
        let mut sockets = Self {
            sources: [source(Family::V4), source(Family::V6)],
            options,
            is_shared: shard.has_siblings(),
            registry,
            table: HashMap::default(),
            short: Vec::new(),
            counters: SendCounters::default(),
            overruns_before: 0,
        };
        for family in [Family::V4, Family::V6] {
            if sockets.options.public.get(family).is_some() {
                sockets.listen(family)?;
            }
        }
        Ok(sockets)
    }

    fn listen(&mut self, family: Family) -> Result<()> {
        let port = self.options.listen_port;
        let plan = Plan {
            is_shared: self.is_shared,
            ..self.plan(port, family, LISTEN_BUFFER)
        };
        let id = SocketId::Listen(family);
        let socket = UdpSocket::bind(plan, &self.registry, id.token())
            .with_context(|| format!("cannot listen on UDP {}", plan.bind))?;
        let (receive, send) = socket.buffer_sizes()?;
        tracing::info!(address = %plan.bind, receive, send, "Listening");
        if receive.min(send) < SMALL_LISTEN_BUFFER {
            tracing::warn!(
                wanted = LISTEN_BUFFER,
                receive,
                send,
                "The system limits UDP buffers; raise net.core.rmem_max and net.core.wmem_max to avoid losses"
            );
        }
        self.table.insert(id, socket);
        Ok(())
    }

    /// Binds the socket of an allocation.
    pub(crate) fn open(&mut self, port: AllocationPort, family: Family) -> io::Result<()> {
        let id = SocketId::Allocation(port, family);
        let plan = self.plan(port.get(), family, ALLOCATION_BUFFER);
        // Peers know the public address only. A socket bound to it needs not be told where to send from.
        let plan = match plan.source {
            Some(public) => Plan {
                bind: SocketAddr::new(public, port.get()),
                source: None,
                ..plan
            },
            None => plan,
        };
        let socket = UdpSocket::bind(plan, &self.registry, id.token())?;
        self.table.insert(id, socket);
        Ok(())
    }

    /// Closes the socket of an allocation.
    pub(crate) fn close(&mut self, port: AllocationPort, family: Family) {
        if let Some(mut socket) = self.table.remove(&SocketId::Allocation(port, family)) {
            self.overruns_before += socket.receive_overruns().unwrap_or(0);
            socket.deregister(&self.registry);
        }
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&UdpSocket> {
        self.table.get(&id)
    }

    /// Sends from a socket; without effect if it was closed meanwhile.
    pub(crate) fn send(&mut self, id: SocketId, batch: Batch<'_>) {
        if let Some(socket) = self.table.get_mut(&id) {
            socket.send(batch, &mut self.counters);
            socket.await_room(&self.registry, id.token());
        }
    }

    /// As [`Self::send`], in this order.
    pub(crate) fn send_many(&mut self, id: SocketId, batches: &[Batch<'_>]) {
        if let Some(socket) = self.table.get_mut(&id) {
            socket.send_many(batches, &mut self.counters);
            socket.await_room(&self.registry, id.token());
        }
    }

    /// The socket takes datagrams again.
    pub(crate) fn flush(&mut self, id: SocketId) {
        if let Some(socket) = self.table.get_mut(&id) {
            socket.flush(&mut self.counters);
            socket.await_room(&self.registry, id.token());
        }
    }

    /// A receive call has shown this of the socket's queue.
    pub(super) fn note_queue(&mut self, id: SocketId, look: Look, now: Instant) {
        if let Some(socket) = self.table.get_mut(&id)
            && socket.note_queue(look, now)
        {
            tracing::debug!(?id, "Datagrams come faster than they can be relayed");
            self.short.push(id);
        }
    }

    /// Another second is over.
    pub(crate) fn tick(&mut self) {
        let table = &mut self.table;
        self.short.retain(|id| {
            let socket = table.get_mut(id);
            socket.is_some_and(UdpSocket::tick_queue)
        });
    }

    pub(crate) fn counters(&self) -> SendCounters {
        self.counters
    }

    /// Datagrams for which the kernel had no room: at the listen port until now, at allocations once they are closed.
    pub(crate) fn receive_overruns(&self) -> u64 {
        let listen = [Family::V4, Family::V6].into_iter().filter_map(|family| {
            let socket = self.table.get(&SocketId::Listen(family))?;
            socket.receive_overruns()
        });
        self.overruns_before + listen.sum::<u64>()
    }

    fn plan(&self, port: u16, family: Family, buffer_bytes: usize) -> Plan {
        Plan {
            bind: self.options.bind_address(family, port),
            source: match family {
                Family::V4 => self.sources[0],
                Family::V6 => self.sources[1],
            },
            buffer_bytes,
            offload: self.options.offload,
            is_shared: false,
        }
    }
}

/// On hosts with several addresses the kernel's choice may not be the one that clients know. The public address is used
/// when it is one of this host's, which it is not behind a 1:1 NAT.
fn source(options: &BindOptions, family: Family) -> Option<IpAddr> {
    let is_bound = match family {
        Family::V4 => !options.bind_v4.is_unspecified(),
        Family::V6 => !options.bind_v6.is_unspecified(),
    };
    let public = options.public.get(family).filter(|_| !is_bound)?;
    StdUdpSocket::bind((public, 0)).ok().map(|_| public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_sockets() {
        for family in [Family::V4, Family::V6] {
            for id in [
                SocketId::Listen(family),
                SocketId::Allocation(AllocationPort::new(1), family),
                SocketId::Allocation(AllocationPort::new(65535), family),
            ] {
                assert_eq!(SocketId::from_token(id.token()), Some(id));
            }
        }
        assert_eq!(SocketId::from_token(Token(1 << 17)), None);
    }
}
