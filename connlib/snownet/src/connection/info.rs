//! What others may know of a connection.

use connlib_cover::cover;
use connlib_wireguard::{PeerIndex, PublicKey, Stats};
use is::CandidateKind;

use super::{Connection, Path, Route, State};
use crate::{ConnectionState, IceCredentials, Id, PathInfo, PathKind};

impl<P: Id, R: Id> Connection<P, R> {
    pub(crate) fn peer(&self) -> P {
        self.peer
    }

    pub(crate) fn relay(&self) -> R {
        self.relay
    }

    pub(crate) fn remote_key(&self) -> PublicKey {
        self.remote_key
    }

    pub(crate) fn local(&self) -> &IceCredentials {
        &self.local
    }

    pub(crate) fn remote(&self) -> &IceCredentials {
        &self.remote
    }

    pub(crate) fn indices(&self) -> [PeerIndex; 2] {
        self.wireguard.indices()
    }

    pub(crate) fn state(&self) -> ConnectionState {
        match self.state {
            State::Connecting { .. } => ConnectionState::Connecting,
            State::Connected { .. } => ConnectionState::Connected,
            State::Idle { .. } => ConnectionState::Idle,
        }
    }

    pub(crate) fn path_info(&self) -> Option<PathInfo<R>> {
        let path = self.state.path()?;
        let relay = match path.route {
            Route::Direct { .. } => None,
            Route::Relayed { relay, .. } => Some(relay),
        };
        Some(PathInfo {
            kind: self.kind_of(path),
            local: path.route.local(),
            remote: path.remote,
            relay,
            since: path.since,
            established: self.first_handshake_at,
        })
    }

    /// Counts a nominated path by what it is made of; nothing but in the simulation.
    pub(super) fn cover_path(&self, path: &Path<R>) {
        let (local_relayed, remote) = (
            matches!(path.route, Route::Relayed { .. }),
            self.agent.remote_kind(path.remote),
        );
        let remote_relayed = remote == Some(CandidateKind::Relayed);
        cover!("paths/direct-v4" if !local_relayed && !remote_relayed && path.remote.is_ipv4());
        cover!("paths/direct-v6" if !local_relayed && !remote_relayed && path.remote.is_ipv6());
        cover!("paths/relay-one-side" if local_relayed != remote_relayed);
        cover!("paths/relay-relay" if local_relayed && remote_relayed);
        cover!("paths/host-nominated" if remote == Some(CandidateKind::Host));
        cover!("paths/srflx-nominated" if remote == Some(CandidateKind::ServerReflexive));
        cover!("paths/prflx-nominated" if remote == Some(CandidateKind::PeerReflexive));
        cover!("paths/relay-nominated" if local_relayed || remote_relayed);
        let before = self.state.path().map(|path| self.kind_of(path));
        cover!("paths/fallback-to-relay" if before == Some(PathKind::PeerToPeer)
            && (local_relayed || remote_relayed));
        cover!("paths/upgrade-to-direct" if before.is_some_and(|kind| kind != PathKind::PeerToPeer)
            && !local_relayed && !remote_relayed);
    }

    pub(super) fn kind_of(&self, path: &Path<R>) -> PathKind {
        let local_relayed = matches!(path.route, Route::Relayed { .. });
        PathKind::new(local_relayed, self.agent.is_remote_relayed(path.remote))
    }

    /// WireGuard's counters.
    pub(crate) fn wireguard_stats(&self) -> Stats {
        self.wireguard.stats()
    }

    /// Packets that were sealed or taken but could not be put onto a path.
    pub(crate) fn unsent(&self) -> u64 {
        self.unsent
    }
}
