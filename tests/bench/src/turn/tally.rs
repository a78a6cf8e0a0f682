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
    /// The lanes from here on are quiet ones, whose latency counts by itself.
    first_quiet: usize,
    strange: u64,
    latency: Histogram,
    quiet_latency: Histogram,
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
    /// For a measurement with this many busy lanes, and quiet ones behind them.
    pub(crate) fn new(run: u32, busy: usize, quiet: usize, payload_bytes: usize) -> Self {
        Self {
            run,
            payload_bytes,
            lanes: vec![Lane::default(); busy + quiet],
            first_quiet: busy,
            strange: 0,
            latency: Histogram::new(),
            quiet_latency: Histogram::new(),
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
        let latency = match (stamp.lane as usize) < self.first_quiet {
            true => &mut self.latency,
            false => &mut self.quiet_latency,
        };
        latency.record(now.saturating_sub(stamp.sent_at));
    }

    /// Datagrams that arrived so far.
    pub(crate) fn arrived(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.received).sum()
    }

    /// Of the busy lanes.
    pub(crate) fn totals(&self) -> Totals {
        totals(&self.lanes[..self.first_quiet], self.strange, &self.latency)
    }

    /// Of the quiet lanes, if there are any.
    pub(crate) fn quiet_totals(&self) -> Option<Totals> {
        let lanes = &self.lanes[self.first_quiet..];
        (!lanes.is_empty()).then(|| totals(lanes, 0, &self.quiet_latency))
    }
}

fn totals(lanes: &[Lane], strange: u64, latency: &Histogram) -> Totals {
    let sum = |pick: fn(&Lane) -> u64| lanes.iter().map(pick).sum();
    Totals {
        sent: sum(|lane| lane.sent),
        received: sum(|lane| lane.received),
        late: sum(|lane| lane.late),
        strange,
        worst_loss_percent: lanes.iter().map(Lane::loss_percent).fold(0.0, f64::max),
        latency: latency.quantiles(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::stamp::STAMP_BYTES;

    const RUN: u32 = 3;

    fn datagram(run: u32, lane: u32, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![0; STAMP_BYTES];
        let stamp = Stamp {
            run,
            lane,
            sequence,
            sent_at: 1_000,
        };
        stamp.write(&mut bytes);
        bytes
    }

    fn tally(arrivals: &[Vec<u8>]) -> Totals {
        let mut tally = Tally::new(RUN, 2, 0, STAMP_BYTES);
        tally.sent(0, 4);
        tally.sent(1, 4);
        for arrival in arrivals {
            tally.received(Framing::Plain, arrival, 3_000);
        }
        tally.totals()
    }

    #[test]
    fn loss_is_counted_per_lane() {
        let arrivals = [1, 2, 3, 4].map(|sequence| datagram(RUN, 0, sequence));
        let totals = tally(&arrivals);
        assert_eq!((totals.sent, totals.received), (8, 4));
        assert_eq!(
            (totals.loss_percent(), totals.worst_loss_percent),
            (50.0, 100.0)
        );
        assert_eq!(totals.latency.unwrap().max_us, 2.0);
    }

    #[test]
    fn what_is_overtaken_or_doubled_is_late() {
        let arrivals = [1, 3, 2, 3].map(|sequence| datagram(RUN, 0, sequence));
        assert_eq!(tally(&arrivals).late, 2);
    }

    #[test]
    fn other_peoples_datagrams_are_strange_and_old_ones_are_nothing() {
        let old = datagram(RUN - 1, 0, 1);
        let no_such_lane = datagram(RUN, 2, 1);
        let longer = [datagram(RUN, 0, 1), vec![0]].concat();
        let totals = tally(&[old, no_such_lane, longer, vec![1, 2, 3], Vec::new()]);
        assert_eq!((totals.received, totals.strange), (0, 4));
    }

    #[test]
    fn channel_data_counts_only_with_its_header() {
        let mut tally = Tally::new(RUN, 1, 0, STAMP_BYTES);
        let plain = datagram(RUN, 0, 1);
        let framed = [&[0x40, 0, 0, STAMP_BYTES as u8], &plain[..]].concat();
        tally.received(Framing::Channel, &framed, 0);
        tally.received(Framing::Channel, &plain, 0);
        assert_eq!((tally.totals().received, tally.totals().strange), (1, 1));
    }

    #[test]
    fn quiet_lanes_count_by_themselves() {
        let mut tally = Tally::new(RUN, 1, 1, STAMP_BYTES);
        tally.sent(0, 1);
        tally.sent(1, 2);
        tally.received(Framing::Plain, &datagram(RUN, 0, 1), 9_000);
        tally.received(Framing::Plain, &datagram(RUN, 1, 1), 3_000);
        let (busy, quiet) = (tally.totals(), tally.quiet_totals().unwrap());
        assert_eq!((busy.sent, quiet.sent), (1, 2));
        assert_eq!(busy.latency.unwrap().max_us, 8.0);
        assert_eq!(quiet.latency.unwrap().max_us, 2.0);
        assert_eq!(Tally::new(RUN, 1, 0, STAMP_BYTES).quiet_totals(), None);
    }
}
