//! The whole set-up, once per process: file, filter and its replacement.

use connlib_logging::{Options, SetupError, Stdout, setup};

#[test]
fn lines_reach_the_file_through_the_filter() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        process: "firezone-test",
        version: "1.2.3",
        directives: Some("info,process::loud=debug".to_owned()),
        directory: Some(directory.path().to_owned()),
        stdout: Stdout::Human,
    };
    let guard = setup(&options).unwrap();
    let path = guard.path().unwrap().to_owned();
    tracing::info!(number = 7, "kept");
    tracing::debug!("dropped by the filter");
    tracing::debug!(target: "process::loud", "kept too");
    guard.set_filter("debug").unwrap();
    tracing::debug!("kept after the change");
    assert!(guard.set_filter("a=b=c=[").is_err());
    assert!(matches!(setup(&options), Err(SetupError::Twice(_))));
    drop(guard);

    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let messages: Vec<_> = lines
        .iter()
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        messages,
        [
            "firezone-test started",
            "kept",
            "kept too",
            "kept after the change"
        ]
    );
    assert_eq!(lines[0]["version"], "1.2.3");
    assert_eq!(lines[0]["directives"], "info,process::loud=debug");
    assert_eq!(lines[1]["number"], 7);
}
