//! Linux and its relatives.

use std::{fs::OpenOptions, io, os::fd::AsRawFd, os::unix::fs::OpenOptionsExt as _};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{self, SignalKind};

use super::Signal;

/// Signals that end the program.
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Takes the signals over; call within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

pub(crate) fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// Makes files that only their owner can read.
pub(crate) fn owner_only(options: &mut OpenOptions) {
    options.mode(0o600);
}

/// Raises the soft limit of open files to the hard one and returns what is in force; `None` when it cannot be told.
pub(crate) fn raise_descriptor_limit() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    usize::try_from(limit).ok()
}

/// The buffer that was granted, from what the system reports: Linux counts its own book-keeping too (socket(7)).
pub(crate) fn granted_buffer(reported: usize) -> usize {
    match cfg!(target_os = "linux") {
        true => reported / 2,
        false => reported,
    }
}

/// Path-MTU discovery as the system has it. The batching library forbids fragmentation, which suits QUIC; a relay passes
/// on what it gets.
#[cfg(target_os = "linux")]
pub(crate) fn reset_path_mtu(socket: &impl AsRawFd, is_v6: bool) -> io::Result<()> {
    let (level, name, value) = match is_v6 {
        false => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_WANT,
        ),
        true => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_WANT,
        ),
    };
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed, and the value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn reset_path_mtu(_: &impl AsRawFd, _: bool) -> io::Result<()> {
    Ok(())
}
