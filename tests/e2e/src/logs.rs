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
            // A client that starts afresh without a reason drops its connections.
            _ if line.contains("The network changed;") => Self::Warning,
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

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-05T10:11:12.345Z  INFO gateway: an ERROR in a message is none
2026-01-05T10:11:12.345Z  WARN gateway: the portal is away
2026-01-05T10:11:12.345Z  WARN gateway: something else
2026-01-05T10:11:12.345Z ERROR gateway: must never happen, portal
thread 'main' (12) panicked at src/lib.rs:1:1:";

    #[test]
    fn only_listed_warnings_of_the_process_are_expected() {
        let expected = [Expected {
            process: "gateway",
            text: "portal",
            why: "a test",
        }];

        let lines = unexpected("gateway", LOG, &expected);

        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with("something else"));
        assert!(lines[1].contains("ERROR") && lines[2].contains("panicked"));
        assert_eq!(unexpected("client", LOG, &expected).len(), 4);
    }

    #[test]
    fn tail_has_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}
