//! One server or two behind one address, and what crosses between them, carried as the relay's threads carry it.
//!
//! Seen from outside the two are one: whatever holds for one holds for them together.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use relay_core::{
    AllocationPort, Command, Config, Family, Forwarder, Holder, Route, Server, Shard, StampSecret,
    Train, Users,
};

/// The relay's servers.
pub(super) struct Workers {
    servers: Vec<Server>,
    users: Users,
    #[cfg(test)]
    crossed: usize,
}

/// What is sent on.
#[derive(Default)]
pub(super) struct Sink(pub(super) Vec<(Route, Vec<u8>)>);

impl Forwarder for Sink {
    fn forward(&mut self, route: Route, payload: &[u8]) {
        self.0.push((route, payload.to_vec()));
    }
}

impl Workers {
    pub(super) fn new(config: &Config, count: u16, now: Instant, unix: Duration) -> Self {
        let secret: StampSecret = "5e".repeat(32).parse().expect("64 hexadecimal digits");
        let server = |index| {
            let shard = Shard::new(index, count).expect("the index is below the count");
            let config = Config {
                shard,
                max_allocations: shard.part_of(config.max_allocations),
                stamp_secret: Some(secret.clone()),
                ..config.clone()
            };
            let seed = [7 + index as u8; 32];
            Server::new(config, seed, now, unix).expect("the settings are sound")
        };
        Self {
            servers: (0..count).map(server).collect(),
            users: Users::default(),
            #[cfg(test)]
            crossed: 0,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.servers.len()
    }

    /// Datagrams that went from one server to the other.
    #[cfg(test)]
    pub(super) fn crossed(&self) -> usize {
        self.crossed
    }

    /// The settings; of what differs, the first server's.
    pub(super) fn config(&self) -> &Config {
        self.servers[0].config()
    }

    pub(super) fn stamp_secret(&self) -> &StampSecret {
        self.servers[0].stamp_secret()
    }

    pub(super) fn allocation_count(&self) -> usize {
        self.servers.iter().map(Server::allocation_count).sum()
    }

    pub(super) fn channel_count(&self) -> usize {
        self.servers.iter().map(Server::channel_count).sum()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.servers.iter().filter_map(Server::poll_timeout).min()
    }

    pub(super) fn set_unix_time(&mut self, unix: Duration, now: Instant) {
        for server in &mut self.servers {
            server.set_unix_time(unix, now);
        }
    }

    pub(super) fn drain(&mut self) {
        self.servers.iter_mut().for_each(Server::drain);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for server in &mut self.servers {
            server.handle_timeout(now);
        }
    }

    pub(super) fn handle_port_bound(&mut self, port: AllocationPort, family: Family, now: Instant) {
        self.owner(port).handle_port_bound(port, family, now);
    }

    pub(super) fn handle_port_failed(
        &mut self,
        port: AllocationPort,
        family: Family,
        now: Instant,
    ) {
        self.owner(port).handle_port_failed(port, family, now);
    }

    /// To the server that the system picks for this client; it always picks the same.
    pub(super) fn handle_client_input(
        &mut self,
        client: SocketAddr,
        train: Train<'_>,
        now: Instant,
        out: &mut Sink,
    ) {
        let index = usize::from(client.port()) % self.servers.len();
        let mut sink = Sink::default();
        self.servers[index].handle_client_input(client, train, now, &mut sink);
        for (route, payload) in sink.0 {
            let Route::ToSibling { port, from } = route else {
                out.0.push((route, payload));
                continue;
            };
            let owner = usize::from(self.shard().owner_of(port.get()));
            assert_ne!(owner, index, "a server has no business with itself");
            let relayed_by = self.shard().owner_of(from.port());
            assert_eq!(usize::from(relayed_by), index, "from somebody else's port");
            #[cfg(test)]
            {
                self.crossed += 1;
            }
            self.handle_peer_input(port, from.address(), Train::single(&payload), now, out);
        }
    }

    pub(super) fn handle_peer_input(
        &mut self,
        port: AllocationPort,
        from: SocketAddr,
        train: Train<'_>,
        now: Instant,
        out: &mut Sink,
    ) {
        self.owner(port)
            .handle_peer_input(port, from, train, now, out);
    }

    /// The next command, except for those about users, which are carried out here.
    pub(super) fn poll_command(&mut self) -> Option<Command> {
        let limit = self.config().allocations_per_username;
        loop {
            let mut servers = self.servers.iter_mut().zip(0..);
            let next = |(server, shard): (&mut Server, u16)| Some((shard, server.poll_command()?));
            let (shard, command) = servers.find_map(next)?;
            match command {
                Command::UserGained { username, client } => {
                    let oldest = self
                        .users
                        .gained(&username, Holder { shard, client }, limit);
                    if let Some(Holder { shard, client }) = oldest {
                        self.servers[usize::from(shard)].evict(&username, client);
                    }
                }
                Command::UserLost { username, client } => {
                    self.users.lost(&username, Holder { shard, client });
                }
                Command::CreateAllocation { port, family } => {
                    assert_eq!(self.shard().owner_of(port.get()), shard, "another's port");
                    return Some(Command::CreateAllocation { port, family });
                }
                command @ (Command::Send { .. } | Command::FreeAllocation { .. }) => {
                    return Some(command);
                }
            }
        }
    }

    fn owner(&mut self, port: AllocationPort) -> &mut Server {
        let index = self.shard().owner_of(port.get());
        &mut self.servers[usize::from(index)]
    }

    fn shard(&self) -> Shard {
        self.config().shard
    }
}
