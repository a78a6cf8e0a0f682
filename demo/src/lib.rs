//! The whole system on one machine: portal, relay, gateway, client and a private web server, as real processes in
//! network namespaces, with [`netsim`]'s NATs between them.
//!
//! | Module | Holds |
//! |---|---|
//! | [`scenario`] | the networks |
//! | [`launch`] | their command lines |
//! | [`system`] | starting and steering the processes |
//! | [`steps`] | what the demo does and checks |
//! | [`report`] | how it is shown |
//! | [`probe`] | what a user does on the client's machine |
//! | [`role`] | the one executable that is all of these processes |
//!
//! The end-to-end tests use the same modules.
#![deny(missing_docs)]

pub mod content;
pub mod http_server;
pub mod interrupt;
pub mod launch;
pub mod portal_files;
pub mod probe;
pub mod process;
pub mod report;
pub mod role;
pub mod scenario;
pub mod steps;
pub mod system;
