//! What only some operating systems have.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    Signals, granted_buffer, host_name, owner_only, raise_descriptor_limit, reset_path_mtu,
};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::{
    Signals, granted_buffer, host_name, owner_only, raise_descriptor_limit, reset_path_mtu,
};

/// What somebody outside wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Stop when it hurts nobody; the second time at once.
    Terminate,
    /// Stop at once.
    Interrupt,
}
