//! Building and queueing requests (snownet spec §2.3).

use std::{net::SocketAddr, time::Instant};

use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, Family, Refresh, Request, RequestBody, TransactionId,
};
use rand::RngCore;
use tracing::{trace, warn};

use super::Allocation;
use crate::{FreeReason, Transmit, backoff::Backoff, credentials::NonceGeneration, requests::Kind};

impl Allocation {
    /// Makes a request and queues its first transmission.
    pub(super) fn request(&mut self, kind: Kind, dst: SocketAddr, backoff: Backoff, now: Instant) {
        let id = self.fresh_id();
        let generation = self.generation_for(kind);
        self.requests
            .insert(kind, dst, backoff, id, generation, now);
        self.transmit(kind, dst, id);
    }

    /// Queues a further transmission: a new message when authenticated, the same one otherwise.
    pub(super) fn resend(&mut self, request: u64, now: Instant) {
        let Some(pending) = self.requests.get(request) else {
            return;
        };
        let id = if pending.kind.is_authenticated() {
            self.fresh_id()
        } else {
            self.requests
                .latest(request)
                .unwrap_or_else(|| self.fresh_id())
        };
        let generation = self.generation_for(pending.kind);
        self.requests.add_attempt(request, id, generation, now);
        self.transmit(pending.kind, pending.dst, id);
    }

    fn generation_for(&self, kind: Kind) -> NonceGeneration {
        if kind.is_authenticated() {
            self.auth.generation()
        } else {
            NonceGeneration::default()
        }
    }

    pub(super) fn fresh_id(&mut self) -> TransactionId {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        TransactionId::new(id)
    }

    pub(super) fn transmit(&mut self, kind: Kind, dst: SocketAddr, id: TransactionId) {
        let authenticated = kind.is_authenticated();
        let request = Request {
            transaction_id: id,
            auth: if authenticated {
                self.auth.attributes()
            } else {
                AuthAttributes::default()
            },
            software: Some(self.software.clone()),
            body: body(kind),
        };
        match request.encode(authenticated.then(|| self.auth.key())) {
            Ok(payload) => {
                trace!(?kind, %dst, ?id, "Sending request");
                self.transmits.push_back(Transmit { dst, payload });
            }
            Err(error) => {
                warn!(%error, "Relay's credentials do not fit into a request");
                self.fail(FreeReason::Protocol);
            }
        }
    }
}

fn body(kind: Kind) -> RequestBody {
    match kind {
        Kind::Discovery | Kind::KeepAlive => RequestBody::Binding,
        Kind::Allocate => RequestBody::Allocate(Allocate {
            requested_transport: Some(Allocate::UDP),
            // Both families in one allocation; whatever comes back is used.
            additional_family: Some(Family::V6),
            ..Allocate::default()
        }),
        Kind::Renewal | Kind::Probe | Kind::Inquiry => RequestBody::Refresh(Refresh::default()),
        Kind::Deletion => RequestBody::Refresh(Refresh {
            lifetime: Some(0),
            ..Refresh::default()
        }),
        Kind::ChannelBind { number, peer } => RequestBody::ChannelBind(ChannelBind {
            number: Some(number),
            peer: Some(peer),
        }),
    }
}
