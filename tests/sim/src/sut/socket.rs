//! A host's place on the network and its UDP sockets, for clients and gateways alike.

use std::net::{IpAddr, SocketAddr};

use connlib_snownet::Transmit;
use netsim::{EdgeId, HostId};

use crate::topology::{Families, addresses::Place};

/// The port at process start (design row 29).
const FIRST_PORT: u16 = 52625;

/// Where a node is.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) host: HostId,
    pub(crate) edge: Option<EdgeId>,
    pub(crate) place: Place,
    pub(crate) families: Families,
    /// Whether the IPv4 address is the private one of the place.
    pub(crate) is_behind_nat: bool,
    pub(crate) port: u16,
}

impl Attachment {
    /// The port that a process starts with.
    pub(crate) fn first_port() -> u16 {
        FIRST_PORT
    }

    /// Sockets of a new process.
    pub(crate) fn restart(&mut self) {
        self.port = FIRST_PORT;
    }

    /// New sockets after a reset: a port that was not used before.
    pub(crate) fn rebind(&mut self) {
        self.port = match self.port {
            FIRST_PORT => 40_000,
            port => port + 1,
        };
    }

    /// The host's own address of the family of `other`.
    pub(crate) fn own_ip(&self, other: IpAddr) -> Option<IpAddr> {
        if !self.families.has(other) {
            return None;
        }
        Some(match other {
            IpAddr::V4(_) if self.is_behind_nat => self.place.private_v4.into(),
            IpAddr::V4(_) => self.place.public_v4.into(),
            IpAddr::V6(_) => self.place.v6.into(),
        })
    }

    /// The source of a datagram, or `None` if the host has no address of its family.
    pub(crate) fn source(&self, transmit: &Transmit) -> Option<SocketAddr> {
        let own = self.own_ip(transmit.dst.ip());
        transmit
            .src
            .or_else(|| Some(SocketAddr::new(own?, self.port)))
    }

    /// Whether a datagram to this address belongs to one of the sockets.
    pub(crate) fn has_socket(&self, local: SocketAddr) -> bool {
        local.port() == self.port && self.own_ip(local.ip()) == Some(local.ip())
    }
}
