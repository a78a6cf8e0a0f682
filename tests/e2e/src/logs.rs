//! What the processes' logs must not contain: errors and panics ever, warnings unless the scenario causes them.

use std::{fs, path::Path};

use anyhow::Result;

/// A warning that a scenario causes on purpose.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Whose log.
    pub process: &'static str,
    /// Part of the line.
    pub text: &'static str,
    /// Why it comes.
    pub why: &'static str,
}

/// The log of every process that was started: its name and its text.
///
/// # Errors
///
/// If the directory cannot be read.
pub fn all(directory: &Path) -> Result<Vec<(String, String)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            logs.push((name.into_owned(), text));
        }
    }
    logs.sort();
    Ok(logs)
}

/// Lines that should not be there.
pub fn unexpected<'a>(process: &str, text: &'a str, expected: &[Expected]) -> Vec<&'a str> {
    let is_expected = |line: &str| {
        let mut of_process = expected.iter().filter(|entry| entry.process == process);
        of_process.any(|entry| line.contains(entry.text))
    };
    text.lines()
        .filter(|line| match Severity::of(line) {
            Severity::Fatal => true,
            Severity::Warning => !is_expected(line),
            Severity::Fine => false,
        })
        .collect()
}

enum Severity {
    Fine,
    Warning,
    Fatal,
}

impl Severity {
    /// The level is the second word of a line (see `connlib-logging`).
    fn of(line: &str) -> Self {
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        match level {
            "ERROR" => Self::Fatal,
            "WARN" => Self::Warning,
            _ if line.contains("panicked at") => Self::Fatal,
            _ => Self::Fine,
        }
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all = text.lines().collect::<Vec<_>>();
    all[all.len().saturating_sub(lines)..].join("\n")
}
