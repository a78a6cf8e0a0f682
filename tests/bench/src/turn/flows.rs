//! Clients with allocations and bound channels, peers, and the lanes between them that a load fills.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use connlib_stun::ChannelNumber;
use serde::Serialize;
use socket2::SockAddr;

use crate::{
    datagrams,
    load::Version,
    turn::{
        client::Client,
        credentials::Accounts,
        network::{Addresses, Family},
    },
};

/// The channel of every client: numbers are scoped to the client, and one is enough.
const CHANNEL: ChannelNumber = ChannelNumber::MIN;

/// Which way the datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    /// Channel data to the server, plain datagrams from there.
    ClientToPeer,
    /// Plain datagrams to the server, channel data from there.
    PeerToClient,
    /// Half of them each way.
    Both,
    /// From client to client: channel data in and out, the peers being allocations of the same server.
    RelayRelay,
}

impl Direction {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientToPeer => "client-to-peer",
            Self::PeerToClient => "peer-to-client",
            Self::Both => "both",
            Self::RelayRelay => "relay-relay",
        }
    }
}

/// Where and as whom to allocate.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The TURN server of each version.
    pub(crate) server: Addresses,
    /// Its port.
    pub(crate) port: u16,
    /// User names and passwords.
    pub(crate) accounts: Accounts,
    /// Where clients and peers are.
    pub(crate) local: Addresses,
}

impl Target {
    fn server(&self, version: Version) -> SocketAddr {
        SocketAddr::new(self.server.of(version), self.port)
    }
}

/// One way of datagrams: from a socket, to where, and how they look there.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Index of the sender's socket.
    pub(crate) socket: usize,
    /// In front of each payload.
    pub(crate) header: Option<ChannelNumber>,
    /// `None` if the socket is connected.
    pub(crate) to: Option<SockAddr>,
}

/// Everything that a load needs. The clients come first among the sockets, then the peer, if there is one.
pub(crate) struct Flows {
    clients: Vec<Client>,
    peer: Option<UdpSocket>,
    /// What to send.
    pub(crate) lanes: Vec<Lane>,
}

impl Flows {
    /// Allocates and binds. Must be called on a thread in the clients' and peers' namespace.
    ///
    /// # Errors
    ///
    /// If the server refuses anything or does not answer.
    pub(crate) fn establish(
        target: &Target,
        family: Family,
        direction: Direction,
        allocations: usize,
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let mut clients = Vec::with_capacity(allocations);
        let mut relayed = Vec::with_capacity(allocations);
        for number in 0..allocations {
            progress(number)?;
            let mut client = connect(target, family.client(), number)?;
            let address = client.allocate(family.peer());
            relayed.push(address.with_context(|| format!("allocation {}", number + 1))?);
            clients.push(client);
        }
        let peer = match direction {
            Direction::RelayRelay => None,
            Direction::ClientToPeer | Direction::PeerToClient | Direction::Both => {
                let local = SocketAddr::new(target.local.of(family.peer()), 0);
                Some(UdpSocket::bind(local)?)
            }
        };
        for (number, client) in clients.iter_mut().enumerate() {
            let peer = match &peer {
                Some(peer) => peer.local_addr()?,
                None => relayed[partner(number)],
            };
            client.bind(CHANNEL, peer)?;
        }
        let this = Self {
            lanes: lanes(direction, &relayed),
            clients,
            peer,
        };
        for index in 0..this.sockets() {
            datagrams::prepare(this.socket(index))?;
        }
        Ok(this)
    }

    /// Number of sockets.
    pub(crate) fn sockets(&self) -> usize {
        self.clients.len() + usize::from(self.peer.is_some())
    }

    /// A socket by index.
    pub(crate) fn socket(&self, index: usize) -> &UdpSocket {
        match self.clients.get(index) {
            Some(client) => client.socket(),
            None => self.peer.as_ref().expect("the last socket is the peer's"),
        }
    }

    /// The client of a socket, `None` if it is the peer's.
    pub(crate) fn client(&mut self, index: usize) -> Option<&mut Client> {
        self.clients.get_mut(index)
    }

    /// Ways of datagrams that each client has; those of one client lie beside each other.
    pub(crate) fn lanes_per_client(&self) -> usize {
        self.lanes.len() / self.clients.len()
    }

    /// Number of clients.
    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Datagrams that did not fit into the sockets' buffers so far.
    pub(crate) fn drops(&self) -> u64 {
        (0..self.sockets())
            .map(|index| datagrams::drops(self.socket(index)))
            .sum()
    }

    /// Deletes the allocations.
    ///
    /// # Errors
    ///
    /// If the server refuses or does not answer.
    pub(crate) fn free(mut self) -> Result<()> {
        self.clients.iter_mut().try_for_each(Client::free)
    }
}

fn connect(target: &Target, version: Version, number: usize) -> Result<Client> {
    let socket = UdpSocket::bind(SocketAddr::new(target.local.of(version), 0))?;
    socket.connect(target.server(version))?;
    Ok(Client::new(socket, target.accounts.of(number)?))
}

/// Clients of a relay-relay load come in pairs.
fn partner(client: usize) -> usize {
    client ^ 1
}

fn lanes(direction: Direction, relayed: &[SocketAddr]) -> Vec<Lane> {
    let clients = relayed.len();
    let up = |client| Lane {
        socket: client,
        header: Some(CHANNEL),
        to: None,
    };
    let down = |client: usize| Lane {
        // The peer's socket follows those of the clients.
        socket: clients,
        header: None,
        to: Some(SockAddr::from(relayed[client])),
    };
    match direction {
        Direction::ClientToPeer | Direction::RelayRelay => (0..clients).map(up).collect(),
        Direction::PeerToClient => (0..clients).map(down).collect(),
        Direction::Both => (0..clients)
            .flat_map(|client| [up(client), down(client)])
            .collect(),
    }
}

/// Whether clients can be paired as the direction demands.
///
/// # Errors
///
/// A sentence for the person at the command line.
pub(crate) fn check(direction: Direction, allocations: usize) -> Result<()> {
    ensure!(
        direction != Direction::RelayRelay || allocations.is_multiple_of(2),
        "relay-relay pairs allocations with each other: give an even number of --allocations"
    );
    Ok(())
}
