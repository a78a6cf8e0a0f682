//! Finds the tests in the sources, and the items that each names.
//!
//! Three kinds of tests: functions with a test attribute, scenarios of the end-to-end harness (functions in
//! `tests/e2e/tests/scenarios/` with a comment that names an item), and scripts of the simulation (`tests/sim/scripts/`).

use std::collections::BTreeSet;

use crate::{citation, items::ItemId, sources::Source};

const SCENARIOS: &str = "tests/e2e/tests/scenarios/";
const SCRIPTS: &str = "tests/sim/scripts/";

/// A test that names at least one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Its function, or its file's stem.
    pub name: String,
    /// File, relative to the root.
    pub path: String,
    /// Line of the function, from 1.
    pub line: usize,
    /// What it says it shows.
    pub items: BTreeSet<ItemId>,
}

/// All tests of one file that name an item.
pub fn tests(source: &Source) -> Vec<Test> {
    if source.path.starts_with(SCRIPTS) {
        return script(source).into_iter().collect();
    }
    if !source.path.ends_with(".rs") {
        return Vec::new();
    }
    functions(source)
}

fn script(source: &Source) -> Option<Test> {
    let comments = source
        .text
        .lines()
        .filter(|line| line.trim_start().starts_with("//"));
    let items: BTreeSet<_> = comments
        .flat_map(|line| citation::in_comment(line.trim_start()))
        .collect();
    let file = source.path.rsplit('/').next()?;
    let test = Test {
        name: file.split('.').next()?.to_owned(),
        path: source.path.clone(),
        line: 1,
        items,
    };
    (!test.items.is_empty()).then_some(test)
}

/// What stands between the last blank line and here: comments and attributes of the function to come.
#[derive(Default)]
struct Heading {
    items: BTreeSet<ItemId>,
    is_test: bool,
    in_attribute: bool,
}

fn functions(source: &Source) -> Vec<Test> {
    let is_scenario = source.path.starts_with(SCENARIOS);
    let lines: Vec<&str> = source.text.lines().collect();
    let mut tests = Vec::new();
    let mut heading = Heading::default();
    for (index, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        if heading.in_attribute {
            heading.in_attribute = !trimmed.ends_with(']');
        } else if trimmed.starts_with("//") {
            heading.items.extend(citation::in_comment(trimmed));
        } else if trimmed.starts_with("#[") {
            heading.is_test |= is_test_attribute(trimmed);
            heading.in_attribute = !trimmed.ends_with(']');
        } else {
            let Heading {
                mut items, is_test, ..
            } = std::mem::take(&mut heading);
            let Some(name) = function_name(trimmed) else {
                continue;
            };
            let is_test = is_test || (is_scenario && !items.is_empty());
            items.extend(citation::in_name(name));
            items.extend(cited_inside(&lines[index..]));
            if is_test && !items.is_empty() {
                tests.push(Test {
                    name: name.to_owned(),
                    path: source.path.clone(),
                    line: index + 1,
                    items,
                });
            }
        }
    }
    tests
}

fn is_test_attribute(attribute: &str) -> bool {
    let inner = attribute.trim_start_matches("#[");
    inner.starts_with("test]") || inner.starts_with("tokio::test")
}

fn function_name(line: &str) -> Option<&str> {
    let mut line = line;
    for word in ["pub(crate) ", "pub(super) ", "pub ", "async "] {
        line = line.strip_prefix(word).unwrap_or(line);
    }
    let name = line.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

/// Items named by comments in the function's body; `lines` begin with its first line.
fn cited_inside(lines: &[&str]) -> BTreeSet<ItemId> {
    let Some((first, body)) = lines.split_first() else {
        return BTreeSet::new();
    };
    let indent = first.len() - first.trim_start().len();
    let end = format!("{:indent$}}}", "");
    body.iter()
        .take_while(|line| !line.starts_with(&end))
        .map(|line| line.trim_start())
        .filter(|line| line.starts_with("//"))
        .flat_map(citation::in_comment)
        .collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn scan(path: &str, text: &str) -> Vec<(String, Vec<String>)> {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let named = |test: Test| {
            let items = test.items.iter().map(ToString::to_string).collect();
            (test.name, items)
        };
        tests(&source).into_iter().map(named).collect()
    }

    #[test]
    fn finds_items_above_in_the_name_of_and_inside_a_test() {
        let text = "
    // tunnel 1
    #[test]
    fn tunnel_2_works() {
        // tunnel 3
        ok();
    }

    // tunnel 4
    fn helper() {}
";
        let found = scan("a/src/lib.rs", text);

        let items = ["tunnel 1", "tunnel 2", "tunnel 3"].map(str::to_owned);
        assert_eq!(found, [("tunnel_2_works".to_owned(), items.to_vec())]);
    }

    #[test]
    fn functions_that_do_not_run_as_tests_show_nothing() {
        assert_eq!(scan("a/src/lib.rs", "fn tunnel_63_helper() {}\n"), []);
        assert_eq!(
            scan("a/src/lib.rs", "#[cfg(test)]\nfn tunnel_63_helper() {}\n"),
            []
        );
    }

    #[test]
    fn a_blank_line_separates_a_comment_from_the_test() {
        assert_eq!(
            scan("a/src/lib.rs", "// tunnel 1\n\n#[test]\nfn works() {}\n"),
            []
        );
    }

    #[test]
    fn attributes_may_span_lines() {
        let text =
            "// relay 7\n#[tokio::test(\n    flavor = \"multi_thread\"\n)]\nasync fn works() {}\n";

        assert_eq!(
            scan("a.rs", text),
            [("works".to_owned(), vec!["relay 7".to_owned()])]
        );
    }

    #[test]
    fn scenarios_and_scripts_count() {
        let scenario = scan(
            "tests/e2e/tests/scenarios/idle.rs",
            "// tunnel 71\npub(crate) fn idle() {}\n",
        );
        assert_eq!(
            scenario,
            [("idle".to_owned(), vec!["tunnel 71".to_owned()])]
        );

        let script = scan(
            "tests/sim/scripts/idle-expiry.ron",
            "// snownet 43, 44\n(version: 1)\n",
        );
        let items = ["snownet 43", "snownet 44"].map(str::to_owned).to_vec();
        assert_eq!(script, [("idle-expiry".to_owned(), items)]);
    }
}
