//! Deterministic simulation of the whole data plane (testing §5).
//!
//! Production cores of client, gateway, relay and portal run on a simulated network in virtual time; a reference model
//! predicts what every packet must lead to, and assertions compare after every transition. Cases are generated
//! ([`generators`]) or written by hand ([`script`]); both are the same data ([`topology`], [`transition`]).

#![deny(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::unwrap_used,
        reason = "a test stops at the first surprise"
    )
)]

pub mod assertions;
pub mod case;
pub mod clock;
pub mod coverage;
pub mod dns;
pub mod generators;
pub mod logs;
pub mod model;
pub mod runner;
pub mod script;
pub mod sut;
pub mod topology;
pub mod trace;
pub mod transition;
