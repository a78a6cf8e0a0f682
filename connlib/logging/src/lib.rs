//! Logging of every program: human text on stdout, JSON lines in files, one filter for both.
//!
//! | Module | Holds |
//! |---|---|
//! | [`setup`](mod@setup) | installs everything; the guard that flushes it |
//! | [`filter`] | directives, and the noisy crates silenced in front of them |
//! | [`human`] | the text format |
//! | [`json`] | the JSON-lines format |
//! | [`file`](mod@file) | one file per process start, written in the background |
//! | [`cleanup`] | the size cap, and clearing on request |
//!
//! ```no_run
//! let guard = connlib_logging::setup(&connlib_logging::Options {
//!     process: "firezone-gateway",
//!     version: env!("CARGO_PKG_VERSION"),
//!     directives: std::env::var("RUST_LOG").ok(),
//!     directory: None,
//!     stdout: connlib_logging::Stdout::Human,
//! })?;
//! # Ok::<(), connlib_logging::SetupError>(())
//! ```

#![deny(missing_docs)]

pub mod cleanup;
pub mod file;
pub mod filter;
pub mod human;
pub mod json;
pub mod setup;
mod utc;

pub use setup::{Guard, Options, SetupError, Stdout, setup};
