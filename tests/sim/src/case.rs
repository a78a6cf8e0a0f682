//! One case: model and system side by side, judged after every transition.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    assertions::{self, Evidence, Failure, Memory, paths},
    dns::message::Message,
    logs,
    model::{Expectations, ExpectedQuery, Model, Reply},
    sut::World,
    topology::Topology,
    trace::{Entry, TcpEvent},
    transition::{Probe, Side, Transition, Transport},
};

/// Longest wait for what a transition must lead to: a connection that is found dead (20 s) and made anew.
const CUT_OFF: Duration = Duration::from_secs(40);
/// Where packets or answers may be lost, applications try again every second, and must have got through in this many.
const ATTEMPTS: usize = 300;
/// Resolvers of applications are more patient: they ask again after so many seconds, over TCP when it has given up.
const ASK_AGAIN: usize = 5;
const ASK_AGAIN_TCP: usize = 35;
/// They give up connecting after so many seconds and connect anew: the system's own attempts are soon a minute apart, so that
/// [`ATTEMPTS`] would hold no more than six of them. Each may need a name set up first, over two relays, where a third of all
/// packets is lost each way.
const CONNECT_AGAIN: usize = 30;
/// On a connection that is silent both ends speak again after so many seconds: a server cannot while it waits for the end of the
/// handshake, and the system's own repetitions are soon a minute apart here, too.
const SPEAK_AGAIN: usize = 3;
/// With loss, the replacement of a path may itself need several attempts.
const LOSSY_RECOVERY: u64 = 3;
/// For what ended to have come to everybody's notice.
const GRACE: Duration = Duration::from_secs(2);
/// How long ICE takes to notice that an idle peer is gone.
const SILENT_RECOVERY: Duration = Duration::from_secs(150);
/// What one transition may take: access that ends by itself during that time ends before it instead, so that it is known
/// what the transition leads to.
const AHEAD: Duration = Duration::from_secs(360);
/// Failures that are kept; the rest would say the same.
const MAX_FAILURES: usize = 50;

/// A case.
pub struct Case {
    /// What should be.
    pub model: Model,
    /// What is.
    pub world: World,
    /// What does not hold, so far, with the number of the transition.
    pub failures: Vec<(usize, Failure)>,
    /// Names of the transitions so far.
    pub done: Vec<&'static str>,
    /// What the last step was judged by.
    pub last: Last,
    memory: Memory,
}

/// What the last step was judged by, for those who want to know more than the model says.
#[derive(Debug, Clone, Default)]
pub struct Last {
    /// When it began, since the start of the case.
    pub start: Duration,
    /// What it had to lead to.
    pub expected: Expectations,
    /// What was seen.
    pub entries: Vec<(Duration, Entry)>,
}

impl Case {
    /// Starts everything.
    pub fn new(topology: &Topology) -> Self {
        let mut case = Self {
            model: Model::new(topology),
            world: World::new(topology),
            failures: Vec::new(),
            done: Vec::new(),
            last: Last::default(),
            memory: Memory::default(),
        };
        case.judge(&Expectations::default());
        case
    }

    /// Applies a transition to both sides and compares; where a path was cut, applications go on until they get through.
    /// Illegal ones are skipped.
    pub fn step(&mut self, transition: &Transition) {
        if !self.model.is_legal(transition) {
            return;
        }
        self.step_only(std::slice::from_ref(transition));
        if let Some(limit) = self.last.expected.recovery_s {
            self.recover(limit);
        }
    }

    /// Applies transitions to both sides, one right after the other, and compares. Illegal ones are skipped.
    pub fn step_only(&mut self, transitions: &[Transition]) {
        for transition in transitions {
            self.let_access_end(transition);
        }
        let start = self.world.elapsed();
        let mut expected = Expectations::default();
        for transition in transitions {
            self.model.now = self.world.elapsed();
            if self.model.is_legal(transition) {
                logs::note(|| format!("=== {transition:?}"));
                self.done.push(transition.name());
                expected.merge(self.model.apply(transition));
                self.world.apply(transition);
            }
        }
        self.settle(&expected);
        self.judge(&expected);
        self.last.start = start;
        self.last.expected = expected;
    }

    /// Access that would end by itself during this transition ends now.
    fn let_access_end(&mut self, transition: &Transition) {
        let ahead = match transition {
            Transition::Idle { seconds } | Transition::Stall { seconds, .. } => {
                AHEAD + Duration::from_secs(*seconds)
            }
            _ => AHEAD,
        };
        while let Some(end) = self.model.next_end()
            && end <= self.world.elapsed() + ahead
        {
            let end = self.model.last_end_from(end, GRACE);
            let pause = (end + GRACE).saturating_sub(self.world.elapsed());
            self.world.run_for(pause);
            self.model.end_access(end);
            self.world.forget_names();
            logs::note(|| "=== access ends".to_owned());
            self.judge(&Expectations::default());
        }
    }

