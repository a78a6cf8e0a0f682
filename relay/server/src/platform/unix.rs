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

/// A dump of this process would contain the secret behind all credentials.
pub(crate) fn no_core_dumps() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "Cannot forbid core dumps, which contain secrets");
    }
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

/// Whether the system or its network adapter cannot send something of this size.
pub(crate) fn is_refusal_of_size(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EMSGSIZE))
}

/// Asks for a receive buffer of so many bytes; beyond the system's limit only privileged processes get their wish.
pub(crate) fn enlarge_receive_buffer(socket: &socket2::Socket, bytes: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if let Ok(wish) = libc::c_int::try_from(bytes)
        && set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wish).is_ok()
    {
        return Ok(());
    }
    socket.set_recv_buffer_size(bytes)
}

/// The buffer that was granted, from what the system reports: Linux counts its own book-keeping too (socket(7)).
pub(crate) fn granted_buffer(reported: usize) -> usize {
    match cfg!(target_os = "linux") {
        true => reported / 2,
        false => reported,
    }
}

/// Lets other sockets of this user be bound to the same port; the kernel spreads senders over them by their addresses.
#[cfg(target_os = "linux")]
pub(crate) fn share_port(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn share_port(_: &impl AsRawFd) -> io::Result<()> {
    Ok(())
}

/// Workers that can share a port: elsewhere the system gives all datagrams to one of the sockets.
pub(crate) fn max_workers() -> usize {
    match cfg!(target_os = "linux") {
        true => usize::from(u16::MAX),
        false => 1,
    }
}

/// Datagrams that the kernel had no room for, since the socket was made.
#[cfg(target_os = "linux")]
pub(crate) fn receive_overruns(socket: &impl AsRawFd) -> Option<u64> {
    /// From the kernel's `linux/sock_diag.h`: the number of values, and the place of the drops.
    const SK_MEMINFO_VARS: usize = 9;
    const SK_MEMINFO_DROPS: usize = 8;
    let mut values = [0_u32; SK_MEMINFO_VARS];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most `length` bytes to `values`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let is_complete = length as usize == size_of_val(&values);
    (result == 0 && is_complete).then(|| u64::from(values[SK_MEMINFO_DROPS]))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn receive_overruns(_: &impl AsRawFd) -> Option<u64> {
    None
}

/// Sets an option whose value is an int.
#[cfg(target_os = "linux")]
pub(super) fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
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
