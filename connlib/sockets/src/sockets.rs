//! The pair of sockets of one data thread: IPv4 and IPv6-only.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::PREFERRED_PORT;
use crate::udp::{SocketOptions, UdpSocket};

/// IP version of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are looked at.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family that reaches `address`.
    pub fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    fn unspecified(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            Self::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        }
    }
}

/// Neither family can be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a UDP socket: {v4} (IPv4), {v6} (IPv6)")]
pub struct BindError {
    v4: io::Error,
    v6: io::Error,
}

/// Both sockets. One of them may be missing where the system lacks its family.
pub struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    options: SocketOptions,
}

impl Sockets {
    /// Binds the preferred port on all addresses, or any free port where it is taken. For process start.
    pub fn bind(options: SocketOptions) -> Result<Self, BindError> {
        Self::bind_to(PREFERRED_PORT, options)
    }

    /// Like [`Self::bind`] with another preferred port; 0 takes any.
    pub fn bind_to(preferred: u16, options: SocketOptions) -> Result<Self, BindError> {
        let (v4, v6) = open_both(preferred, &options)?;
        Ok(Self { v4, v6, options })
    }

    /// Replaces both sockets by fresh ones on ports that no relay or NAT has seen. For every reset after the start. On
    /// failure the old ones are gone too, and another call may succeed.
    pub fn rebind(&mut self) -> Result<(), BindError> {
        (self.v4, self.v6) = (None, None);
        (self.v4, self.v6) = open_both(0, &self.options)?;
        Ok(())
    }

    /// The socket of a family.
    pub fn get(&self, family: Family) -> Option<&UdpSocket> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// The socket of a family, for sending.
    pub fn get_mut(&mut self, family: Family) -> Option<&mut UdpSocket> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }

    /// The sockets that exist.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &UdpSocket)> {
        Family::ALL
            .into_iter()
            .filter_map(|family| Some((family, self.get(family)?)))
    }

    /// Port bound by a family.
    pub fn port(&self, family: Family) -> Option<u16> {
        Some(self.get(family)?.local_address().port())
    }
}

fn open_both(
    preferred: u16,
    options: &SocketOptions,
) -> Result<(Option<UdpSocket>, Option<UdpSocket>), BindError> {
    match (
        open(Family::V4, preferred, options),
        open(Family::V6, preferred, options),
    ) {
        (Err(v4), Err(v6)) => Err(BindError { v4, v6 }),
        (v4, v6) => Ok((available(Family::V4, v4), available(Family::V6, v6))),
    }
}

fn open(family: Family, preferred: u16, options: &SocketOptions) -> io::Result<UdpSocket> {
    match UdpSocket::bind(family.unspecified(preferred), options) {
        Err(error) if preferred != 0 && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::info!(
                port = preferred,
                ?family,
                "the preferred UDP port is taken; using another"
            );
            UdpSocket::bind(family.unspecified(0), options)
        }
        result => result,
    }
}

fn available(family: Family, socket: io::Result<UdpSocket>) -> Option<UdpSocket> {
    socket
        .inspect_err(|error| tracing::info!(%error, ?family, "no UDP socket of this family"))
        .ok()
}
