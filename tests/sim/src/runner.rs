//! Many random cases on all cores; the first failures are shrunk and written to files.

use std::{
    collections::BTreeMap,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use proptest::strategy::{Strategy as _, ValueTree as _};

use crate::{
    case::Case,
    generators::{Weights, draw, random, sequence},
    logs,
    script::{Script, Step, VERSION},
    topology::Topology,
    transition::Transition,
};

mod shrink;

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Number of cases.
    pub cases: u64,
    /// Seed of the first case; the next has the next number.
    pub seed: u64,
    /// What is turned up or down.
    pub weights: Weights,
    /// Threads.
    pub threads: usize,
    /// Where files of failing cases go.
    pub folder: PathBuf,
    /// Stop after this many failing cases.
    pub max_failures: usize,
}

/// What a run has seen.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that ran.
    pub cases: u64,
    /// Transitions by name.
    pub transitions: BTreeMap<&'static str, u64>,
    /// Failing cases: seed and what does not hold.
    pub failures: Vec<(u64, Vec<String>)>,
    /// Number of cases that reached each coverage point.
    pub coverage: BTreeMap<&'static str, u64>,
}

/// What one case has seen.
struct Outcome {
    failures: Vec<String>,
    done: Vec<&'static str>,
    coverage: Vec<&'static str>,
}

impl Run {
    /// Runs all cases.
    pub fn run(&self) -> Report {
        let failed = AtomicUsize::new(0);
        let report = Mutex::new(Report::default());
        self.each(|seed| {
            let outcome = self.case(seed);
            if !outcome.failures.is_empty() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            let mut report = report.lock().expect("no thread panics with the lock");
            report.add(seed, outcome);
            failed.load(Ordering::Relaxed) < self.max_failures
        });
        let mut report = report.into_inner().expect("no thread panics with the lock");
        report.failures.sort();
        report
    }

    /// The seeds of the cases that reach all these coverage points (testing §8).
    pub fn harvest(&self, points: &[String]) -> Vec<u64> {
        let found = Mutex::new(Vec::new());
        self.each(|seed| {
            let (topology, transitions) = generate(seed, self.weights);
            let coverage = execute(&topology, &transitions, None).coverage;
            if points
                .iter()
                .all(|point| coverage.contains(&point.as_str()))
            {
                let mut found = found.lock().expect("no thread panics with the lock");
                found.push(seed);
            }
            true
        });
        let mut found = found.into_inner().expect("no thread panics with the lock");
        found.sort_unstable();
        found
    }

    /// Calls `see` with the seed of each case, on all threads, until it says no.
    fn each(&self, see: impl Fn(u64) -> bool + Sync) {
        let loud = silence_panics();
        let next = AtomicU64::new(0);
        let go_on = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while go_on.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.cases {
                            break;
                        }
                        if !see(self.seed + number) {
                            go_on.store(false, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        panic::set_hook(loud);
    }

    fn case(&self, seed: u64) -> Outcome {
        let mut tree = sequence(self.weights)
            .new_tree(&mut random(seed))
            .expect("strategies have no filters");
        let (topology, transitions) = tree.current();
        let outcome = execute(&topology, &transitions, None);
        if !outcome.failures.is_empty() {
            let smallest = shrink::shrink(&mut tree, &outcome.failures);
            self.write(seed, &smallest);
        }
        outcome
    }

    /// State, transitions and log of a failing case, and a script that does the same.
    fn write(&self, seed: u64, (topology, transitions): &(Topology, Vec<Transition>)) {
        let (outcome, lines) = log_of(topology, transitions);
        let script = Script {
            version: VERSION,
            broke: outcome.failures.first().cloned().unwrap_or_default(),
            topology: topology.clone(),
            steps: transitions.iter().cloned().map(Step::Do).collect(),
        };
        let path = |extension: &str| self.folder.join(format!("{seed}.{extension}"));
        let files = [
            (path("state"), format!("{topology:#?}\n")),
            (path("transitions"), format!("{transitions:#?}\n")),
            (path("log"), lines.join("\n")),
            (path("ron"), script.to_text().unwrap_or_default()),
        ];
        for (path, text) in files {
            if let Err(error) = write_file(&path, &text) {
                eprintln!("cannot write {}: {error}", path.display());
            }
        }
    }
}

impl Report {
    /// Runs all scripts as further cases: what no random case reaches often enough has one.
    ///
    /// # Errors
    ///
    /// The scripts cannot be listed.
    pub fn add_scripts(&mut self) -> anyhow::Result<()> {
        for path in crate::script::all()? {
            let result = logs::with(None, || {
                crate::coverage::reset();
                Script::load(&path).and_then(|script| script.run())
            });
            for name in crate::coverage::take() {
                *self.coverage.entry(name).or_default() += 1;
            }
            if let Err(error) = result {
                let text = format!("script {}: {error:#}", path.display());
                self.failures.push((u64::MAX, vec![text]));
            }
        }
        Ok(())
    }

    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.cases += 1;
        for name in outcome.done {
            *self.transitions.entry(name).or_default() += 1;
        }
        for name in outcome.coverage {
            *self.coverage.entry(name).or_default() += 1;
        }
        if !outcome.failures.is_empty() {
            self.failures.push((seed, outcome.failures));
        }
    }
}

/// Runs one case again with its log; the failures and the lines.
pub fn log_of_seed(seed: u64, weights: Weights) -> (Vec<String>, Vec<String>) {
    let loud = silence_panics();
    let (topology, transitions) = generate(seed, weights);
    let (outcome, lines) = log_of(&topology, &transitions);
    panic::set_hook(loud);
    (outcome.failures, lines)
}

/// The case of a seed.
pub fn generate(seed: u64, weights: Weights) -> (Topology, Vec<Transition>) {
    draw(&sequence(weights), seed)
}

fn log_of(topology: &Topology, transitions: &[Transition]) -> (Outcome, Vec<String>) {
    let outcome = execute(topology, transitions, Some(tracing::Level::DEBUG));
    (outcome, logs::take_lines())
}

fn execute(
    topology: &Topology,
    transitions: &[Transition],
    level: Option<tracing::Level>,
) -> Outcome {
    logs::with(level, || {
        crate::coverage::reset();
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut case = Case::new(topology);
            for transition in transitions {
                case.step(transition);
            }
            case
        }));
        let coverage = crate::coverage::take();
        match result {
            Ok(case) => Outcome {
                failures: case
                    .failures
                    .iter()
                    .map(|(step, f)| format!("step {step}: A{}: {}", f.assertion, f.text))
                    .collect(),
                done: case.done,
                coverage,
            },
            Err(_) => Outcome {
                failures: vec![format!("panic: {}", take_panic())],
                done: vec![],
                coverage,
            },
        }
    })
}

thread_local! {
    static PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

type Hook = Box<dyn Fn(&panic::PanicHookInfo<'_>) + Sync + Send + 'static>;

/// A panic is a failure of its case like any other; it is reported once, with its place. Gives back what was done with
/// panics before, to be put back after the run.
fn silence_panics() -> Hook {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        PANIC.with_borrow_mut(|text| *text = info.to_string());
    }));
    loud
}

fn take_panic() -> String {
    PANIC.with_borrow_mut(std::mem::take)
}

fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}