    /// Whether everything holds so far.
    pub fn is_sound(&self) -> bool {
        self.failures.is_empty()
    }

    /// Lets time pass until everything expected has happened and a little longer.
    fn settle(&mut self, expected: &Expectations) {
        let mut waiting = Waiting::new(expected, self.model.is_repeating());
        if self.model.is_repeating() {
            self.insist(expected, &mut waiting);
        } else {
            self.world
                .run_until(CUT_OFF, |world| waiting.is_over(world));
        }
        self.world
            .run_for(Duration::from_millis(expected.settle_ms));
    }

    /// Applications try again until they get through.
    fn insist(&mut self, expected: &Expectations, waiting: &mut Waiting<'_>) {
        for attempt in 1..=ATTEMPTS {
            let is_over = self
                .world
                .run_until(Duration::from_secs(1), |world| waiting.is_over(world));
            if is_over {
                return;
            }
            let missing: Vec<_> = expected
                .probes
                .iter()
                .filter(|probe| waiting.probes.contains(&probe.number))
                .cloned()
                .collect();
            for probe in missing {
                let again = Probe {
                    to: probe.to,
                    how: probe.how,
                    source: None,
                };
                self.world.send(probe.client, &[again], probe.number);
            }
            for query in waiting.queries.values() {
                let pause = match query.query.transport {
                    Transport::Udp => ASK_AGAIN,
                    Transport::Tcp => ASK_AGAIN_TCP,
                };
                if attempt % pause == 0 {
                    self.world.ask(query.client, &query.query, query.number);
                }
            }
            if attempt % CONNECT_AGAIN == 0 {
                for connection in &waiting.opened {
                    self.world.connect_again(*connection);
                }
            }
            if attempt % SPEAK_AGAIN == 0 {
                for connection in &waiting.used {
                    self.world.use_tcp(*connection, Side::Application);
                    self.world.use_tcp(*connection, Side::Resource);
                }
            }
        }
    }

    fn judge(&mut self, expected: &Expectations) {
        let snapshot = self.world.snapshot();
        let evidence = Evidence {
            model: &self.model,
            expected,
            entries: &self.world.trace.entries,
            snapshot: &snapshot,
        };
        let mut failures = assertions::check(&evidence, &mut self.memory);
        let errors = logs::take_errors();
        failures.extend(errors.into_iter().map(|text| Failure::new(22, text)));
        failures.extend(self.detours());
        let step = self.done.len();
        for failure in failures {
            logs::note(|| format!("!!! A{}: {}", failure.assertion, failure.text));
            if self.failures.len() < MAX_FAILURES {
                self.failures.push((step, failure));
            }
        }
        let entries = std::mem::take(&mut self.world.trace.entries);
        self.note_impatience(&entries);
        self.last.entries = entries;
    }

    /// Whether a system runs out of patience is chance where packets are lost: the model cannot know it.
    fn note_impatience(&mut self, entries: &[(Duration, Entry)]) {
        for (_, entry) in entries {
            if let Entry::Tcp {
                connection,
                event: TcpEvent::Closed,
            } = entry
                && self.model.is_lossy()
            {
                self.model.end_connection(*connection);
            }
        }
    }

    /// Clients whose connections have had the time to become direct, and are not.
    fn detours(&self) -> Vec<Failure> {
        let clients = (0..self.model.clients.len()).filter(|client| self.model.is_direct(*client));
        clients
            .filter_map(|client| paths::check(client, &self.world.paths(client)))
            .collect()
    }

    /// After a path was cut: applications go on with what they did, once a second, until they get through.
    fn recover(&mut self, limit_s: u64) {
        let limit_s = match self.model.is_lossy() {
            true => limit_s * LOSSY_RECOVERY,
            false => limit_s,
        };
        let (mut missing, is_complete) = self.doubtful();
        if !is_complete {
            // Nothing that may be sent there: ICE has to notice by itself.
            self.world.run_for(SILENT_RECOVERY);
        }
        let mut sent = BTreeMap::new();
        for _ in 0..limit_s {
            if missing.is_empty() {
                break;
            }
            for (key, probe) in &missing {
                let send = Transition::Send {
                    client: key.0,
                    probes: vec![probe.clone()],
                };
                let expected = self.model.apply(&send);
                self.world.apply(&send);
                sent.insert(expected.probes[0].number, *key);
            }
            self.world.run_for(Duration::from_secs(1));
            let answered = answered_probes(&self.world.trace.entries);
            // The way may take longer than a second.
            for (number, key) in &sent {
                if answered.contains(number) {
                    missing.remove(key);
                }
            }
        }
        self.keep_violations();
        let step = self.done.len();
        for (client, resource) in missing.into_keys() {
            let text =
                format!("client {client} does not reach resource {resource} within {limit_s} s");
            logs::note(|| format!("!!! A1: {text}"));
            self.failures.push((step, Failure::new(1, text)));
        }
        // What is still under way belongs to the recovery.
        self.world.run_for(Duration::from_secs(5));
        self.keep_violations();
    }

