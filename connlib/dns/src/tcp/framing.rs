//! Length-prefixed messages in a byte stream (RFC 1035 §4.2.2): two bytes length, big endian, then as many bytes.

use smoltcp::socket::tcp::Socket;

/// Bytes of the length.
const PREFIX: usize = 2;
/// Bytes of a DNS header: no message is shorter.
pub(super) const MIN_MESSAGE: usize = 12;

/// The stream cannot be understood any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BrokenStream;

/// Takes the next message out of the receive buffer, once it is there completely; later messages stay.
pub(super) fn read_message(socket: &mut Socket<'_>) -> Result<Option<Vec<u8>>, BrokenStream> {
    let available = socket.recv_queue();
    if available < PREFIX {
        return Ok(None);
    }
    let mut prefix = [0; PREFIX];
    socket.peek_slice(&mut prefix).map_err(|_| BrokenStream)?;
    let len = usize::from(u16::from_be_bytes(prefix));
    if len < MIN_MESSAGE {
        return Err(BrokenStream);
    }
    if available < PREFIX + len {
        return Ok(None);
    }
    socket.recv_slice(&mut prefix).map_err(|_| BrokenStream)?;
    let mut message = vec![0; len];
    socket.recv_slice(&mut message).map_err(|_| BrokenStream)?;
    Ok(Some(message))
}

/// Whether [`write_message`] has room for a message of this length.
pub(super) fn has_room(socket: &Socket<'_>, len: usize) -> bool {
    socket.may_send() && socket.send_capacity() - socket.send_queue() >= PREFIX + len
}

/// Writes a message of which [`has_room`] says that it fits.
pub(super) fn write_message(socket: &mut Socket<'_>, message: &[u8]) -> Result<(), BrokenStream> {
    let len = u16::try_from(message.len()).map_err(|_| BrokenStream)?;
    for part in [&len.to_be_bytes()[..], message] {
        if socket.send_slice(part) != Ok(part.len()) {
            return Err(BrokenStream);
        }
    }
    Ok(())
}

/// The id of a message of at least [`MIN_MESSAGE`] bytes.
pub(super) fn message_id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// Whether a message of at least [`MIN_MESSAGE`] bytes is a response.
pub(super) fn is_response(message: &[u8]) -> bool {
    message[2] & 0x80 != 0
}
