//! Allocate (relay spec §2.6), and the time between the choice of a port and its bound sockets.
//!
//! The client is told of its allocation when every socket is bound. A port that somebody else holds is not fatal:
//! another one is tried, and after [`MAX_ATTEMPTS`] the request is refused.

use std::time::{Duration, Instant};

use connlib_stun::{
    AddressError, Allocate, Class, ErrorCode, ErrorResponse, Family, Header, Key, Method, Success,
    TransactionId,
};

use crate::{
    address::{AllocationPort, ClientSocket},
    allocations::{Allocation, Families},
    config::Quota,
    limit::Budget,
    ports::Parity,
    server::{
        Admission, Command, Server,
        auth::User,
        request::{Answer, Progress, unknown_attributes},
    },
    timers::Timer,
};

/// Lifetime of an allocation whose client names none.
pub(super) const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
/// Longest lifetime that is granted.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// Ports that are tried for one request.
const MAX_ATTEMPTS: usize = 8;
/// Allocations whose sockets are being bound. A driver binds at once, so one is the rule.
const MAX_PENDING: usize = 64;

/// An authenticated Allocate.
pub(super) struct Wish {
    pub(super) client: ClientSocket,
    pub(super) transaction_id: TransactionId,
    pub(super) allocate: Allocate,
    pub(super) unknown: Vec<u16>,
    pub(super) software: Option<String>,
}

/// An allocation whose sockets are being bound.
#[derive(Debug)]
pub(super) struct Pending {
    port: AllocationPort,
    families: Families,
    missing: Option<Family>,
    parity: Parity,
    lifetime: Duration,
    transaction_id: TransactionId,
    username: String,
    key: Key,
    software: Option<String>,
    /// Sockets that the driver did not report yet.
    awaited: Vec<Family>,
    /// Sockets that the driver could bind.
    bound: Vec<Family>,
    /// Ports that turned out to be taken; kept aside until the request is answered.
    refused_ports: Vec<AllocationPort>,
}

impl Server {
    pub(super) fn handle_allocate(&mut self, wish: Wish, user: User, now: Instant) -> Progress {
        match self.plan(wish, user, now) {
            Ok(Plan::Bind(pending)) => {
                self.make_room(&pending.1.username);
                let (client, pending) = *pending;
                self.start_binding(client, pending);
                Progress::Waits
            }
            Ok(Plan::Repeat(success)) => Progress::Answered(Ok(success)),
            Ok(Plan::Wait) => Progress::Waits,
            Err(error) => Progress::Answered(Err(error)),
        }
    }

    /// The driver has bound a socket that [`Command::CreateAllocation`] asked for.
    pub fn handle_port_bound(&mut self, port: AllocationPort, family: Family, now: Instant) {
        self.settle(port, family, true, now);
    }

    /// The driver could not bind a socket, or it failed later.
    pub fn handle_port_failed(&mut self, port: AllocationPort, family: Family, now: Instant) {
        if let Some(client) = self.allocations.client_of(port) {
            self.delete_allocation(client, "socket failed");
            return;
        }
        self.counters.bind_failures += 1;
        self.settle(port, family, false, now);
    }

    /// Everything that can be refused, in the order of relay spec §2.6.
    fn plan(&mut self, wish: Wish, user: User, now: Instant) -> Result<Plan, ErrorResponse> {
        let Wish {
            client,
            transaction_id,
            allocate,
            unknown,
            software,
        } = wish;
        if self.pending.contains_key(&client) {
            return Ok(Plan::Wait);
        }
        if let Some(allocation) = self.allocations.get(client) {
            if allocation.created_by != transaction_id {
                return Err(ErrorResponse::new(ErrorCode::ALLOCATION_MISMATCH));
            }
            let lifetime = allocation.expires_at.saturating_duration_since(now);
            return Ok(Plan::Repeat(self.success(client, allocation, lifetime)));
        }
        if !unknown.is_empty() {
            return Err(unknown_attributes(unknown));
        }
        if self.ports.is_empty() {
            return Err(ErrorResponse::new(ErrorCode::INSUFFICIENT_CAPACITY));
        }
        check_transport(&allocate)?;
        let parity = parity(&allocate)?;
        let (families, missing) = self.choose_families(&allocate)?;
        self.check_quota(&user)?;
        self.check_capacity()?;
        let lifetime = match allocate.lifetime {
            None | Some(0) => DEFAULT_LIFETIME,
            Some(seconds) => Duration::from_secs(seconds.into()),
        };
        let port = self
            .ports
            .take(parity, &mut self.rng)
            .ok_or(ErrorResponse::new(ErrorCode::INSUFFICIENT_CAPACITY))?;
        let pending = Pending {
            port,
            families,
            missing,
            parity,
            lifetime: grant(lifetime, &user),
            transaction_id,
            username: user.name,
            key: user.key,
            software,
            awaited: Vec::new(),
            bound: Vec::new(),
            refused_ports: Vec::new(),
        };
        Ok(Plan::Bind(Box::new((client, pending))))
    }

