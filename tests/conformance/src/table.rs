//! Item by item: the tests that show it.

use std::{collections::BTreeMap, fmt::Write as _, io, path::Path};

use crate::{
    items::{Item, ItemId, Spec},
    scan::{self, Test},
    sources,
};

/// The tests of this crate quote citations without being any.
const OWN: &str = "tests/conformance/";

/// The items of all specifications and the tests that name them.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Row>,
    /// Tests that name an item that does not exist.
    pub unknown: Vec<(Test, ItemId)>,
}

/// One item.
#[derive(Debug)]
pub struct Row {
    /// What is demanded.
    pub item: Item,
    /// Who shows it.
    pub tests: Vec<Test>,
}

impl Row {
    /// Neither shown by a test nor void.
    pub fn is_hole(&self) -> bool {
        self.tests.is_empty() && self.item.void.is_none()
    }
}

impl Table {
    /// Reads the sources of the workspace at `root`.
    ///
    /// # Errors
    ///
    /// A folder or file that cannot be read.
    pub fn of_workspace(root: &Path) -> io::Result<Self> {
        let sources = sources::read(root, &["rs", "ron", "json"])?;
        let others = sources
            .iter()
            .filter(|source| !source.path.starts_with(OWN));
        Ok(Self::of_tests(others.flat_map(scan::tests)))
    }

    fn of_tests(tests: impl Iterator<Item = Test>) -> Self {
        let mut by_item = BTreeMap::<ItemId, Vec<Test>>::new();
        for test in tests {
            for item in &test.items {
                by_item.entry(*item).or_default().push(test.clone());
            }
        }
        let items = Spec::ALL.into_iter().flat_map(Spec::items);
        let rows = items
            .map(|item| {
                let tests = by_item.remove(&item.id).unwrap_or_default();
                Row { item, tests }
            })
            .collect();
        let unknown = by_item
            .into_iter()
            .flat_map(|(item, tests)| tests.into_iter().map(move |test| (test, item)));
        Self {
            rows,
            unknown: unknown.collect(),
        }
    }

    /// The rows of one specification, in order.
    pub fn rows(&self, spec: Spec) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.item.id.spec == spec)
    }

    /// Items of one specification without a test.
    pub fn holes(&self, spec: Spec) -> Vec<&Item> {
        let holes = self.rows(spec).filter(|row| row.is_hole());
        holes.map(|row| &row.item).collect()
    }

    /// The rows of one specification as text, one line per item and one per test.
    pub fn render(&self, spec: Spec) -> String {
        let mut text = String::new();
        for Row { item, tests } in self.rows(spec) {
            let remark = match (item.void, tests.is_empty()) {
                (Some(decision), _) => format!("void: {decision}"),
                (None, true) => "NO TEST".to_owned(),
                (None, false) => String::new(),
            };
            let _ = writeln!(text, "{:<12}{}  {remark}", item.id.to_string(), item.title);
            for test in tests {
                let _ = writeln!(text, "{:14}{}  {}:{}", "", test.name, test.path, test.line);
            }
        }
        text
    }

    /// One line about one specification.
    pub fn summary(&self, spec: Spec) -> String {
        let count =
            |predicate: fn(&Row) -> bool| self.rows(spec).filter(|row| predicate(row)).count();
        format!(
            "{:<8}{:>3} items: {:>3} with tests, {} void, {} without a test",
            spec.name(),
            count(|_| true),
            count(|row| !row.tests.is_empty()),
            count(|row| row.item.void.is_some()),
            count(Row::is_hole),
        )
    }
}
