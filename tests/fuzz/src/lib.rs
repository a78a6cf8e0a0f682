//! Fuzz targets: each turns bytes into input for one part of the system, and judges what comes of it.
//!
//! A target is an ordinary function ([`Target::run`]) that panics on a finding. It has a *decoder*, which reads the bytes
//! positionally into something structured enough to get past the first check ([`input::Input`]), and an *oracle* that is
//! more than "no panic". The same functions are called from three places:
//!
//! * `tests/replay.rs`: every input of the committed corpora, with the ordinary toolchain, on each `cargo test`;
//! * `libfuzzer/`: libFuzzer, with the nightly toolchain, to find more (see `README.md`);
//! * the binary `corpus`, which also runs a single file for debugging.
//!
//! Invariant: a run depends on nothing but its bytes, apart from ephemeral keys and transaction ids, which decide nothing.
#![deny(missing_docs)]

pub mod archive;
pub mod input;
pub mod targets;

use std::path::PathBuf;

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the libFuzzer binary and of the corpus.
    pub name: &'static str,
    /// Decodes the bytes, runs the part and panics on a finding.
    pub run: fn(&[u8]),
    /// Inputs to start from where there is no corpus yet.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        targets::ALL.iter().find(|target| target.name == name)
    }

    /// Where the corpus is committed.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        folder()
            .join("corpora")
            .join(format!("{}.tar.gz", self.name))
    }
}

/// The folder of this crate.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