    fn check_quota(&self, user: &User) -> Result<(), ErrorResponse> {
        let limit = self.config.allocations_per_username;
        let is_full = self.config.quota == Quota::Refuse
            && self.allocations.oldest_beyond(&user.name, limit).is_some();
        match is_full {
            true => Err(ErrorResponse::new(ErrorCode::QUOTA_REACHED)),
            false => Ok(()),
        }
    }

    fn check_capacity(&self) -> Result<(), ErrorResponse> {
        let is_full = self.allocation_count() >= self.config.max_allocations
            || self.pending.len() >= MAX_PENDING
            || self.admission == Admission::Draining;
        match is_full {
            true => Err(ErrorResponse::new(ErrorCode::INSUFFICIENT_CAPACITY)),
            false => Ok(()),
        }
    }

    /// The table of relay spec §2.6: which families are granted, and which one is missing from the wish.
    fn choose_families(
        &self,
        allocate: &Allocate,
    ) -> Result<(Families, Option<Family>), ErrorResponse> {
        let offered = |family| self.config.public.get(family).is_some();
        let only = |family| match (offered(family), family) {
            (true, Family::V4) => Ok((Families::V4, None)),
            (true, Family::V6) => Ok((Families::V6, None)),
            (false, _) => Err(ErrorResponse::new(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)),
        };
        match (allocate.requested_family, allocate.additional_family) {
            (Some(_), Some(_)) | (None, Some(Family::V4)) => {
                Err(ErrorResponse::new(ErrorCode::BAD_REQUEST))
            }
            (Some(family), None) => only(family),
            (None, None) => only(Family::V4),
            (None, Some(Family::V6)) => Ok(match (offered(Family::V4), offered(Family::V6)) {
                (true, true) => (Families::Dual, None),
                (true, false) => (Families::V4, Some(Family::V6)),
                (false, _) => (Families::V6, Some(Family::V4)),
            }),
        }
    }

    /// One allocation per user: the oldest one goes before the new one comes (relay spec §2.8).
    fn make_room(&mut self, username: &str) {
        let limit = self.config.allocations_per_username;
        while let Some(client) = self.allocations.oldest_beyond(username, limit) {
            self.delete_allocation(client, "replaced");
        }
    }

    fn start_binding(&mut self, client: ClientSocket, mut pending: Pending) {
        let (port, families) = (pending.port, pending.families);
        pending.awaited = families.iter().collect();
        for family in families.iter() {
            self.commands
                .push_back(Command::CreateAllocation { port, family });
        }
        self.pending.insert(client, pending);
    }

    /// One socket is settled. When all are, the client is answered or another port is tried.
    fn settle(&mut self, port: AllocationPort, family: Family, is_bound: bool, now: Instant) {
        let Some((&client, pending)) = self.pending.iter_mut().find(|(_, p)| p.port == port) else {
            return;
        };
        let Some(index) = pending.awaited.iter().position(|other| *other == family) else {
            return;
        };
        pending.awaited.remove(index);
        if is_bound {
            pending.bound.push(family);
        }
        if !pending.awaited.is_empty() {
            return;
        }
        let Some(pending) = self.pending.remove(&client) else {
            return;
        };
        if pending.bound.len() == pending.families.iter().count() {
            self.establish(client, pending, now);
        } else {
            self.try_another_port(client, pending);
        }
    }

