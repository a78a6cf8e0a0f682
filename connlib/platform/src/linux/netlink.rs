//! What all users of netlink share: which errors are none (codes are negative), and the task that serves a socket.

use rtnetlink::Error;

/// Whether the kernel answered with one of these error numbers.
pub(super) fn is_code(error: &Error, codes: &[i32]) -> bool {
    match error {
        Error::NetlinkError(message) => codes.contains(&-message.raw_code()),
        _ => false,
    }
}

/// Errors of adding something that exists, or of a family that the kernel lacks.
pub(super) const ADD_IGNORED: [i32; 3] = [libc::EEXIST, libc::EOPNOTSUPP, libc::EAFNOSUPPORT];
/// Errors of removing what is gone.
pub(super) const REMOVE_IGNORED: [i32; 4] = [
    libc::ENOENT,
    libc::ESRCH,
    libc::EOPNOTSUPP,
    libc::EADDRNOTAVAIL,
];

/// A task that lives no longer than this value.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
