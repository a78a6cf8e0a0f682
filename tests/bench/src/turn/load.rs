//! One load: datagrams through the server at a rate, and what arrived.
//!
//! One thread sends and receives in turn without ever sleeping: it is meant to have a CPU of its own, where waiting by
//! looking at the clock gives the evenest pace.

use std::{
    io,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use connlib_stun::{
    ChannelRange, PacketKind,
    channel::{HEADER_LEN, encode_header},
    classify,
};
use demo::interrupt;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use serde::Serialize;

use crate::{
    datagrams::{Inbox, MAX_DATAGRAMS, Outbox},
    turn::{
        flows::Flows,
        refresher::{Refresher, Refreshes},
        stamp::Stamp,
        tally::{Framing, Tally, Totals},
    },
};

/// How much of a pace may be made up for later. A sender that is further behind is too slow for it.
const MAX_BACKLOG: Duration = Duration::from_millis(20);
/// What is on its way when sending ends has this long to arrive after the last arrival …
const SILENCE: Duration = Duration::from_millis(30);
/// … and this long in all.
const MAX_DRAIN: Duration = Duration::from_secs(1);
/// Datagrams per call when a single lane is filled without trains and without a pace.
const FLOOD_BATCH: usize = 32;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// Bytes of each datagram, without the channel header.
    pub(crate) payload_bytes: usize,
    /// How long.
    pub(crate) time: Duration,
    /// How many.
    pub(crate) pace: Pace,
    /// How they leave the sender.
    pub(crate) sending: Sending,
    /// Datagrams leave in bursts this far apart.
    pub(crate) tick: Duration,
    /// How often each allocation is refreshed meanwhile.
    pub(crate) refresh: Option<Duration>,
    /// The last allocation takes no part in this and sends one datagram this often instead.
    pub(crate) quiet: Option<Duration>,
}

/// How many datagrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Per second, over all lanes.
    Rate(f64),
    /// As many as the sender can.
    Flood,
}

/// How datagrams leave the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sending {
    /// Each as a packet of its own, as from many small senders.
    Separately,
    /// As trains by UDP segmentation offload, as from a bulk sender.
    Trains,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Outcome {
    /// Length of the time in which datagrams were sent.
    pub(crate) seconds: f64,
    /// Sums over all lanes but the quiet ones.
    #[serde(flatten)]
    pub(crate) totals: Totals,
    /// Of the quiet ones.
    pub(crate) quiet: Option<Totals>,
    /// Datagrams that the pace asked for and the generator was too slow for.
    pub(crate) skipped: u64,
    /// Of the control traffic beside it.
    pub(crate) refreshes: Option<Refreshes>,
}

impl Outcome {
    /// Datagrams per second that arrived.
    pub(crate) fn delivered_pps(&self) -> f64 {
        self.totals.received as f64 / self.seconds
    }

    /// Datagrams per second that were sent.
    pub(crate) fn offered_pps(&self) -> f64 {
        self.totals.sent as f64 / self.seconds
    }

    /// Whether the generator kept its pace.
    pub(crate) fn is_on_pace(&self) -> bool {
        self.skipped as f64 <= self.totals.sent as f64 * 0.01
    }
}

/// Puts the load on the server. `run` tells it apart from other loads on the same flows; `progress` is called at most
/// once per second.
///
/// # Errors
///
/// If the system refuses something, or somebody asked to stop.
pub(crate) fn run(
    flows: &mut Flows,
    load: Load,
    run: u32,
    progress: impl FnMut(Duration),
) -> Result<Outcome> {
    Generator::new(flows, load, run)?.run(progress)
}

struct Generator<'a> {
    flows: &'a mut Flows,
    load: Load,
    run: u32,
    started: Instant,
    to_server: Outbox,
    to_relayed: Outbox,
    inbox: Inbox,
    poll: Poll,
    events: Events,
    tally: Tally,
    refresher: Option<Refresher>,
    /// Lanes that share the load; those behind them are quiet.
    busy_lanes: usize,
    next_lane: usize,
    /// Datagrams that the pace has asked for so far, sent or skipped.
    asked: u64,
    skipped: u64,
}

