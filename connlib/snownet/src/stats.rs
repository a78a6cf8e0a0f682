//! Counters of a node. They are plain integers bumped per batch, read on demand.

use crate::Id;
use crate::connection::Connection;

/// Counters of a node since its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Connections right now.
    pub connections: usize,
    /// Connections whose path involves no relay.
    pub direct_connections: usize,
    /// Connections whose path involves a relay.
    pub relayed_connections: usize,
    /// Relays right now.
    pub relays: usize,
    /// Connections that ended in [`Event::ConnectionFailed`](crate::Event::ConnectionFailed).
    pub failed: u64,
    /// Packets sealed.
    pub packets_sent: u64,
    /// Bytes of those packets before sealing.
    pub bytes_sent: u64,
    /// Packets opened.
    pub packets_received: u64,
    /// Bytes of those packets after opening.
    pub bytes_received: u64,
    /// Packets dropped on the way out, for whatever reason.
    pub packets_dropped: u64,
    /// WireGuard sessions made.
    pub handshakes: u64,
    /// Inbound datagrams that were dropped.
    pub datagrams_rejected: u64,
    /// Handshake messages answered with a cookie because of the rate limit.
    pub cookies_sent: u64,
}

/// Counters that outlive their connections.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) failed: u64,
    pub(crate) datagrams_rejected: u64,
    pub(crate) cookies_sent: u64,
    retired: NodeStats,
}

impl Totals {
    /// Keeps the counters of a connection that is about to go.
    pub(crate) fn retire<P: Id, R: Id>(&mut self, connection: &Connection<P, R>) {
        add(&mut self.retired, connection);
    }

    /// Everything, including `live` connections.
    pub(crate) fn with<'a, P: Id + 'a, R: Id + 'a>(
        &self,
        live: impl Iterator<Item = &'a Connection<P, R>>,
        relays: usize,
    ) -> NodeStats {
        let mut stats = NodeStats {
            relays,
            failed: self.failed,
            datagrams_rejected: self.datagrams_rejected,
            cookies_sent: self.cookies_sent,
            ..self.retired
        };
        for connection in live {
            stats.connections += 1;
            match connection.path_info().map(|path| path.kind.is_direct()) {
                Some(true) => stats.direct_connections += 1,
                Some(false) => stats.relayed_connections += 1,
                None => {}
            }
            add(&mut stats, connection);
        }
        stats
    }
}

fn add<P: Id, R: Id>(stats: &mut NodeStats, connection: &Connection<P, R>) {
    let wireguard = connection.wireguard_stats();
    stats.packets_sent += wireguard.tx_packets;
    stats.bytes_sent += wireguard.tx_bytes;
    stats.packets_received += wireguard.rx_packets;
    stats.bytes_received += wireguard.rx_bytes;
    stats.handshakes += wireguard.handshakes;
    stats.packets_dropped += connection.unsent()
        + wireguard.dropped_oversize
        + wireguard.dropped_full
        + wireguard.dropped_no_session
        + wireguard.dropped_outbox;
}
