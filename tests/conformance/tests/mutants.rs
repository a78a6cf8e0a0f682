//! Every mutation still has its place in the sources; running them takes long and is `--bin mutants`.

use std::{collections::BTreeMap, fs};

use conformance::{
    mutants::{self, Plan},
    workspace_root,
};

#[test]
fn every_mutation_applies() {
    let root = workspace_root();
    for mutation in mutants::all().expect("the mutations can be read") {
        let Plan::Test { edits, .. } = &mutation.plan else {
            continue;
        };
        let mut files = BTreeMap::new();
        for edit in edits {
            let text = files.entry(&edit.file).or_insert_with(|| {
                fs::read_to_string(root.join(&edit.file))
                    .unwrap_or_else(|error| panic!("{}: {}: {error}", mutation.name, edit.file))
            });
            let places = text.matches(&edit.find).count();
            assert_eq!(
                places, 1,
                "{}: {}:\n{}",
                mutation.name, edit.file, edit.find
            );
            *text = text.replacen(&edit.find, &edit.replace, 1);
        }
    }
}

#[test]
fn every_mutation_is_there() {
    let mutations = mutants::all().expect("the mutations can be read");

    for number in 1..=57 {
        let name = format!("M{number}");
        let is_there = mutations
            .iter()
            .any(|mutation| mutation.name.trim_end_matches(char::is_alphabetic) == name);
        assert!(is_there, "{name}");
    }
}
