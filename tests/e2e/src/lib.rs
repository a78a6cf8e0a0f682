//! What the end-to-end scenarios are made of. The scenarios themselves are in `tests/scenarios/`.
//!
//! | Module | Holds |
//! |---|---|
//! | [`runner`] | command line, threads, results |
//! | [`case`](mod@case) | one scenario: its network, its body, and what is looked at after every scenario |
//! | [`logs`] | warnings and errors in the logs of the processes |
//! | [`traffic`] | traffic that goes on while things happen, and its gaps |
//! | [`resolver`] | a name server of the public internet, and questions to a name server |
//! | [`os_state`] | links, addresses, routes and rules of a host |
//! | [`cpu`] | CPU time of a process |
//! | [`role`] | the one executable that is all processes |
#![deny(missing_docs)]

pub mod case;
pub mod cpu;
pub mod logs;
pub mod os_state;
pub mod resolver;
pub mod role;
pub mod runner;
pub mod traffic;
