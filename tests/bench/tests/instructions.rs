//! A packet costs no more instructions than the committed budget (`instructions.json`) allows.
//!
//! Counting needs valgrind and an optimised build: `cargo test --release -p bench --test instructions`.

use std::process::Command;

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "instructions mean something in optimised builds only: cargo test --release -p bench --test instructions"
)]
fn a_packet_keeps_its_instruction_budget() {
    let output = Command::new(env!("CARGO_BIN_EXE_packet-cost"))
        .arg("count")
        .output()
        .expect("packet-cost starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    if errors.starts_with("cannot run: ") {
        // `.ci/run` fails on such a line.
        println!("{}", errors.trim());
        return;
    }
    println!("{table}");
    assert!(
        output.status.success(),
        "over budget; if that is on purpose: `packet-cost count --write`\n{table}\n{errors}"
    );
}
