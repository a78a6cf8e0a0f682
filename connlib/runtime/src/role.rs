//! What the data thread needs of a client's or gateway's session.

use std::{net::SocketAddr, time::Instant};

use connlib_messages::Message;
use connlib_session::{PortalInput, PortalOutput};
use connlib_snownet::{DatagramSink, Transmit};
use connlib_tunnel::{PublicKey, Train, TunPacket, segment::Coalescer};
use ip_packet::{Ecn, IpPacket};

/// A session with its side outputs, as the data thread drives it.
///
/// One trait for both roles, so that there is one event loop. All calls are static: nothing of it costs on the
/// packet path.
pub(crate) trait Role: Send + 'static {
    /// Messages of the portal.
    type FromPortal: Message + Send + 'static;
    /// Messages to the portal.
    type ToPortal: Message + Send + 'static;
    /// Wishes of the program around it.
    type Command: Send + 'static;

    /// The key to log in with.
    fn public_key(&self) -> PublicKey;
    /// A packet or super-packet from the TUN device.
    fn handle_tun(&mut self, packet: TunPacket<'_>, now: Instant, sink: &mut impl DatagramSink);
    /// Datagrams that arrived together; takes all, or as many as `out` has room for.
    fn handle_train(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        ecn: Ecn,
        train: &mut Train<'_>,
        now: Instant,
        out: &mut Coalescer,
    );
    /// Something that happened on the channel to the portal.
    fn handle_portal(&mut self, input: PortalInput<Self::FromPortal, Self::ToPortal>, now: Instant);
    /// A wish of the program.
    fn handle_command(&mut self, command: Self::Command, now: Instant);
    /// Network change: start over, where several workers share a key with the one of this seed.
    fn reset(&mut self, key_seed: [u8; 32], now: Instant);
    /// Say goodbye to all peers.
    fn shutdown(&mut self, now: Instant);
    /// Everything that is due.
    fn handle_timeout(&mut self, now: Instant);
    /// The next instant at which something is due.
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// The next datagram of its own.
    fn poll_transmit(&mut self) -> Option<Transmit>;
    /// The next packet of its own for the TUN device.
    fn poll_packet(&mut self) -> Option<IpPacket>;
    /// The next thing to do on the channel to the portal.
    fn poll_portal(&mut self, now: Instant) -> Option<PortalOutput<Self::ToPortal>>;
    /// Hands events and look-ups to the threads that serve them, as far as their queues have room.
    fn drain_events(&mut self, now: Instant);

    /// Hands packets that were read for other workers' peers to those.
    fn hand_over(&mut self) {}
    /// Whether other workers have handed packets to this one.
    fn was_handed(&self) -> bool {
        false
    }
    /// Takes the next packet that another worker has handed over. False: there is none.
    fn handle_handed(&mut self, _now: Instant, _sink: &mut impl DatagramSink) -> bool {
        false
    }
}
