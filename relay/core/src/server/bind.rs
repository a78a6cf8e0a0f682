//! ChannelBind and CreatePermission (relay spec §2.7).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use connlib_stun::{ChannelBind, ChannelNumber, ErrorCode, ErrorResponse, Success};

use crate::{
    address::{ClientSocket, PeerSocket},
    channels::Claim,
    server::{Server, request::Answer},
    timers::Timer,
};

/// How long a permission lasts (RFC 8656 §9).
pub(super) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// Channels of one allocation: as many as RFC 8656 has numbers.
const MAX_CHANNELS: usize = 4096;
/// Permissions of one allocation.
const MAX_PERMISSIONS: usize = 256;

impl Server {
    pub(super) fn handle_channel_bind(
        &mut self,
        client: ClientSocket,
        bind: &ChannelBind,
        now: Instant,
    ) -> Answer {
        let allocation = self
            .allocations
            .get(client)
            .ok_or(ErrorResponse::new(ErrorCode::ALLOCATION_MISMATCH))?;
        let (port, channels) = (allocation.port, allocation.channels.len());
        let (number, peer) = self.check_bind(bind)?;
        let peer = self.check_peer(client, peer)?;
        match self.channels.claim(client, number, peer) {
            Claim::Conflict => return Err(ErrorResponse::new(ErrorCode::BAD_REQUEST)),
            Claim::New if channels >= MAX_CHANNELS => {
                return Err(ErrorResponse::new(ErrorCode::INSUFFICIENT_CAPACITY));
            }
            Claim::New | Claim::Existing => {}
        }
        if self.is_open_profile() {
            self.permit(client, &[peer], now)?;
        }
        let (previous, until) = self.channels.bind(client, number, (port, peer), now);
        let timer = Timer::Channel(client, number);
        if let Some(previous) = previous {
            self.timers.disarm(timer, previous);
        }
        self.timers.arm(timer, until);
        if let Some(allocation) = self.allocations.get_mut(client) {
            allocation.channels.insert(number);
        }
        tracing::info!(%port, %number, refreshed = previous.is_some(), "Channel bound");
        tracing::debug!(%client, %number, %peer, "Channel bound to peer");
        Ok(Success::ChannelBind)
    }

    pub(super) fn handle_create_permission(
        &mut self,
        client: ClientSocket,
        peers: &[SocketAddr],
        now: Instant,
    ) -> Answer {
        if self.allocations.get(client).is_none() {
            return Err(ErrorResponse::new(ErrorCode::ALLOCATION_MISMATCH));
        }
        if peers.is_empty() {
            return Err(ErrorResponse::new(ErrorCode::BAD_REQUEST));
        }
        for peer in peers {
            self.check_permission(client, PeerSocket::new(*peer))?;
        }
        if self.is_open_profile() {
            let own = self.policy.own();
            let peers = peers
                .iter()
                .map(|peer| own.canonical(PeerSocket::new(*peer)));
            let peers: Vec<_> = peers.collect();
            self.permit(client, &peers, now)?;
        }
        Ok(Success::CreatePermission)
    }

    fn check_bind(&self, bind: &ChannelBind) -> Result<(ChannelNumber, PeerSocket), ErrorResponse> {
        let number = bind
            .number
            .filter(|number| self.config.channel_numbers.contains(*number));
        match (number, bind.peer) {
            (Some(number), Some(peer)) if peer.port() != 0 => Ok((number, PeerSocket::new(peer))),
            _ => Err(ErrorResponse::new(ErrorCode::BAD_REQUEST)),
        }
    }

    /// Checks family and policy; returns the one name of the peer.
    fn check_peer(
        &mut self,
        client: ClientSocket,
        peer: PeerSocket,
    ) -> Result<PeerSocket, ErrorResponse> {
        self.check_family(client, peer)?;
        if !self.policy.allows(peer) {
            return Err(self.refuse_peer(client, peer));
        }
        Ok(self.policy.own().canonical(peer))
    }

    /// Permissions are per address; clients put any port there, also 0.
    fn check_permission(
        &mut self,
        client: ClientSocket,
        peer: PeerSocket,
    ) -> Result<(), ErrorResponse> {
        self.check_family(client, peer)?;
        match self.policy.allows_permission(peer.ip()) {
            true => Ok(()),
            false => Err(self.refuse_peer(client, peer)),
        }
    }

    fn check_family(&self, client: ClientSocket, peer: PeerSocket) -> Result<(), ErrorResponse> {
        let families = self.allocations.get(client).map(|it| it.families);
        match families.is_some_and(|families| families.contains(peer.family())) {
            true => Ok(()),
            false => Err(ErrorResponse::new(ErrorCode::PEER_FAMILY_MISMATCH)),
        }
    }

    fn refuse_peer(&mut self, client: ClientSocket, peer: PeerSocket) -> ErrorResponse {
        self.counters.policy_refusals += 1;
        tracing::debug!(%client, %peer, "Peer refused by policy");
        ErrorResponse::new(ErrorCode::FORBIDDEN)
    }

    /// Installs or refreshes permissions.
    fn permit(
        &mut self,
        client: ClientSocket,
        peers: &[PeerSocket],
        now: Instant,
    ) -> Result<(), ErrorResponse> {
        let Some(allocation) = self.allocations.get_mut(client) else {
            return Err(ErrorResponse::new(ErrorCode::ALLOCATION_MISMATCH));
        };
        let permissions = &mut allocation.permissions;
        permissions.retain(|_, until| *until > now);
        for peer in peers {
            if permissions.len() >= MAX_PERMISSIONS && !permissions.contains_key(&peer.ip()) {
                return Err(ErrorResponse::new(ErrorCode::INSUFFICIENT_CAPACITY));
            }
            permissions.insert(peer.ip(), now + PERMISSION_LIFETIME);
        }
        Ok(())
    }
}