impl<'a> Generator<'a> {
    fn new(flows: &'a mut Flows, load: Load, run: u32) -> Result<Self> {
        let poll = Poll::new()?;
        for index in 0..flows.sockets() {
            let fd = flows.socket(index).as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), Token(index), Interest::READABLE)?;
        }
        let started = Instant::now();
        let quiet_lanes = match load.quiet {
            Some(_) => flows.lanes_per_client(),
            None => 0,
        };
        let busy_lanes = flows.lanes.len() - quiet_lanes;
        Ok(Self {
            to_server: Outbox::new(HEADER_LEN + load.payload_bytes),
            to_relayed: Outbox::new(load.payload_bytes),
            inbox: Inbox::new(),
            poll,
            events: Events::with_capacity(flows.sockets().max(1)),
            tally: Tally::new(run, busy_lanes, quiet_lanes, load.payload_bytes),
            refresher: load
                .refresh
                .map(|period| Refresher::new(period, flows.clients(), started)),
            flows,
            load,
            run,
            started,
            busy_lanes,
            next_lane: 0,
            asked: 0,
            skipped: 0,
        })
    }

    fn run(mut self, mut progress: impl FnMut(Duration)) -> Result<Outcome> {
        self.started = Instant::now();
        let end = self.started + self.load.time;
        let mut next_tick = self.started;
        let mut next_report = self.started;
        let mut next_quiet = self.started;
        let ended = loop {
            let now = Instant::now();
            if now >= end {
                break now;
            }
            interrupt::check()?;
            match self.load.pace {
                Pace::Flood => self.flood()?,
                Pace::Rate(rate) if now >= next_tick => {
                    self.keep_pace(rate, now)?;
                    next_tick = (next_tick + self.load.tick).max(now);
                }
                Pace::Rate(_) => {}
            }
            if let Some(period) = self.load.quiet
                && now >= next_quiet
            {
                self.send_quietly()?;
                next_quiet = (next_quiet + period).max(now);
            }
            // Sending on thousands of lanes takes its time.
            self.receive(Instant::now())?;
            if let Some(refresher) = &mut self.refresher {
                refresher.tick(self.flows, now)?;
            }
            if now >= next_report {
                progress(now - self.started);
                next_report += Duration::from_secs(1);
            }
        };
        self.drain()?;
        Ok(Outcome {
            seconds: (ended - self.started).as_secs_f64(),
            totals: self.tally.totals(),
            quiet: self.tally.quiet_totals(),
            skipped: self.skipped,
            refreshes: self.refresher.as_ref().map(Refresher::finish),
        })
    }

    fn flood(&mut self) -> Result<()> {
        let count = match self.load.sending {
            Sending::Trains => MAX_DATAGRAMS,
            Sending::Separately => (FLOOD_BATCH / self.busy_lanes).max(1),
        };
        self.send(count).map(drop)
    }

    /// Sends what the rate asks for until now.
    fn keep_pace(&mut self, rate: f64, now: Instant) -> Result<()> {
        let asked = ((now - self.started).as_secs_f64() * rate) as u64;
        let backlog = (rate * MAX_BACKLOG.as_secs_f64()).max(MAX_DATAGRAMS as f64) as u64;
        let mut due = asked.saturating_sub(self.asked);
        if due > backlog {
            self.skipped += due - backlog;
            self.asked += due - backlog;
            due = backlog;
        }
        while due > 0 {
            let count = match self.load.sending {
                // A train leaves when it is full.
                Sending::Trains if due < self.train_len() as u64 => break,
                Sending::Trains => self.train_len(),
                Sending::Separately => (due as usize).div_ceil(self.busy_lanes).min(MAX_DATAGRAMS),
            };
            let sent = self.send(count)?;
            self.skipped += (count - sent) as u64;
            self.asked += count as u64;
            due = due.saturating_sub(count as u64);
        }
        Ok(())
    }

    /// The shorter one of both directions, so that no lane gets more than its share.
    fn train_len(&self) -> usize {
        self.to_server.train_len()
    }

    /// Sends up to this many datagrams on the next lane; returns how many the kernel took.
    fn send(&mut self, count: usize) -> Result<usize> {
        let index = self.next_lane;
        self.next_lane = (index + 1) % self.busy_lanes;
        self.send_on(index, count, self.load.sending)
    }

    /// One datagram on each quiet lane.
    fn send_quietly(&mut self) -> Result<()> {
        for index in self.busy_lanes..self.flows.lanes.len() {
            self.send_on(index, 1, Sending::Separately)?;
        }
        Ok(())
    }

    fn send_on(&mut self, index: usize, count: usize, sending: Sending) -> Result<usize> {
        let lane = &self.flows.lanes[index];
        let outbox = match lane.header {
            Some(_) => &mut self.to_server,
            None => &mut self.to_relayed,
        };
        let count = match sending {
            Sending::Trains => count.min(outbox.train_len()),
            Sending::Separately => count,
        };
        let header = lane
            .header
            .map(|number| encode_header(number, self.load.payload_bytes as u16));
        let mut stamp = Stamp {
            run: self.run,
            lane: index as u32,
            sequence: self.tally.next_sequence(index),
            sent_at: nanoseconds(self.started.elapsed()),
        };
        for datagram in outbox.datagrams().take(count) {
            let payload = match header {
                Some(header) => {
                    datagram[..HEADER_LEN].copy_from_slice(&header);
                    &mut datagram[HEADER_LEN..]
                }
                None => datagram,
            };
            stamp.write(payload);
            stamp.sequence += 1;
        }
        let (socket, to) = (self.flows.socket(lane.socket), lane.to.as_ref());
        let sent = match sending {
            Sending::Trains => outbox.send_as_train(socket, to, count),
            Sending::Separately => outbox.send_separately(socket, to, count),
        }?;
        self.tally.sent(index, sent);
        Ok(sent)
    }

    /// Takes everything that waits.
    fn receive(&mut self, now: Instant) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let at = nanoseconds(now - self.started);
        for event in &self.events {
            let Token(index) = event.token();
            let framing = match index < self.flows.clients() {
                true => Framing::Channel,
                false => Framing::Plain,
            };
            let mut control = Vec::new();
            let tally = &mut self.tally;
            let mut take = |datagram: &[u8]| match (framing, classify(datagram, ChannelRange::Wide))
            {
                (Framing::Channel, PacketKind::Stun) => control.push(datagram.to_vec()),
                _ => tally.received(framing, datagram, at),
            };
            // Edge-triggered: until there is nothing left.
            while self.inbox.receive(self.flows.socket(index), &mut take)? {}
            if let Some(refresher) = &mut self.refresher {
                for datagram in control {
                    refresher.handle(self.flows, index, &datagram, Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Receives what is on its way.
    fn drain(&mut self) -> Result<()> {
        let began = Instant::now();
        let (mut last, mut arrived) = (began, self.tally.arrived());
        loop {
            let now = Instant::now();
            self.receive(now)?;
            if self.tally.arrived() != arrived {
                (last, arrived) = (now, self.tally.arrived());
            }
            let is_waiting = self.refresher.as_ref().is_some_and(Refresher::is_waiting);
            if (now - last > SILENCE && !is_waiting) || now - began > MAX_DRAIN {
                return Ok(());
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
