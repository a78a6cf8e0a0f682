//! Scripted scenarios: data files with topology, transitions and expectations (testing §8), executed by the same system
//! and assertions as generated cases. They do not depend on any generator.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use expect::Expect;

use crate::{case::Case, topology::Topology, transition::Transition};

mod expect;

/// The schema that this program reads.
pub const VERSION: u32 = 1;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Version of the schema; see [`VERSION`].
    pub version: u32,
    /// What broke, or would break.
    pub broke: String,
    /// Where everybody is.
    pub topology: Topology,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One line of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Something happens; the model says what it must lead to. It must be legal. Where it cuts a path, applications go on
    /// until they get through again.
    Do(Transition),
    /// Several things happen at once, and no application does anything beyond them. All must be legal at first.
    AtOnce(Vec<Transition>),
    /// Something more is expected than what the model says.
    Expect(Expect),
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no script, or one of another version.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        let options = ron::Options::default()
            .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
        let script: Self = options
            .from_str(&text)
            .with_context(|| format!("{}", path.display()))?;
        ensure!(
            script.version == VERSION,
            "{} has version {}; this program reads {VERSION}",
            path.display(),
            script.version
        );
        Ok(script)
    }

    /// Writes a script for [`Self::load`].
    ///
    /// # Errors
    ///
    /// Something cannot be written in this form.
    pub fn to_text(&self) -> Result<String> {
        let options = ron::Options::default()
            .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
        Ok(options.to_string_pretty(self, ron::ser::PrettyConfig::default())?)
    }

    /// Runs the script.
    ///
    /// # Errors
    ///
    /// Everything that does not hold.
    pub fn run(&self) -> Result<()> {
        let mut case = Case::new(&self.topology);
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Do(transition) => {
                    ensure_legal(&case, index, transition)?;
                    case.step(transition);
                }
                Step::AtOnce(transitions) => {
                    for transition in transitions {
                        ensure_legal(&case, index, transition)?;
                    }
                    case.step_only(transitions);
                }
                Step::Expect(expect) => expect
                    .check(&case)
                    .with_context(|| format!("step {index}: {expect:?}"))?,
            }
        }
        if !case.is_sound() {
            let lines = case.failures.iter().map(|(step, failure)| {
                format!("step {step}: A{}: {}", failure.assertion, failure.text)
            });
            bail!("{}", lines.collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    }
}

fn ensure_legal(case: &Case, index: usize, transition: &Transition) -> Result<()> {
    ensure!(
        case.model.is_legal(transition),
        "step {index} makes no sense here: {transition:?}"
    );
    Ok(())
}

/// The scripts of this crate, by name.
pub fn all() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ron") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
