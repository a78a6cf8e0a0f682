//! Mutations: the product broken on purpose, one small change at a time, and the test that has to notice.
//!
//! Each mutation is a file under `mutants/`. [`Mutation::apply`] makes its change in a scratch copy of the tree; `cargo run
//! -p conformance --bin mutants` runs the named test there and expects it to fail. A change that does not compile, or a
//! test that does not run, proves nothing and is an error, as is a change whose place is not found any more.

mod run;
mod tree;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

pub use run::{Outcome, Runner};
pub use tree::Scratch;

/// One mutation.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// `M7`, or `M7b` for the second change of one kind.
    pub name: String,
    /// What is broken, in one line.
    pub breaks: String,
    /// What becomes of it.
    pub plan: Plan,
}

/// What becomes of a mutation.
#[derive(Debug, Clone)]
pub enum Plan {
    /// It is made, and the test has to fail.
    Test {
        /// The changes, in order.
        edits: Vec<Edit>,
        /// Arguments of `cargo test`, the filter last; in front of them may stand variables (`NAME=value`).
        test: Vec<String>,
    },
    /// It does not fit what is built, for this reason.
    Void(String),
}

/// One change of one file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Relative to the root.
    pub file: String,
    /// Occurs exactly once.
    pub find: String,
    /// Takes its place.
    pub replace: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    breaks: String,
    test: Option<String>,
    void: Option<String>,
    #[serde(default)]
    edit: Vec<Edit>,
}

/// All mutations, in order of their numbers.
///
/// # Errors
///
/// A file that cannot be read or does not describe a mutation.
pub fn all() -> Result<Vec<Mutation>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
    let mut mutations = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = fs::read_to_string(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let mutation = Mutation::parse(&name, &text);
            mutations.push(mutation.with_context(|| format!("in {}", path.display()))?);
        }
    }
    mutations.sort_by_key(|mutation| mutation.order());
    Ok(mutations)
}

impl Mutation {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let document: Document = toml::from_str(text)?;
        let plan = match (document.void, document.test) {
            (Some(reason), None) => {
                ensure!(document.edit.is_empty(), "a void mutation has no edits");
                Plan::Void(reason)
            }
            (None, Some(test)) => {
                ensure!(!document.edit.is_empty(), "no edits");
                Plan::Test {
                    edits: document.edit,
                    test: test.split_whitespace().map(str::to_owned).collect(),
                }
            }
            (_, _) => anyhow::bail!("either `test` or `void`"),
        };
        Ok(Self {
            name: name.to_owned(),
            breaks: document.breaks,
            plan,
        })
    }

    /// By number, then by letter.
    fn order(&self) -> (u32, String) {
        let digits: String = self.name.chars().filter(char::is_ascii_digit).collect();
        (digits.parse().unwrap_or(u32::MAX), self.name.clone())
    }
}

/// Makes the changes in the tree at `root`.
///
/// # Errors
///
/// A file that cannot be read or written; a place that is not there, or there twice.
pub fn apply(edits: &[Edit], root: &Path) -> Result<()> {
    for edit in edits {
        let path = root.join(&edit.file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", edit.file))?;
        let places = text.matches(&edit.find).count();
        ensure!(
            places == 1,
            "the place to change occurs {places} times in {}:\n{}",
            edit.file,
            edit.find
        );
        ensure!(
            edit.find != edit.replace,
            "nothing changes in {}",
            edit.file
        );
        fs::write(&path, text.replacen(&edit.find, &edit.replace, 1))?;
    }
    Ok(())
}
