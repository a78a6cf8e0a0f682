//! One datagram per call, without marks and offloads.

use std::io;

use mio::net::UdpSocket;

use super::{Arrival, Departure, Ecn, MAX_MESSAGES};

pub(crate) fn prepare<T>(_: &T, _is_v6: bool, _offload: bool) -> io::Result<()> {
    Ok(())
}

pub(crate) fn can_segment<T>(_: &T) -> bool {
    false
}

pub(crate) struct Receiver {
    arrivals: [Arrival; MAX_MESSAGES],
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            arrivals: [Arrival::NONE; MAX_MESSAGES],
        }
    }

    /// Fills buffers with what is there, at most [`MAX_MESSAGES`] of them; returns how many are filled.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is there; what the system says otherwise.
    pub(crate) fn receive<'a>(
        &mut self,
        socket: &UdpSocket,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        let mut filled = 0;
        for (arrival, buffer) in self.arrivals.iter_mut().zip(buffers) {
            match socket.recv_from(buffer) {
                Ok((len, from)) => {
                    *arrival = Arrival {
                        from,
                        ecn: Ecn::default(),
                        len,
                        segment_size: len,
                    };
                    filled += 1;
                }
                Err(error) if filled == 0 => return Err(error),
                // It shows itself again at the next call.
                Err(_) => break,
            }
        }
        Ok(filled)
    }

    /// What the last call filled its buffers with, in their order.
    pub(crate) fn arrivals(&self) -> &[Arrival; MAX_MESSAGES] {
        &self.arrivals
    }
}

/// Sends one message; never several datagrams, see [`can_segment`].
pub(crate) fn send(socket: &UdpSocket, departure: &Departure<'_>) -> io::Result<()> {
    socket.send_to(departure.bytes, departure.to).map(drop)
}

/// Sends the first of several messages; returns that it is one.
pub(crate) fn send_many(socket: &UdpSocket, departures: &[Departure<'_>]) -> io::Result<usize> {
    let Some(first) = departures.first() else {
        return Ok(0);
    };
    send(socket, first).map(|()| 1)
}
