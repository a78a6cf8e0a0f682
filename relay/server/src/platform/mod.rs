//! What only some operating systems have.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    Signals, granted_buffer, host_name, max_workers, no_core_dumps, no_timestamps, owner_only,
    raise_descriptor_limit, receive_overruns, reset_path_mtu, share_port, sleep_precisely,
};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::{
    Signals, granted_buffer, host_name, max_workers, no_core_dumps, no_timestamps, owner_only,
    raise_descriptor_limit, receive_overruns, reset_path_mtu, share_port, sleep_precisely,
};

/// What somebody outside wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Stop when it hurts nobody; the second time at once.
    Terminate,
    /// Stop at once.
    Interrupt,
}
