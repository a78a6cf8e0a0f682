//! Runs the test that has to notice.

use std::{
    fmt, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Mutation, Plan, Scratch};

/// Tests that run longer hang: those that are named take seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The test failed, as it should.
    Caught,
    /// The test did not end, which is noticed as well.
    Hung,
    /// The test passed.
    Survived,
    /// The change does not compile: proves nothing.
    DoesNotBuild,
    /// The filter matches no test: proves nothing.
    NoTest,
    /// The test fails without the change, too: proves nothing.
    FailsAnyway,
    /// Does not fit what is built.
    Void,
}

impl Outcome {
    /// Whether nothing has to be done.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Caught | Self::Hung | Self::Void)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caught => "caught",
            Self::Hung => "caught (does not end)",
            Self::Survived => "SURVIVED",
            Self::DoesNotBuild => "DOES NOT BUILD",
            Self::NoTest => "NO SUCH TEST",
            Self::FailsAnyway => "FAILS ANYWAY",
            Self::Void => "void",
        })
    }
}

/// What became of a call of `cargo test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    Passed,
    Failed,
    Hung,
    NotBuilt,
    Nothing,
}

/// Runs mutations one after another in one scratch tree.
#[derive(Debug)]
pub struct Runner {
    /// The program to call for `cargo`.
    pub cargo: PathBuf,
    /// One for all, so that each mutation builds only what it changes.
    pub target: PathBuf,
    /// The tree.
    pub scratch: Scratch,
}

impl Runner {
    /// Makes the change, runs its test, and takes the change back.
    ///
    /// # Errors
    ///
    /// A change that does not fit, a tree that cannot be written, a program that cannot be started.
    pub fn run(&self, mutation: &Mutation) -> Result<Outcome> {
        let Plan::Test { edits, test } = &mutation.plan else {
            return Ok(Outcome::Void);
        };
        let outcome = self.scratch.with(edits, |root| self.test(root, test))?;
        Ok(match outcome {
            Ran::Passed => Outcome::Survived,
            Ran::Failed => Outcome::Caught,
            Ran::Hung => Outcome::Hung,
            Ran::NotBuilt => Outcome::DoesNotBuild,
            Ran::Nothing => Outcome::NoTest,
        })
    }

    /// Whether this test passes in the tree as it is; otherwise its failure proves nothing.
    ///
    /// # Errors
    ///
    /// A program that cannot be started.
    pub fn passes_unchanged(&self, test: &[String]) -> Result<bool> {
        Ok(self.test(self.scratch.root(), test)? == Ran::Passed)
    }

    fn test(&self, root: &Path, test: &[String]) -> Result<Ran> {
        let log = self.target.join("mutants.log");
        let run = self.cargo(root, &["test"], test, &log)?;
        let status = Self::wait(run, &log)?;
        let text = fs::read_to_string(&log)?;
        Ok(
            match (status.map(|status| status.success()), tests_run(&text)) {
                (None, _) => Ran::Hung,
                (Some(true), 0) => Ran::Nothing,
                // Cargo says this when a test fails, too, but then the harness has spoken before.
                (Some(false), 0) => Ran::NotBuilt,
                (Some(true), _) => Ran::Passed,
                (Some(false), _) => Ran::Failed,
            },
        )
    }

    fn cargo(&self, root: &Path, verb: &[&str], test: &[String], log: &Path) -> Result<Child> {
        let log =
            fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let is_variable = |word: &&String| !word.starts_with('-') && word.contains('=');
        let (variables, arguments): (Vec<_>, Vec<_>) = test.iter().partition(is_variable);
        Command::new(&self.cargo)
            .args(verb)
            .args(arguments)
            .envs(variables.iter().filter_map(|word| word.split_once('=')))
            .current_dir(root)
            .env("CARGO_TARGET_DIR", &self.target)
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", self.cargo.display()))
    }

    /// The status, or nothing when the tests, once built, took too long; then the process and all that it started are
    /// ended.
    fn wait(mut child: Child, log: &Path) -> Result<Option<ExitStatus>> {
        let mut running_since = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if running_since.is_none() && tests_run(&fs::read_to_string(log)?) > 0 {
                running_since = Some(Instant::now());
            }
            if running_since.is_some_and(|since| since.elapsed() > PATIENCE) {
                let group = format!("-{}", child.id());
                Command::new("kill")
                    .args(["-KILL", "--", &group])
                    .status()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// How many tests the harness says it ran, over all executables.
fn tests_run(log: &str) -> usize {
    let counts = log.lines().filter_map(|line| line.strip_prefix("running "));
    counts
        .filter_map(|rest| rest.split(' ').next()?.parse::<usize>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_all_executables_are_counted() {
        let log = "running 2 tests\ntest a ... ok\n\nrunning 0 tests\n\nrunning 1 test\n";

        assert_eq!(tests_run(log), 3);
        assert_eq!(tests_run("error: could not compile"), 0);
    }

    #[test]
    fn only_what_was_noticed_is_good() {
        assert!(Outcome::Caught.is_good() && Outcome::Void.is_good());
        assert!(!Outcome::Survived.is_good() && !Outcome::DoesNotBuild.is_good());
        assert!(!Outcome::NoTest.is_good() && !Outcome::FailsAnyway.is_good());
    }
}