    /// Resources whose connection may be lost, each with a packet that goes there; and whether there is one for all.
    fn doubtful(&self) -> (BTreeMap<(usize, usize), Probe>, bool) {
        let mut doubtful = BTreeMap::new();
        let mut is_complete = true;
        for (client, model) in self.model.clients.iter().enumerate() {
            for (resource, sure) in &model.connected {
                if *sure || !model.active().any(|id| id == *resource) {
                    continue;
                }
                match self.model.example(client, *resource) {
                    Some(probe) => {
                        doubtful.insert((client, *resource), probe);
                    }
                    None => is_complete = false,
                }
            }
        }
        (doubtful, is_complete)
    }

    /// Rules that hold everywhere hold during recovery as well; the rest is not judged.
    fn keep_violations(&mut self) {
        let step = self.done.len();
        let entries = std::mem::take(&mut self.world.trace.entries);
        for (at, entry) in &entries {
            if let Entry::Violation { assertion, text } = entry {
                let failure = Failure::new(*assertion, format!("{at:?}: {text}"));
                self.failures.push((step, failure));
            }
        }
        self.memory.forget_mappings(&self.model, &entries);
        self.memory.observe(&entries);
        self.note_impatience(&entries);
        self.last.entries.extend(entries);
        for text in logs::take_errors() {
            self.failures.push((step, Failure::new(22, text)));
        }
    }
}

/// What a transition must still lead to.
struct Waiting<'a> {
    probes: BTreeSet<u64>,
    queries: BTreeMap<u64, &'a ExpectedQuery>,
    /// Whether what fails is tried again.
    is_repeating: bool,
    opened: BTreeSet<usize>,
    used: BTreeSet<usize>,
    seen: usize,
}

impl<'a> Waiting<'a> {
    fn new(expected: &'a Expectations, is_repeating: bool) -> Self {
        let opened = expected.opened.iter().filter(|(_, _, must)| *must);
        Self {
            probes: expected
                .probes
                .iter()
                .filter(|probe| probe.fates.is_answered())
                .map(|probe| probe.number)
                .collect(),
            queries: expected
                .queries
                .iter()
                .filter(|query| query.reply != Reply::Silence)
                .map(|query| (query.number, query))
                .collect(),
            is_repeating,
            opened: opened.map(|(index, _, _)| *index).collect(),
            used: expected.used.iter().copied().collect(),
            seen: 0,
        }
    }

    fn is_over(&mut self, world: &mut World) -> bool {
        let entries = &world.trace.entries;
        if entries.len() > self.seen {
            let returns = entries[self.seen..]
                .iter()
                .any(|(_, entry)| matches!(entry, Entry::Return { .. }));
            if returns {
                for number in answered_probes(entries) {
                    self.probes.remove(&number);
                }
            }
            for (_, entry) in &entries[self.seen..] {
                match entry {
                    Entry::DnsResponse {
                        query: Some(number),
                        message,
                        ..
                    } => self.hear(*number, message),
                    Entry::DnsFailure { query, .. } if !self.is_repeating => {
                        self.queries.remove(query);
                    }
                    Entry::Tcp { connection, event } => {
                        self.used.remove(connection);
                        if !self.is_repeating || *event != TcpEvent::Closed {
                            self.opened.remove(connection);
                        }
                    }
                    _ => {}
                }
            }
            self.seen = entries.len();
        }
        self.probes.is_empty()
            && self.queries.is_empty()
            && self.opened.is_empty()
            && self.used.is_empty()
    }

    fn hear(&mut self, number: u64, message: &[u8]) {
        let Some(query) = self.queries.get(&number) else {
            return;
        };
        let is_final = Message::parse(message).is_none_or(|message| query.is_final(&message));
        if is_final || !self.is_repeating {
            self.queries.remove(&number);
        }
    }
}

/// Numbers of the probes that were answered, or for which an error came back.
pub(crate) fn answered_probes(entries: &[(Duration, Entry)]) -> BTreeSet<u64> {
    let mut answered = BTreeSet::new();
    for (_, entry) in entries {
        let Entry::Return { client, packet } = entry else {
            continue;
        };
        if let Some(number) = crate::sut::probe_number(packet)
            && packet.view().icmp_error().is_none()
        {
            answered.insert(number);
            continue;
        }
        let view = packet.view();
        let Some(Ok(failed)) = view.icmp_error().map(|error| error.failed_packet()) else {
            continue;
        };
        for (_, entry) in entries {
            if let Entry::Request {
                client: of,
                probe,
                packet: request,
            } = entry
                && of == client
                && request.destination() == failed.destination()
                && request.source_protocol() == Ok(failed.source_protocol())
            {
                answered.insert(*probe);
            }
        }
    }
    answered
}
