//! The WebSocket channel between a component (client, gateway, relay) and the portal.
//!
//! | Module | Holds |
//! |---|---|
//! | [`frame`] | the JSON envelope of every message, in both directions; also used by the portal |
//! | [`login`] | login URL, token, device identity, display name |
//! | [`user_agent`](mod@user_agent) | the `User-Agent` header and the protocol version that it claims |
//! | [`error`] | why a connection failed, and which failures end the channel |
//! | [`http`] | what an HTTP answer to the upgrade means; `Retry-After` |
//! | [`backoff`] | when the next attempt is due and when to give up |
//! | [`channel`] | the pure state machine: join, heartbeat, queue, reconnect |
//! | [`take_from_environment`] | a token out of the environment of a program that starts |
//! | [`driver`] | sockets, TLS and clock around that state machine (tokio) |
//!
//! Everything but [`driver`] and [`take_from_environment`] is free of I/O: time is passed in, randomness is seeded.

#![deny(missing_docs)]

pub mod backoff;
pub mod channel;
pub mod driver;
pub mod error;
pub mod frame;
pub mod http;
pub mod login;
mod platform;
pub mod user_agent;

pub use channel::{Action, Config, Event, FirstConnect, PhoenixCore, SendError};
pub use driver::{Channel, Options, Resolver, SocketFactory};
pub use error::{ConnectionError, FatalError};
pub use frame::{Frame, FrameError, MAX_FRAME_BYTES, Message, Outgoing, Reply};
pub use login::{DeviceInfo, LoginUrl, LoginUrlError, Token, TokenPlacement, display_name};
pub use platform::take_from_environment;
pub use user_agent::{Component, OsInfo, ProtocolVersion, user_agent};
