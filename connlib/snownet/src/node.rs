//! The node: all connections of one process.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::PublicKey;
use ip_packet::{Ecn, IpPacket, PacketBatch};

use crate::{
    ConnectionState, DatagramSink, DecapsulateError, Decapsulated, EncapsulateError, Encapsulated,
    Event, IceCredentials, NoRelays, NodeStats, PathInfo, RelayConfig, Role, Transmit,
};

/// All connections of one process.
///
/// `P` identifies peers and `R` relays; both are opaque.
pub struct Node<P, R> {
    role: Role,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event<P>>,
    _relay: PhantomData<R>,
}

impl<P, R> Node<P, R>
where
    P: Copy + Ord + Hash + Display + Debug,
    R: Copy + Ord + Hash + Display + Debug,
{
    /// Makes a node whose key pair and every random choice derive from `seed`.
    ///
    /// `unix_now` is the wall clock at `now`, as time since the Unix epoch.
    pub fn new(role: Role, _seed: [u8; 32], _now: Instant, _unix_now: Duration) -> Self {
        Self {
            role,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            _relay: PhantomData,
        }
    }

    /// Which end of its connections this node is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The node's WireGuard key. Changes with every [`reset`](Self::reset).
    pub fn public_key(&self) -> PublicKey {
        PublicKey([0; 32])
    }

    /// Makes a connection to `peer`, or keeps the existing one if key and ICE credentials are equal.
    ///
    /// A kept connection wakes up, signals all its candidates again and (client) renews its session.
    /// A replaced one vanishes without event.
    ///
    /// # Errors
    ///
    /// [`NoRelays`] if no relay is usable; nothing has changed then.
    #[expect(clippy::too_many_arguments, reason = "one call of the signalling protocol")]
    pub fn upsert_connection(
        &mut self,
        _peer: P,
        _remote: PublicKey,
        _psk: [u8; 32],
        _local: IceCredentials,
        _remote_ice: IceCredentials,
        _now: Instant,
    ) -> Result<(), NoRelays> {
        Err(NoRelays)
    }

    /// Whether there is a connection to `peer`, in whatever state.
    pub fn has_connection(&self, _peer: P) -> bool {
        false
    }

    /// State of the connection to `peer`.
    pub fn connection_state(&self, _peer: P) -> Option<ConnectionState> {
        None
    }

    /// The nominated path to `peer`.
    pub fn path(&self, _peer: P) -> Option<PathInfo<R>> {
        None
    }

    /// Takes a candidate of the peer (SDP form). Unparsable ones and unknown peers are ignored.
    pub fn add_remote_candidate(&mut self, _peer: P, _sdp: &str, _now: Instant) {}

    /// Drops a candidate that the peer has invalidated.
    pub fn remove_remote_candidate(&mut self, _peer: P, _sdp: &str, _now: Instant) {}

    /// Changes the set of relays: `remove`d ones go, `add`ed ones are taken or replaced.
    pub fn update_relays(
        &mut self,
        _remove: &BTreeSet<R>,
        _add: &[RelayConfig<R>],
        _now: Instant,
    ) {
    }

    /// Adds a local socket address that relays cannot discover (multi-homed servers).
    pub fn add_host_candidate(&mut self, _addr: SocketAddr, _now: Instant) {}

    /// Seals every packet of `batch` onto the peer's path, straight into `sink`.
    ///
    /// # Errors
    ///
    /// [`EncapsulateError::UnknownPeer`]; no packet was taken from the batch then.
    pub fn encapsulate(
        &mut self,
        _peer: P,
        _batch: &mut impl PacketBatch,
        _ecn: Ecn,
        _now: Instant,
        _sink: &mut impl DatagramSink,
    ) -> Result<Encapsulated, EncapsulateError> {
        Err(EncapsulateError::UnknownPeer)
    }

    /// Takes one datagram that arrived on the socket `local` from `from`.
    ///
    /// `out` receives the plaintext and must be at least as long as the datagram.
    ///
    /// # Errors
    ///
    /// The datagram was dropped; the node goes on as before.
    pub fn decapsulate(
        &mut self,
        _local: SocketAddr,
        _from: SocketAddr,
        _datagram: &[u8],
        _now: Instant,
        _out: &mut [u8],
    ) -> Result<Decapsulated<P>, DecapsulateError> {
        Err(DecapsulateError::NotRecognised)
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        None
    }

    /// The next datagram for the network.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        self.events.pop_front()
    }

    /// Closes the connection to `peer`: seals `goodbye` onto its path, if there is one.
    pub fn close(&mut self, _peer: P, _goodbye: Option<&IpPacket>, _now: Instant) {}

    /// Closes every connection.
    pub fn close_all(&mut self, _goodbye: Option<&IpPacket>, _now: Instant) {}

    /// Drops the connection to `peer` without a word (the peer said goodbye).
    pub fn remove(&mut self, _peer: P, _now: Instant) {}

    /// Starts over after a change of network: closes all connections, makes a new key pair and
    /// restarts every allocation. The caller must rebind its sockets.
    pub fn reset(&mut self, _now: Instant) {}

    /// Counters.
    pub fn stats(&self) -> NodeStats {
        NodeStats::default()
    }
}
