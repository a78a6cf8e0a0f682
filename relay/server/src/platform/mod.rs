//! What only some operating systems have.

pub(crate) mod datagrams;
pub(crate) mod scheduling;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    Signals, enlarge_receive_buffer, granted_buffer, host_name, is_refusal_of_size, max_workers,
    no_core_dumps, owner_only, raise_descriptor_limit, receive_overruns, share_port,
};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::{
    Signals, enlarge_receive_buffer, granted_buffer, host_name, is_refusal_of_size, max_workers,
    no_core_dumps, owner_only, raise_descriptor_limit, receive_overruns, share_port,
};

/// What somebody outside wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Stop when it hurts nobody; the second time at once.
    Terminate,
    /// Stop at once.
    Interrupt,
}
