//! The dependencies between the workspace's crates are those of the table in `ARCHITECTURE.md`, and no others.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let allowed = allowed_edges();
    let actual = actual_edges();

    let unknown = actual.keys().filter(|name| !allowed.contains_key(*name));
    assert_eq!(
        unknown.collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "crates missing from the table in ARCHITECTURE.md"
    );
    let gone = allowed.keys().filter(|name| !actual.contains_key(*name));
    assert_eq!(
        gone.collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "crates of the table that do not exist"
    );
    let mut violations = Vec::new();
    for (name, used) in &actual {
        let Edges::Only(allowed) = &allowed[name] else {
            continue;
        };
        violations.extend(
            used.difference(allowed)
                .map(|other| format!("{name} uses {other}")),
        );
    }
    assert_eq!(violations, Vec::<String>::new());
}

enum Edges {
    Anything,
    Only(BTreeSet<String>),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn allowed_edges() -> BTreeMap<String, Edges> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = text
        .split("<!-- edges:begin -->")
        .nth(1)
        .and_then(|rest| rest.split("<!-- edges:end -->").next())
        .expect("ARCHITECTURE.md has the edge table between its marks");
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells = line.split('|').skip(1);
            let names = |cell: Option<&str>| -> Vec<String> {
                let cell = cell.unwrap_or_default();
                cell.split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect()
            };
            let name = names(cells.next()).remove(0);
            let uses = cells.next();
            let edges = if uses.is_some_and(|cell| cell.trim() == "anything") {
                Edges::Anything
            } else {
                Edges::Only(names(uses).into_iter().collect())
            };
            (name, edges)
        })
        .collect()
}

/// Normal and build dependencies of every workspace member on other members.
fn actual_edges() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata failed");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let members = packages.iter().map(name).collect::<BTreeSet<_>>();
    packages
        .iter()
        .map(|package| {
            let used = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .map(name)
                .filter(|used| members.contains(used))
                .collect();
            (name(package), used)
        })
        .collect()
}
