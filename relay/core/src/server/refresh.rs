//! Refresh (relay spec §2.7): prolongs or deletes the sender's allocation.

use std::time::{Duration, Instant};

use connlib_stun::{ErrorCode, ErrorResponse, Refresh, Success, TransactionId};

use crate::{
    address::ClientSocket,
    server::{
        Command, Server,
        allocate::{DEFAULT_LIFETIME, grant, seconds},
        auth::User,
        request::Answer,
    },
    timers::Timer,
};

/// Deletions that are remembered. Only authenticated users add to them.
const MAX_DELETIONS: usize = 256;

impl Server {
    pub(super) fn handle_refresh(
        &mut self,
        client: ClientSocket,
        transaction_id: TransactionId,
        refresh: &Refresh,
        user: &User,
        now: Instant,
    ) -> Answer {
        if refresh.lifetime == Some(0) && self.deletions.contains(&(client, transaction_id)) {
            // A retransmission, or a replay against the allocation that came after.
            return Ok(Success::Refresh { lifetime: Some(0) });
        }
        let Some(allocation) = self.allocations.get(client) else {
            return Err(ErrorResponse::new(ErrorCode::ALLOCATION_MISMATCH));
        };
        if refresh
            .requested_family
            .is_some_and(|family| !allocation.families.contains(family))
        {
            return Err(ErrorResponse::new(ErrorCode::PEER_FAMILY_MISMATCH));
        }
        if refresh.lifetime == Some(0) {
            return self.delete_on_request(client, transaction_id);
        }
        if self.config.strict_username && allocation.username != user.name {
            return Err(ErrorResponse::new(ErrorCode::WRONG_CREDENTIALS));
        }
        let wish = refresh.lifetime.map_or(DEFAULT_LIFETIME, |seconds| {
            Duration::from_secs(seconds.into())
        });
        Ok(self.prolong(client, grant(wish, user), user, now))
    }

    fn delete_on_request(&mut self, client: ClientSocket, transaction_id: TransactionId) -> Answer {
        self.delete_allocation(client, "deleted by its client");
        if self.deletions.len() == MAX_DELETIONS {
            self.deletions.pop_front();
        }
        self.deletions.push_back((client, transaction_id));
        Ok(Success::Refresh { lifetime: Some(0) })
    }

    /// The new lifetime counts from now, whatever was left. Credentials may have been issued anew, so any valid user on
    /// the same socket takes the allocation over.
    fn prolong(
        &mut self,
        client: ClientSocket,
        lifetime: Duration,
        user: &User,
        now: Instant,
    ) -> Success {
        if let Some(username) = self.allocations.set_owner(client, &user.name) {
            self.announce(Command::UserLost { username, client });
            let username = user.name.clone();
            self.announce(Command::UserGained { username, client });
        }
        if let Some(allocation) = self.allocations.get_mut(client) {
            let timer = Timer::Allocation(client);
            self.timers.disarm(timer, allocation.expires_at);
            allocation.expires_at = now + lifetime;
            self.timers.arm(timer, allocation.expires_at);
            tracing::info!(port = %allocation.port, ?lifetime, "Allocation refreshed");
        }
        Success::Refresh {
            lifetime: Some(seconds(lifetime)),
        }
    }
}
