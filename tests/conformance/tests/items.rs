//! Every item of the specifications has a test that names it.

use conformance::{items::Spec, table::Table, workspace_root};

fn table() -> Table {
    Table::of_workspace(&workspace_root()).expect("the sources can be read")
}

#[test]
fn every_item_has_a_test_or_is_void() {
    let table = table();

    for spec in Spec::ALL {
        let holes: Vec<_> = table
            .holes(spec)
            .iter()
            .map(|item| item.id.to_string())
            .collect();
        assert_eq!(
            holes,
            Vec::<String>::new(),
            "see `cargo run -p conformance`"
        );
    }
}

#[test]
fn tests_name_only_items_that_exist() {
    let unknown = table().unknown;
    let unknown: Vec<_> = unknown
        .iter()
        .map(|(test, item)| format!("{}: {item}", test.name))
        .collect();

    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn void_items_have_no_tests() {
    let table = table();
    let rows = Spec::ALL.into_iter().flat_map(|spec| table.rows(spec));
    let tested = rows.filter(|row| row.item.void.is_some() && !row.tests.is_empty());

    assert_eq!(tested.map(|row| row.item.id).collect::<Vec<_>>(), []);
}
