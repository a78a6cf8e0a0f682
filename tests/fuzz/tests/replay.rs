//! Every input of the committed corpora, and the seeds, run without a finding.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use fuzz::{Target, archive, targets};

/// Largest archive that is committed (bytes): corpora are minimised, not collected.
const MAX_ARCHIVE_BYTES: u64 = 300 * 1024;

fn committed(target: &Target) -> BTreeSet<Vec<u8>> {
    let file = fs::File::open(target.archive()).unwrap();
    archive::unpack(file).unwrap().into_values().collect()
}

#[test]
fn corpora_run_without_a_finding() {
    thread::scope(|scope| {
        for target in targets::ALL {
            scope.spawn(|| {
                let seeds = (target.seeds)();
                for input in committed(target).iter().chain(&seeds) {
                    let run = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
                    let name = archive::name_of(input);
                    assert!(run.is_ok(), "{}: finding in input {name}", target.name);
                }
            });
        }
    });
}

#[test]
fn archives_are_what_packing_writes() {
    for target in targets::ALL {
        let bytes = fs::read(target.archive()).unwrap();
        assert!(bytes.len() as u64 <= MAX_ARCHIVE_BYTES, "{}", target.name);
        let mut packed = Vec::new();
        archive::pack(&committed(target), &mut packed).unwrap();
        assert!(packed == bytes, "{}: run `corpus pack`", target.name);
    }
}

#[test]
fn every_target_has_a_fuzzer_and_a_corpus_and_no_others_exist() {
    let names: BTreeSet<_> = targets::ALL.iter().map(|it| it.name.to_owned()).collect();
    let stems = |folder: &str, suffix: &str| -> BTreeSet<String> {
        let files = fs::read_dir(fuzz::folder().join(folder)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names
            .filter_map(|name| Some(name.strip_suffix(suffix)?.replace('_', "-")))
            .collect()
    };
    assert_eq!(stems("libfuzzer/fuzz_targets", ".rs"), names);
    assert_eq!(stems("corpora", ".tar.gz"), names);
}
