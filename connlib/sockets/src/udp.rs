//! One non-blocking UDP socket with its offloads.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ip_packet::Ecn;
use quinn_udp::{EcnCodepoint, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::platform;

/// Kernel buffer wanted for sending. With the default of 208 KB, three super-datagrams fill it.
pub const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Kernel buffer wanted for receiving: as much as four TCP connections with windows of 4 MB have in flight. With 4 MB they
/// overflow it now and then; with the default of 208 KB thousands of datagrams are lost in a burst. Memory is only used
/// while something waits.
pub const RECEIVE_BUFFER_BYTES: usize = 16 * 1024 * 1024;

/// A buffer below this, in either direction, loses bursts of a single connection; somebody should look.
const NEEDED_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Called with every new socket before it is bound, e.g. to set a mark that keeps it out of the tunnel.
pub type Prepare = Arc<dyn Fn(&Socket) -> io::Result<()> + Send + Sync>;

/// How a socket is made.
#[derive(Clone)]
pub struct SocketOptions {
    /// Called before the socket is bound.
    pub prepare: Option<Prepare>,
    /// Send many datagrams per call (GSO) where the kernel can.
    pub gso: bool,
    /// Receive many datagrams per buffer (GRO) where the kernel can.
    pub gro: bool,
    /// Kernel buffer wanted for receiving, in bytes.
    pub receive_buffer_bytes: usize,
    /// Kernel buffer wanted for sending, in bytes.
    pub send_buffer_bytes: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            prepare: None,
            gso: true,
            gro: true,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            send_buffer_bytes: SEND_BUFFER_BYTES,
        }
    }
}

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    gso: bool,
    gro: bool,
}

/// What became of a batch, or of the part that was tried.
#[derive(Debug)]
pub(crate) enum Sent {
    /// So many bytes left; call again for the rest.
    Bytes(usize),
    /// The kernel takes nothing now.
    WouldBlock,
    /// The kernel refuses the first so many bytes for good.
    Refused(usize, io::Error),
}

impl UdpSocket {
    /// Binds `address`. An IPv6 socket takes IPv6 only.
    pub fn bind(address: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            platform::configure(&socket);
        }
        if let Some(prepare) = &options.prepare {
            prepare(&socket)?;
        }
        let (receive, send) = platform::enlarge_buffers(
            &socket,
            options.receive_buffer_bytes,
            options.send_buffer_bytes,
        )?;
        let wanted = options
            .receive_buffer_bytes
            .min(options.send_buffer_bytes)
            .min(NEEDED_BUFFER_BYTES);
        if receive.min(send) < wanted {
            tracing::warn!(
                wanted,
                receive,
                send,
                "the system limits UDP buffers; raise net.core.rmem_max and net.core.wmem_max to avoid losses"
            );
        }
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        Ok(Self {
            local: socket.local_addr()?,
            state: configured(&socket, options.gro)?,
            socket,
            gso: options.gso,
            gro: options.gro,
        })
    }

    /// The bound address; unspecified unless one was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The socket itself, for registration with a poll.
    pub fn as_std(&self) -> &std::net::UdpSocket {
        &self.socket
    }

    /// Datagrams that one call can send; 1 without offload.
    pub fn max_segments(&self) -> usize {
        match self.gso {
            true => self.state.max_gso_segments().max(1),
            false => 1,
        }
    }

    pub(crate) fn state(&self) -> &UdpSocketState {
        &self.state
    }

    /// Sends the first datagrams of `batch`: all of `segment_size` bytes, the last perhaps shorter.
    pub(crate) fn send(
        &mut self,
        source: Option<IpAddr>,
        destination: SocketAddr,
        ecn: Ecn,
        batch: &[u8],
        segment_size: usize,
    ) -> Sent {
        let whole = batch
            .len()
            .min(segment_size.saturating_mul(self.max_segments()));
        let part = &batch[..whole];
        match self.transmit(source, destination, ecn, part, segment_size) {
            Ok(()) => Sent::Bytes(whole),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::WouldBlock,
            Err(error) if whole > segment_size && is_offload_failure(&error) => {
                let first = &part[..segment_size];
                self.send_without_offload(source, destination, ecn, first)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.forgive();
                Sent::Refused(whole, error)
            }
            Err(error) => Sent::Refused(whole, error),
        }
    }

    /// A batch was refused in a way that means "no offload on this path" or "this source address is gone"; the library
    /// has switched the offload off. One datagram by itself tells which it was.
    fn send_without_offload(
        &mut self,
        source: Option<IpAddr>,
        destination: SocketAddr,
        ecn: Ecn,
        first: &[u8],
    ) -> Sent {
        match self.transmit(source, destination, ecn, first, first.len()) {
            Ok(()) => {
                tracing::warn!(
                    "the system refuses UDP segmentation offload; sending datagrams one by one"
                );
                self.gso = false;
                Sent::Bytes(first.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::WouldBlock,
            Err(error) => {
                self.forgive();
                Sent::Refused(first.len(), error)
            }
        }
    }

    /// Takes back what the library concluded from an error that was not the offload's fault: a stale source address must
    /// not slow the socket down for ever.
    fn forgive(&mut self) {
        if let Ok(state) = configured(&self.socket, self.gro) {
            self.state = state;
        }
    }

    fn transmit(
        &self,
        source: Option<IpAddr>,
        destination: SocketAddr,
        ecn: Ecn,
        contents: &[u8],
        segment_size: usize,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination,
            ecn: EcnCodepoint::from_bits(ecn.to_bits()),
            contents,
            segment_size: (segment_size < contents.len()).then_some(segment_size),
            src_ip: source,
        };
        self.state
            .try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

/// Sets the options that the library needs, among them "non-blocking": a blocking socket would wait until all receive
/// buffers are full.
fn configured(socket: &std::net::UdpSocket, gro: bool) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    platform::disable_timestamps(socket)?;
    if !gro {
        platform::disable_gro(socket)?;
    }
    Ok(state)
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for UdpSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What Linux answers when an adapter cannot do the offload: EINVAL or EIO.
fn is_offload_failure(error: &io::Error) -> bool {
    /// EIO, the same number wherever this matters.
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::InvalidInput || error.raw_os_error() == Some(EIO)
}
