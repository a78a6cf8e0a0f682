//! Every scripted scenario.

use sim::{logs, script};

#[test]
fn all_scripts_hold() {
    let mut failures = Vec::new();
    let only = std::env::var("SIM_SCRIPT").ok();
    for path in script::all().expect("the scripts are there") {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let result =
            script::Script::load(&path).and_then(|script| logs::with(None, || script.run()));
        if let Err(error) = result {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
