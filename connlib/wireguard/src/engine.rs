//! What a cipher engine must do: Noise handshakes and sealing, no timers and no decisions.
//!
//! Sealing and opening are separate entries and take batches, so that an engine that works on several packets per instruction,
//! or splits the two directions over threads, fits in without touching its callers (snownet §4.7).

mod noise;

use std::sync::Arc;

use ip_packet::PacketBatch;
use x25519_dalek::PublicKey as Point;
use zeroize::Zeroizing;

use crate::macs::MacKeys;
use crate::message::{INIT_LEN, KEEPALIVE_LEN, RESPONSE_LEN};
use crate::timestamp::Timestamp;
use crate::{PeerIndex, PrivateKey, PublicKey, SealSink};

pub use self::noise::Noise;
pub(crate) use self::noise::claimed_sender;

/// The Noise handshake and the sessions between two static keys.
///
/// The caller knows which sessions are valid, names one by its local index whenever it seals, and opens only under those. An
/// engine that is asked for another one, or given a message of the wrong type, aborts a debug build and refuses in a release
/// build (snownet 59).
pub trait Engine: Sized {
    /// An engine without sessions, whose local indices start with `index`.
    fn new(config: &EngineConfig, psk: [u8; 32], index: PeerIndex) -> Self;

    /// Seals all packets of `batch` under a session, each into its own slot of `sink`. An empty packet becomes a keepalive.
    fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        session: u32,
        batch: &mut B,
        sink: &mut S,
    ) -> SealOutcome;

    /// Opens data messages, each under the session that it names, into its job's `out`.
    fn open(&mut self, jobs: &mut [OpenJob<'_>]);

    /// Makes a new handshake initiation, whatever is in flight. The one before stays answerable. Each timestamp of a peer is
    /// later than those before.
    fn init(&mut self, timestamp: Timestamp) -> [u8; INIT_LEN];

    /// Accepts an initiation: stores a new, unconfirmed session and returns the response.
    fn accept_init(&mut self, datagram: &[u8]) -> Result<[u8; RESPONSE_LEN], EngineError>;

    /// Accepts a response to one of the last two initiations, and no further one: stores the new session and returns a
    /// keepalive sealed under it, which is its first message.
    fn accept_response(&mut self, datagram: &[u8]) -> Result<[u8; KEEPALIVE_LEN], EngineError>;

    /// Takes a cookie, which the next initiation proves.
    fn accept_cookie(&mut self, datagram: &[u8]) -> Result<(), EngineError>;

    /// Erases one session, if there is one of that local index.
    fn forget(&mut self, session: u32);

    /// Erases all sessions but keeps what protects against replay: the last timestamp and the handshake in flight.
    fn clear(&mut self);
}

/// What all engines of one peer share.
#[derive(Clone)]
pub struct EngineConfig(Arc<Keys>);

/// The static keys of both sides and what follows from them. Zeroed when dropped.
pub(crate) struct Keys {
    private: PrivateKey,
    remote: PublicKey,
    /// The secret shared between the two static keys.
    static_secret: Zeroizing<[u8; 32]>,
    to_us: MacKeys,
    to_remote: MacKeys,
}

impl EngineConfig {
    pub(crate) fn new(private: PrivateKey, remote: PublicKey) -> Self {
        let static_secret = private.secret().diffie_hellman(&Point::from(remote.0));

        Self(Arc::new(Keys {
            static_secret: Zeroizing::new(static_secret.to_bytes()),
            to_us: MacKeys::of(&private.public()),
            to_remote: MacKeys::of(&remote),
            private,
            remote,
        }))
    }
}

impl std::fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineConfig")
            .field("remote", &self.0.remote)
            .finish_non_exhaustive()
    }
}

/// What sealing a batch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SealOutcome {
    /// Datagrams committed to the sink.
    pub sent: usize,
    /// Bytes of packets in them.
    pub bytes: u64,
    /// Packets larger than the tunnel's MTU.
    pub dropped: usize,
}

/// One data message to open.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// The received datagram.
    pub datagram: &'a [u8],
    /// Takes the packet; at least as long as the datagram without its header (16 bytes).
    pub out: &'a mut [u8],
    /// Filled by the engine: length of the packet in `out`, 0 for a keepalive.
    pub result: Result<usize, EngineError>,
}

impl<'a> OpenJob<'a> {
    /// A job that is not done yet.
    pub fn new(datagram: &'a [u8], out: &'a mut [u8]) -> Self {
        Self {
            datagram,
            out,
            result: Err(EngineError::Refused),
        }
    }
}

/// Why an engine refused a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Authentic, but its content is no IP packet.
    #[error("authentic message without an IP packet")]
    NotIp,
    /// A tag does not verify: damaged, forged, or keys or preshared keys differ.
    #[error("message does not decrypt")]
    Undecryptable,
    /// A counter or timestamp was seen before, or is too old to tell.
    #[error("replayed message")]
    Replayed,
    /// Belongs to no session or handshake of this engine, is for another key, or malformed.
    #[error("message does not belong here")]
    Refused,
}
