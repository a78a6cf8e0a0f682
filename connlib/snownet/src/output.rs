//! What the node hands to its caller: datagrams, events, results and errors.

use std::net::SocketAddr;

use ip_packet::{Ecn, IpPacket};

/// One datagram for the network, made by the node itself (checks, handshakes, TURN requests).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Local socket address that must be used; `None` for any (traffic to relays).
    pub src: Option<SocketAddr>,
    /// Where it goes.
    pub dst: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// ECN bits of the outer IP header.
    pub ecn: Ecn,
}

/// Something that the layer above must know or signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<P> {
    /// A candidate of ours that the peer must learn.
    NewIceCandidate {
        /// The peer it is for.
        peer: P,
        /// SDP form of RFC 8839 §5.1.
        sdp: String,
    },
    /// A relay candidate of ours that is gone; the peer must drop it.
    InvalidateIceCandidate {
        /// The peer it was signalled to.
        peer: P,
        /// SDP form of RFC 8839 §5.1.
        sdp: String,
    },
    /// A path is nominated and the first WireGuard handshake is complete. Once per connection.
    ConnectionEstablished(P),
    /// The connection is beyond recovery; all its state is already gone.
    ConnectionFailed(P),
    /// A packet that waited for a session of the connection that has just failed. It was not sent and may take another way.
    ///
    /// Follows [`Event::ConnectionFailed`], oldest packet first, and only if the connection had been established: what waited for
    /// one that never came about has had its chance. At most 256 per connection, none older than 45 s.
    Undelivered {
        /// The peer it was for.
        peer: P,
        /// The packet.
        packet: IpPacket,
    },
    /// The connection was closed on purpose; all its state is already gone.
    ConnectionClosed(P),
    /// The last relay is gone; new ones must be asked for.
    NoRelays,
}

/// A connection cannot be made because no usable relay is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no usable relay is known")]
pub struct NoRelays;

/// What became of the packets of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encapsulated {
    /// Sealed and handed to the sink.
    pub sent: usize,
    /// Kept until a path and a session exist; they leave through `poll_transmit`.
    pub buffered: usize,
    /// Dropped: a queue was full, the packet too large, or nothing may be sent.
    pub dropped: usize,
}

/// Why a batch could not be taken at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncapsulateError {
    /// There is no connection to this peer.
    #[error("no connection to this peer")]
    UnknownPeer,
}

/// What an inbound datagram turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decapsulated<P> {
    /// It served the node itself. Events, transmits or deadlines may have changed.
    Consumed,
    /// Authentic plaintext of `peer` in the first `len` bytes of the output buffer.
    ///
    /// It is not yet parsed: an authenticated peer can send anything.
    Packet {
        /// Who sealed it.
        peer: P,
        /// Number of plaintext bytes.
        len: usize,
    },
}

/// Why an inbound datagram was dropped. None of these changes the state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecapsulateError {
    /// Longer than [`MAX_DATAGRAM_SIZE`](crate::MAX_DATAGRAM_SIZE) or than the output buffer.
    #[error("datagram is longer than anything a peer may send")]
    TooLarge,
    /// Neither STUN, channel data nor WireGuard.
    #[error("datagram belongs to no known protocol")]
    NotRecognised,
    /// A STUN message that no ICE agent claims.
    #[error("STUN message belongs to no connection")]
    UnknownStun,
    /// A WireGuard message for an index or key that no connection owns.
    #[error("WireGuard message belongs to no connection")]
    UnknownPeer,
    /// WireGuard refused it: bad integrity, replay, expired session, unexpected message.
    #[error("WireGuard refused the message")]
    Rejected,
}
