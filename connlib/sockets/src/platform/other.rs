//! Systems without the extra options.

use std::io;

use socket2::Socket;

pub(crate) fn configure(_: &Socket) {}

pub(crate) fn disable_timestamps<T>(_: &T) -> io::Result<()> {
    Ok(())
}

pub(crate) fn disable_gro<T>(_: &T) -> io::Result<()> {
    Ok(())
}

/// Asks for so many bytes in each direction and returns what was granted (receive, send).
pub(crate) fn enlarge_buffers(
    socket: &Socket,
    receive: usize,
    send: usize,
) -> io::Result<(usize, usize)> {
    socket.set_recv_buffer_size(receive)?;
    socket.set_send_buffer_size(send)?;
    Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?))
}

/// Whether the kernel refused a datagram for its size.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    // EMSGSIZE of the BSDs, WSAEMSGSIZE of Windows.
    matches!(error.raw_os_error(), Some(40 | 10040))
}
