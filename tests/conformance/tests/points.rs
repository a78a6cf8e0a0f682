//! The coverage points in the sources are those that the simulation demands, each in one crate.

use std::collections::BTreeSet;

use conformance::{sources, workspace_root};

#[path = "../../sim/src/coverage/points.rs"]
#[allow(unreachable_pub, reason = "public where it belongs, in `sim`")]
mod points;

#[test]
fn points_of_the_list_are_those_of_the_sources() {
    let listed: BTreeSet<_> = points::POINTS
        .iter()
        .map(|point| point.name.to_owned())
        .collect();

    assert_eq!(
        listed.len(),
        points::POINTS.len(),
        "a point is listed twice"
    );
    assert_eq!(listed, in_sources());
}

#[test]
fn minima_are_cases_of_256() {
    assert!(points::POINTS.iter().all(|point| point.min_cases <= 256));
    assert!(points::POINTS.iter().any(|point| point.min_cases > 1));
}

/// Names given to `cover!` outside of the macro's own crate.
fn in_sources() -> BTreeSet<String> {
    let root = workspace_root();
    let mut names = BTreeSet::new();
    for folder in ["connlib", "relay"] {
        let sources = sources::read(&root.join(folder), &["rs"]).expect("the sources can be read");
        let production = sources
            .iter()
            .filter(|source| !source.path.starts_with("cover/"));
        for source in production {
            for call in source.text.split("cover!(").skip(1) {
                let name = call
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next());
                names.insert(name.expect("a point's name is a literal").to_owned());
            }
        }
    }
    names
}