    fn try_another_port(&mut self, client: ClientSocket, mut pending: Pending) {
        let port = pending.port;
        for family in std::mem::take(&mut pending.bound) {
            self.commands
                .push_back(Command::FreeAllocation { port, family });
        }
        pending.refused_ports.push(port);
        let next = match pending.refused_ports.len() {
            ..MAX_ATTEMPTS => self.ports.take(pending.parity, &mut self.rng),
            _ => None,
        };
        if let Some(next) = next {
            pending.port = next;
            self.start_binding(client, pending);
            return;
        }
        tracing::warn!(
            attempts = pending.refused_ports.len(),
            "No port can be bound for an allocation"
        );
        self.give_back(&pending);
        let error = ErrorResponse::new(ErrorCode::INSUFFICIENT_CAPACITY);
        self.answer_allocate(client, pending.transaction_id, Err(error), &pending.key);
    }

    fn establish(&mut self, client: ClientSocket, pending: Pending, now: Instant) {
        self.give_back(&pending);
        let Pending {
            port,
            families,
            missing,
            lifetime,
            transaction_id,
            username,
            key,
            software,
            ..
        } = pending;
        let expires_at = now + lifetime;
        let allocation = Allocation {
            port,
            families,
            missing,
            username,
            created_by: transaction_id,
            expires_at,
            channels: Default::default(),
            permissions: Default::default(),
            budget: Budget::new(now),
        };
        tracing::info!(%port, ?families, ?lifetime, "Allocation created");
        tracing::debug!(%client, %port, software, "Allocation created for client");
        let success = self.success(client, &allocation, lifetime);
        let username = allocation.username.clone();
        self.announce(Command::UserGained { username, client });
        self.allocations.insert(client, allocation);
        self.timers.arm(Timer::Allocation(client), expires_at);
        self.answer_allocate(client, transaction_id, Ok(success), &key);
    }

    fn give_back(&mut self, pending: &Pending) {
        for port in &pending.refused_ports {
            self.ports.put_back(*port);
        }
    }

    fn answer_allocate(
        &mut self,
        client: ClientSocket,
        transaction_id: TransactionId,
        answer: Answer,
        key: &Key,
    ) {
        let header = Header {
            class: Class::Request,
            method: Method::Allocate,
            transaction_id,
        };
        self.answer(client, header, answer, Some(key));
    }

    fn success(&self, client: ClientSocket, allocation: &Allocation, left: Duration) -> Success {
        let own = self.policy.own();
        let port = allocation.port.get();
        Success::Allocate {
            relayed: allocation
                .families
                .iter()
                .filter_map(|family| own.relayed(family, port))
                .collect(),
            mapped: Some(client.address()),
            lifetime: Some(seconds(left)),
            address_error: allocation.missing.map(|family| AddressError {
                family,
                code: ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
            }),
        }
    }
}

/// What comes of an Allocate that is not refused.
enum Plan {
    /// Sockets are to be bound.
    Bind(Box<(ClientSocket, Pending)>),
    /// A retransmission of the request that made the allocation.
    Repeat(Success),
    /// Sockets are being bound already.
    Wait,
}

/// The lifetime granted: at most an hour, and at most what the credential has left, but never nothing.
pub(super) fn grant(wish: Duration, user: &User) -> Duration {
    let longest = user.remaining.unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME);
    wish.min(longest.max(Duration::from_secs(1)))
}

/// LIFETIME of a duration that is at most [`MAX_LIFETIME`].
pub(super) fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}

fn check_transport(allocate: &Allocate) -> Result<(), ErrorResponse> {
    match allocate.requested_transport {
        Some(Allocate::UDP) => Ok(()),
        Some(_) => Err(ErrorResponse::new(ErrorCode::UNSUPPORTED_TRANSPORT)),
        None => Err(ErrorResponse::new(ErrorCode::BAD_REQUEST)),
    }
}

/// Reserving a second port, or using a reservation, is not possible here.
fn parity(allocate: &Allocate) -> Result<Parity, ErrorResponse> {
    match (allocate.reservation_token, allocate.even_port) {
        (Some(_), _) | (None, Some(true)) => {
            Err(ErrorResponse::new(ErrorCode::INSUFFICIENT_CAPACITY))
        }
        (None, Some(false)) => Ok(Parity::Even),
        (None, None) => Ok(Parity::Any),
    }
}
