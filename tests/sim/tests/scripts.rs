//! Every scripted scenario, or with `SIM_SCRIPT=name` those whose name contains this; only the one that is called so, if
//! there is one.

use std::path::Path;

use sim::{logs, script};

#[test]
fn all_scripts_hold() {
    let mut failures = Vec::new();
    let scripts = script::all().expect("the scripts are there");
    let only = std::env::var("SIM_SCRIPT").unwrap_or_default();
    let is_called_so = scripts.iter().any(|path| name(path) == only);
    let scripts: Vec<_> = scripts
        .iter()
        .filter(|path| match is_called_so {
            true => name(path) == only,
            false => name(path).contains(&only),
        })
        .collect();
    assert!(!scripts.is_empty(), "no script is called {only}");
    for path in scripts {
        let result =
            script::Script::load(path).and_then(|script| logs::with(None, || script.run()));
        if let Err(error) = result {
            failures.push(format!("{}: {error:#}", name(path)));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}
