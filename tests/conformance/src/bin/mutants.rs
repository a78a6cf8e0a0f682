//! Breaks the product on purpose, one mutation at a time, and reports which of them the tests do not notice.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use conformance::{
    mutants::{self, Mutation, Outcome, Plan, Runner, Scratch},
    workspace_root,
};

/// Runs each mutation's test in a scratch copy of the tree; the test has to fail.
#[derive(Debug, Parser)]
struct Args {
    /// Only these, e.g. `M7,M12b`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Folder for the copy and its build, kept for the next time [default: a temporary one]
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Program to call for `cargo`.
    #[arg(long, env = "CARGO", default_value = "cargo")]
    cargo: PathBuf,
    /// Write what came of them into `mutants/RESULTS.md`; rows of others stay.
    #[arg(long)]
    write: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mutations = chosen(&args.only)?;
    let temporary = tempfile::tempdir()?;
    let scratch = args.scratch.unwrap_or_else(|| temporary.path().to_owned());
    let target = scratch.join("target");
    fs::create_dir_all(&target)?;
    let runner = Runner {
        cargo: args.cargo,
        target: target.canonicalize()?,
        scratch: Scratch::copy(&workspace_root(), &scratch.join("tree"))?,
    };

    let mut results = BTreeMap::new();
    let mut proven = BTreeMap::new();
    for (index, mutation) in by_package(&mutations).into_iter().enumerate() {
        let start = Instant::now();
        let outcome = runner
            .run(mutation)
            .with_context(|| mutation.name.clone())?;
        if let (Outcome::Caught | Outcome::Hung, Plan::Test { test, .. }) =
            (&outcome, &mutation.plan)
        {
            proven
                .entry(test)
                .or_insert_with(Vec::new)
                .push(&mutation.name);
        }
        println!(
            "{:>3}/{} {:<6}{:<22}{:>4} s  {}",
            index + 1,
            mutations.len(),
            mutation.name,
            outcome.to_string(),
            start.elapsed().as_secs(),
            mutation.breaks,
        );
        results.insert(&mutation.name, outcome);
    }
    for (test, names) in proven {
        if !runner.passes_unchanged(test)? {
            println!(
                "cargo test {}: fails without any change, too",
                test.join(" ")
            );
            for name in names {
                results.insert(name, Outcome::FailsAnyway);
            }
        }
    }
    let bad = results
        .values()
        .filter(|outcome| !outcome.is_good())
        .count();
    println!("{} mutations, {bad} unnoticed or unproven", results.len());
    if args.write {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants/RESULTS.md");
        let before = fs::read_to_string(&file).unwrap_or_default();
        fs::write(file, table(&mutants::all()?, &results, &before))?;
    }
    Ok(if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// In an order in which each build differs little from the one before.
fn by_package(mutations: &[Mutation]) -> Vec<&Mutation> {
    let mut ordered: Vec<_> = mutations.iter().collect();
    ordered.sort_by_key(|mutation| match &mutation.plan {
        Plan::Test { edits, test } => (
            Some(test.clone()),
            edits.first().map(|edit| edit.file.clone()),
        ),
        Plan::Void(_) => (None, None),
    });
    ordered
}

fn chosen(only: &[String]) -> Result<Vec<Mutation>> {
    let mut mutations = mutants::all()?;
    for name in only {
        let is_known = mutations.iter().any(|mutation| mutation.name == *name);
        anyhow::ensure!(is_known, "there is no mutation {name}");
    }
    mutations.retain(|mutation| only.is_empty() || only.contains(&mutation.name));
    Ok(mutations)
}

fn table(mutations: &[Mutation], results: &BTreeMap<&String, Outcome>, before: &str) -> String {
    let mut text = String::from(
        "# Mutations\n\nWritten by `cargo run -p conformance --bin mutants -- --write`: what is broken, what has to notice, \
         what came of it.\n\n| # | Break | Test, or why there is none | Result |\n|---|---|---|---|\n",
    );
    for mutation in mutations {
        let means = match &mutation.plan {
            Plan::Test { test, .. } => format!("`cargo test {}`", test.join(" ")),
            Plan::Void(reason) => reason.clone(),
        };
        let result = match results.get(&mutation.name) {
            Some(outcome) => outcome.to_string(),
            None => result_in(before, &mutation.name)
                .unwrap_or("not run")
                .to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {means} | {result} |",
            mutation.name, mutation.breaks
        );
    }
    text
}

/// The last column of a mutation's row in an earlier table.
fn result_in<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    let mut rows = table
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let row = rows.find(|cells| cells.get(1) == Some(&name))?;
    row.get(row.len() - 2).copied()
}
