//! Systems without the extras.

use std::{fs::OpenOptions, io};

use super::Signal;

/// Signals that end the program.
pub(crate) struct Signals;

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}

pub(crate) fn host_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}

pub(crate) fn owner_only(_: &mut OpenOptions) {}

pub(crate) fn raise_descriptor_limit() -> Option<usize> {
    None
}

pub(crate) fn enlarge_receive_buffer(socket: &socket2::Socket, bytes: usize) -> io::Result<()> {
    socket.set_recv_buffer_size(bytes)
}

pub(crate) fn receive_overruns<T>(_: &T) -> Option<u64> {
    None
}

/// The system does not spread datagrams over sockets that share a port.
pub(crate) fn max_workers() -> usize {
    1
}

pub(crate) fn share_port<T>(_: &T) -> io::Result<()> {
    Ok(())
}

pub(crate) fn no_core_dumps() {}

pub(crate) fn is_refusal_of_size(_: &io::Error) -> bool {
    false
}

pub(crate) fn granted_buffer(reported: usize) -> usize {
    reported
}
