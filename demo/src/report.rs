//! How the demo's results are shown: a line per step as it happens, or JSON at the end.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::scenario::Scenario;

/// Width of the column that names the step.
const NAME_WIDTH: usize = 46;

/// One step with its outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// Whether it did what it should.
    pub ok: bool,
    /// Outcome in words.
    pub detail: String,
    /// A measured value, if the step has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// A measured value.
#[derive(Debug, Clone, Serialize)]
pub struct Value {
    /// The number.
    pub number: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// Results of a whole run.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The network.
    pub scenario: Scenario,
    /// Whether every step did what it should.
    pub ok: bool,
    /// All steps.
    pub steps: Vec<Step>,
}

/// Where steps are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people, line by line.
    Table,
    /// One JSON object at the end.
    Json,
    /// Nothing; the caller looks at the [`Summary`].
    Silent,
}

/// Shows and collects steps.
#[derive(Debug)]
pub struct Reporter {
    format: Format,
    color: bool,
    steps: Vec<Step>,
}

impl Reporter {
    /// A reporter without steps.
    pub fn new(format: Format) -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            format,
            color,
            steps: Vec::new(),
        }
    }

    /// A line between steps.
    pub fn heading(&self, text: &str) {
        if self.format == Format::Table {
            println!("\n{text}");
        }
    }

    /// Shows that a step has begun; on a terminal the line is completed when it is done.
    pub fn begin(&self, name: &str) {
        if self.format == Format::Table && self.color {
            print!("  … {name}\r");
            let _ = std::io::stdout().flush();
        }
    }

    /// Adds a finished step.
    pub fn finish(&mut self, step: Step) {
        if self.format == Format::Table {
            let (mark, start, end) = match (step.ok, self.color) {
                (true, true) => ("✔", "\x1b[32m", "\x1b[0m"),
                (false, true) => ("✘", "\x1b[31m", "\x1b[0m"),
                (true, false) => ("ok  ", "", ""),
                (false, false) => ("FAIL", "", ""),
            };
            let name = &step.name;
            println!("  {start}{mark}{end} {name:<NAME_WIDTH$} {}", step.detail);
        }
        self.steps.push(step);
    }

    /// Ends the report.
    pub fn conclude(self, scenario: Scenario) -> Summary {
        let summary = Summary {
            scenario,
            ok: !self.steps.is_empty() && self.steps.iter().all(|step| step.ok),
            steps: self.steps,
        };
        match self.format {
            Format::Silent => {}
            Format::Json => match serde_json::to_string_pretty(&summary) {
                Ok(text) => println!("{text}"),
                Err(error) => eprintln!("cannot print the results: {error}"),
            },
            Format::Table => {
                let failed = summary.steps.iter().filter(|step| !step.ok).count();
                match failed {
                    0 => println!("\nAll {} steps did what they should.", summary.steps.len()),
                    n => println!("\n{n} of {} steps failed.", summary.steps.len()),
                }
            }
        }
        summary
    }
}

impl Step {
    /// A step that did what it should.
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            ok: true,
            detail: detail.into(),
            value: None,
        }
    }

    /// A step that did not.
    pub fn failed(name: &str, detail: impl Into<String>) -> Self {
        Self {
            ok: false,
            ..Self::ok(name, detail)
        }
    }

    /// Adds a measured value.
    pub fn with_value(mut self, number: f64, unit: &'static str) -> Self {
        self.value = Some(Value { number, unit });
        self
    }
}
