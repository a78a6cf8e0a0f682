//! Linux: options that `socket2` does not know, set through `libc`.

use std::io;
use std::os::fd::AsRawFd;

use libc::c_int;
use socket2::Socket;

/// Linux's `IPV6_ADDR_PREFERENCES` (RFC 5014), absent from `libc`.
const IPV6_ADDR_PREFERENCES: c_int = 72;
/// Prefer public (stable) source addresses over temporary ones.
const IPV6_PREFER_SRC_PUBLIC: c_int = 0x0002;

/// Prefers stable source addresses, which outlive temporary ones. A kernel that cannot is no reason to fail.
pub(crate) fn configure(socket: &Socket) {
    let _ = set(
        socket,
        libc::IPPROTO_IPV6,
        IPV6_ADDR_PREFERENCES,
        IPV6_PREFER_SRC_PUBLIC,
    );
}

/// Takes back the receive time stamps that `quinn-udp` 0.6 asks for: with them, the control messages of a joined (GRO)
/// receive do not fit into its 96 bytes, and the congestion mark is what the kernel leaves out.
pub(crate) fn disable_timestamps(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)
}

/// Switches generic receive offload off again.
pub(crate) fn disable_gro(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 0)
}

/// Asks for so many bytes in each direction and returns what was granted (receive, send). Beyond the system's limit only
/// privileged processes get their wish.
pub(crate) fn enlarge_buffers(
    socket: &Socket,
    receive: usize,
    send: usize,
) -> io::Result<(usize, usize)> {
    let wish = |bytes| c_int::try_from(bytes).unwrap_or(c_int::MAX);
    if set(
        socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        wish(receive),
    )
    .is_err()
    {
        socket.set_recv_buffer_size(receive)?;
    }
    if set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wish(send)).is_err() {
        socket.set_send_buffer_size(send)?;
    }
    // The kernel doubles what it grants, for its own book-keeping (socket(7)).
    Ok((
        socket.recv_buffer_size()? / 2,
        socket.send_buffer_size()? / 2,
    ))
}

/// Whether the kernel refused a datagram for its size.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

fn set(socket: &impl AsRawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the value is an int that outlives the call.
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
