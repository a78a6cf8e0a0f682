//! What passes between a session and whoever holds the channel to the portal.

use connlib_tunnel::PublicKey;
use phoenix_channel::FatalError;

/// Something that happened on the channel. `M` is a message of the portal, `S` one of ours.
#[derive(Debug, Clone, PartialEq)]
pub enum PortalInput<M, S> {
    /// The topic is joined: messages can be sent; the full state follows.
    Connected,
    /// A message arrived.
    Message(M),
    /// A message that was polled could not be sent. Whatever must not get lost is sent again on reconnect.
    Unsent(S),
    /// The connection is lost; the channel is reconnecting.
    Disconnected,
    /// The channel has ended for good.
    Failed(FatalError),
}

/// Something that has to happen on the channel. `S` is a message of ours.
#[derive(Debug, Clone, PartialEq)]
pub enum PortalOutput<S> {
    /// Send this message.
    Send(S),
    /// Connect anew, without delay, and log in with this WireGuard key.
    Reconnect {
        /// The key to put into the login parameters.
        public_key: PublicKey,
    },
}
