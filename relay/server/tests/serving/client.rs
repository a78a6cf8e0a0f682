//! A TURN client: the allocation of `connlib-turn-client` with a socket of its own.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use connlib_turn_client::{Allocation, Credentials, Server};

use super::process::{PATIENCE, credentials, socket};

pub(crate) struct Client {
    allocation: Allocation,
    pub(crate) socket: UdpSocket,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

impl Client {
    /// Starts to allocate at a server socket; the family of the socket follows.
    pub(crate) fn new(server: SocketAddr, salt: &str) -> Self {
        Self::with_credentials(server, credentials(salt))
    }

    pub(crate) fn with_credentials(
        server: SocketAddr,
        (username, password): (String, String),
    ) -> Self {
        let credentials = Credentials {
            username,
            password,
            realm: "firezone".to_owned(),
        };
        let (own, server) = match server {
            SocketAddr::V4(v4) => ("127.0.0.1:0", Server::V4(v4)),
            SocketAddr::V6(v6) => ("[::1]:0", Server::V6(v6)),
        };
        let socket = socket(own);
        socket
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let allocation = Allocation::new(server, credentials, "test", [1; 32], Instant::now());
        Self {
            allocation,
            socket,
            received: Vec::new(),
        }
    }

    /// Starts and waits for the relayed addresses, IPv4 first.
    pub(crate) fn allocated(server: SocketAddr, salt: &str) -> (Self, Vec<SocketAddr>) {
        let mut client = Self::new(server, salt);
        client.wait_until_allocated();
        let relayed = client.allocation.relayed_candidates();
        let mut relayed: Vec<_> = relayed.map(|candidate| candidate.addr()).collect();
        relayed.sort();
        (client, relayed)
    }

    pub(crate) fn wait_until_allocated(&mut self) {
        self.drive_until(|client| client.allocation.has_allocation());
    }

    /// Sends a payload through the relay, as soon as there is a channel.
    pub(crate) fn send(&mut self, peer: SocketAddr, payload: &[u8]) {
        self.bind(peer);
        let now = Instant::now();
        let framed = self
            .allocation
            .encode_channel_header(peer, payload.len() as u16, now);
        let framed = framed.unwrap();
        let datagram = [&framed.header[..], payload].concat();
        self.socket.send_to(&datagram, framed.server).unwrap();
    }

    /// Waits for a channel to the peer.
    pub(crate) fn bind(&mut self, peer: SocketAddr) {
        self.drive_until(|client| client.allocation.channel_to(peer, Instant::now()).is_some());
    }

    /// The next payload through the relay, and whose it is.
    pub(crate) fn receive(&mut self) -> (SocketAddr, Vec<u8>) {
        self.drive_until(|client| !client.received.is_empty());
        self.received.remove(0)
    }

    pub(crate) fn refresh(&mut self) {
        self.allocation.refresh(Instant::now());
        self.drive();
    }

    pub(crate) fn has_allocation(&mut self) -> bool {
        self.drive();
        self.allocation.has_allocation()
    }

    /// Waits until the client expects nothing from this relay any more.
    pub(crate) fn wait_until_given_up(&mut self) {
        self.drive_until(|client| {
            client.allocation.free_reason().is_some() || !client.allocation.has_allocation()
        });
    }

    fn drive_until(&mut self, condition: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "the relay does not answer as expected"
            );
            self.drive();
        }
    }

    /// Sends what is due and takes what arrives.
    fn drive(&mut self) {
        let now = Instant::now();
        self.allocation.handle_timeout(now);
        while let Some(transmit) = self.allocation.poll_transmit() {
            self.socket
                .send_to(&transmit.payload, transmit.dst)
                .unwrap();
        }
        let mut buffer = vec![0; 65_536];
        let Ok((len, from)) = self.socket.recv_from(&mut buffer) else {
            return;
        };
        let (datagram, now) = (&buffer[..len], Instant::now());
        match self.allocation.decapsulate(from, datagram, now) {
            Some(data) => self.received.push((data.peer, data.payload.to_vec())),
            None => {
                let local = self.socket.local_addr().unwrap();
                self.allocation.handle_input(local, from, datagram, now);
            }
        }
    }
}
