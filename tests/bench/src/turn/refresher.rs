//! Refreshes of the allocations beside the load: whether control traffic is served on time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use crate::turn::{
    client::Pending,
    flows::Flows,
    histogram::{Histogram, Quantiles},
};

/// What came of the refreshes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Refreshes {
    /// Requests.
    pub(crate) sent: u64,
    /// Success responses.
    pub(crate) granted: u64,
    /// Refusals; of these, those that ask for a newer nonce are in order.
    pub(crate) refused: u64,
    /// From request to response.
    pub(crate) latency: Option<Quantiles>,
}

/// Sends a Refresh for one client after the other, evenly spread over the period.
pub(crate) struct Refresher {
    step: Duration,
    next: Instant,
    next_client: usize,
    pending: BTreeMap<usize, Pending>,
    sent: u64,
    granted: u64,
    refused: u64,
    latency: Histogram,
}

impl Refresher {
    /// Every client is refreshed once per period.
    pub(crate) fn new(period: Duration, clients: usize, now: Instant) -> Self {
        Self {
            step: period / u32::try_from(clients).unwrap_or(u32::MAX),
            next: now,
            next_client: 0,
            pending: BTreeMap::new(),
            sent: 0,
            granted: 0,
            refused: 0,
            latency: Histogram::new(),
        }
    }

    /// Sends what is due.
    pub(crate) fn tick(&mut self, flows: &mut Flows, now: Instant) -> Result<()> {
        while self.next <= now {
            let index = self.next_client;
            if let Some(client) = flows.client(index) {
                self.pending.insert(index, client.send_refresh(now)?);
                self.sent += 1;
            }
            self.next_client = (index + 1) % flows.clients();
            self.next += self.step;
        }
        Ok(())
    }

    /// Takes a STUN message that came to a client.
    pub(crate) fn handle(
        &mut self,
        flows: &mut Flows,
        index: usize,
        datagram: &[u8],
        now: Instant,
    ) {
        let (Some(client), Some(pending)) = (flows.client(index), self.pending.get(&index)) else {
            return;
        };
        let Some(is_granted) = client.handle(datagram, *pending) else {
            return;
        };
        let took = now.saturating_duration_since(pending.sent_at);
        self.latency
            .record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.pending.remove(&index);
        match is_granted {
            true => self.granted += 1,
            false => self.refused += 1,
        }
    }

    /// Whether responses are missing.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The result.
    pub(crate) fn finish(&self) -> Refreshes {
        Refreshes {
            sent: self.sent,
            granted: self.granted,
            refused: self.refused,
            latency: self.latency.quantiles(),
        }
    }
}
