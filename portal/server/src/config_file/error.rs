//! Mistakes in the configuration file.

use std::path::{Path, PathBuf};

/// A mistake: where it is, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {problem} {fix}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, if the mistake has one.
    pub line: Option<usize>,
    /// What is wrong; a sentence.
    pub problem: String,
    /// What to do; a sentence.
    pub fix: String,
}

impl ConfigError {
    pub(crate) fn new(
        file: &Path,
        line: Option<usize>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let mut problem = problem.into();
        if !problem.ends_with('.') {
            problem.push('.');
        }
        Self {
            file: file.to_owned(),
            line,
            problem,
            fix: fix.into(),
        }
    }
}

/// The number of the line, from 1, that holds the byte at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
