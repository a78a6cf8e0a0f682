//! What a cipher engine must do: Noise handshakes and sealing, no timers and no decisions.
//!
//! Sealing and opening are separate entries and take batches, so that an engine that works on several packets per instruction,
//! or splits the two directions over threads, fits in without touching its callers (snownet §4.7).

mod boringtun;

use ip_packet::PacketBatch;

use crate::message::{INIT_LEN, KEEPALIVE_LEN, RESPONSE_LEN};
use crate::{HandshakeLimiter, PeerIndex, PrivateKey, PublicKey, SealSink};

pub use self::boringtun::Boringtun;

/// The Noise handshake and the sessions between two static keys.
///
/// The caller knows which sessions are valid: it asks to seal or open only under those. An engine that is asked otherwise
/// aborts a debug build and refuses in a release build (snownet 59).
pub trait Engine: Sized {
    /// An engine without sessions, whose local indices start with `index`.
    fn new(config: &EngineConfig, psk: [u8; 32], index: PeerIndex) -> Self;

    /// Seals all packets of `batch` under the session used last, each into its own slot of `sink`. An empty packet becomes a
    /// keepalive. `peer_index` is the receiver index that every sealed datagram must carry.
    fn seal<B: PacketBatch, S: SealSink>(
        &mut self,
        peer_index: u32,
        batch: &mut B,
        sink: &mut S,
    ) -> SealOutcome;

    /// Opens data messages, each into its job's `out`.
    fn open(&mut self, jobs: &mut [OpenJob<'_>]);

    /// Makes a new handshake initiation, whatever is in flight. The one before stays answerable.
    fn init(&mut self) -> [u8; INIT_LEN];

    /// Accepts an initiation: stores a new, unconfirmed session and returns the response.
    fn accept_init(&mut self, datagram: &[u8]) -> Result<[u8; RESPONSE_LEN], EngineError>;

    /// Accepts a response to one of the last two initiations: stores the new session, makes it the one used for sealing and
    /// returns a keepalive sealed under it, which is its first message.
    fn accept_response(&mut self, datagram: &[u8]) -> Result<[u8; KEEPALIVE_LEN], EngineError>;

    /// Takes a cookie, which the next initiation proves.
    fn accept_cookie(&mut self, datagram: &[u8]) -> Result<(), EngineError>;

    /// Erases all sessions but keeps what protects against replay: the last timestamp and the handshake in flight.
    fn clear(&mut self);
}

/// What all engines of one peer share.
#[derive(Clone)]
pub struct EngineConfig {
    private: PrivateKey,
    remote: PublicKey,
    limiter: std::sync::Arc<::boringtun::noise::rate_limiter::RateLimiter>,
}

impl EngineConfig {
    pub(crate) fn new(private: PrivateKey, remote: PublicKey, limiter: &HandshakeLimiter) -> Self {
        Self {
            private,
            remote,
            limiter: limiter.engine_limiter(),
        }
    }
}

impl std::fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineConfig")
            .field("remote", &self.remote)
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
