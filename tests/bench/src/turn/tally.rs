//! Counts what arrives, lane by lane.

use connlib_stun::channel::{ChannelData, ChannelRange};
use serde::Serialize;

use crate::turn::{
    histogram::{Histogram, Quantiles},
    stamp::Stamp,
};

/// How datagrams look at a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As channel data, at a client.
    Channel,
    /// As they are, at a peer.
    Plain,
}

/// Arrivals of one measurement.
pub(crate) struct Tally {
    run: u32,
    payload_bytes: usize,
    lanes: Vec<Lane>,
    strange: u64,
    latency: Histogram,
}

/// Of one lane.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    sent: u64,
    received: u64,
    highest: u64,
    late: u64,
}

/// The sums.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Totals {
    /// Datagrams that the kernel took.
    pub(crate) sent: u64,
    /// Datagrams that arrived where they should.
    pub(crate) received: u64,
    /// Of these, behind a later one of their lane, or twice.
    pub(crate) late: u64,
    /// Datagrams that were not the load's, or came damaged.
    pub(crate) strange: u64,
    /// Share of the worst lane that did not arrive, in per cent.
    pub(crate) worst_loss_percent: f64,
    /// From the call that sent it to the call that received it.
    pub(crate) latency: Option<Quantiles>,
}

impl Tally {
    /// For a measurement with this many lanes.
    pub(crate) fn new(run: u32, lanes: usize, payload_bytes: usize) -> Self {
        Self {
            run,
            payload_bytes,
            lanes: vec![Lane::default(); lanes],
            strange: 0,
            latency: Histogram::new(),
        }
    }

    /// The sequence number of the next datagram of a lane.
    pub(crate) fn next_sequence(&self, lane: usize) -> u64 {
        self.lanes[lane].sent + 1
    }

    /// Counts datagrams that left.
    pub(crate) fn sent(&mut self, lane: usize, count: usize) {
        self.lanes[lane].sent += count as u64;
    }

    /// Counts a datagram that arrived, `now` nanoseconds after the run began.
    pub(crate) fn received(&mut self, framing: Framing, datagram: &[u8], now: u64) {
        let stamp = payload(framing, datagram)
            .filter(|payload| payload.len() == self.payload_bytes)
            .and_then(Stamp::read);
        let Some(stamp) = stamp else {
            self.strange += 1;
            return;
        };
        if stamp.run != self.run {
            // Left over from the measurement before, where it counts as lost.
            return;
        }
        let Some(lane) = self.lanes.get_mut(stamp.lane as usize) else {
            self.strange += 1;
            return;
        };
        lane.received += 1;
        if stamp.sequence > lane.highest {
            lane.highest = stamp.sequence;
        } else {
            lane.late += 1;
        }
        self.latency.record(now.saturating_sub(stamp.sent_at));
    }

    /// Datagrams that arrived so far.
    pub(crate) fn arrived(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.received).sum()
    }

    /// The result.
    pub(crate) fn totals(&self) -> Totals {
        let sum = |pick: fn(&Lane) -> u64| self.lanes.iter().map(pick).sum();
        Totals {
            sent: sum(|lane| lane.sent),
            received: sum(|lane| lane.received),
            late: sum(|lane| lane.late),
            strange: self.strange,
            worst_loss_percent: self
                .lanes
                .iter()
                .map(Lane::loss_percent)
                .fold(0.0, f64::max),
            latency: self.latency.quantiles(),
        }
    }
}

impl Lane {
    fn loss_percent(&self) -> f64 {
        loss_percent(self.sent, self.received)
    }
}

impl Totals {
    /// Share that did not arrive.
    pub(crate) fn loss_percent(&self) -> f64 {
        loss_percent(self.sent, self.received)
    }
}

fn loss_percent(sent: u64, received: u64) -> f64 {
    match sent {
        0 => 0.0,
        _ => sent.saturating_sub(received) as f64 * 100.0 / sent as f64,
    }
}

fn payload(framing: Framing, datagram: &[u8]) -> Option<&[u8]> {
    match framing {
        Framing::Plain => Some(datagram),
        Framing::Channel => ChannelData::parse(datagram, ChannelRange::Wide)
            .ok()
            .map(|data| data.payload),
    }
}
