//! Scenarios: one per rule that the protocol has for portals, driven through the public interface in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and starts the clock"
)]

mod flows;
mod hostile;
mod logins;
mod relays;
mod reloads;
mod sessions;
mod world;
