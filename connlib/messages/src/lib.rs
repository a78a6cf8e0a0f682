//! The messages between portal and client, gateway or relay (portal protocol §2–§5, §9).
//!
//! One enum per component and direction: [`client::FromPortal`], [`client::ToPortal`], [`gateway::FromPortal`],
//! [`gateway::ToPortal`], [`relay::FromPortal`], and [`relay::Join`] as the relay's join payload. Each is read from and
//! written to the two frame members that this layer knows, `{"event": …, "payload": …}`; `topic` and `ref` belong to
//! the channel.
//!
//! Reading accepts the names of both generations of the protocol and follows the tolerance rules of §8: unknown members
//! are ignored, an unknown event is a typed `Unknown`, and a bad entry of a list costs only that entry. Writing uses the
//! older names; a portal asks [`Message::event`] for the name in the [`Dialect`] of the path that its peer came on.
//!
//! Secrets (preshared keys, TURN and ICE passwords, stamp secrets, ingest tokens) print as `…` with `Debug`.

#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
mod codec;
mod failure;
mod filter;
pub mod gateway;
mod gateway_resource;
mod ice;
mod interface;
mod key;
mod lenient;
pub mod relay;
mod relays;
mod resource;
mod secret;
mod shared;

pub use codec::{Dialect, Message, MessageError};
pub use failure::{FailureReason, ViolatedProperty};
pub use ice::{IceCredentials, MAX_CANDIDATES, is_candidate};
pub use interface::{ClientInterface, GatewayInterface};
pub use key::{Key, KeyError, PresharedKey};
pub use relays::{MAX_RELAY_USERS, REALM, RELAY_USERS_PARAMETER, Relay, RelayUser, RelaysPresence};
pub use secret::Secret;
pub use shared::{Authorization, Empty, FlowLogs, SnownetCapabilities};
