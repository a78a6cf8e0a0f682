//! The forwarding process: reads the hosts' TUN devices, asks the model, writes the hosts' TUN devices.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, FromRawFd, RawFd},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result};
use netsim::{EdgeId, HostConfig, HostId, Network, Prefix, Tuple};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use crate::{
    control::{Request, Response},
    packet,
    topology::{InterfaceSpec, Topology},
};

/// First argument of the worker's command line.
pub(crate) const WORKER_ARGUMENT: &str = "__testbed-worker";
/// Packets read from one device before the others get their turn.
const READ_BUDGET: usize = 128;
/// Largest packet of a device (its MTU is 1500).
const MAX_PACKET: usize = 2048;
/// Packet buffers kept for re-use.
const MAX_POOLED: usize = 4096;

/// Becomes the worker if the command line says so; returns otherwise.
pub fn run_worker_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(WORKER_ARGUMENT) {
        return None;
    }
    let result = run();
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run() -> Result<()> {
    let mut first = String::new();
    let mut stdin = io::stdin().lock();
    read_line(&mut stdin, &mut first)?;
    let (topology, fds): (Topology, Vec<RawFd>) =
        serde_json::from_str(&first).context("malformed topology")?;
    Worker::new(&topology, &fds)?.run()
}

/// Reads a line byte by byte: the descriptor is polled afterwards, so nothing may sit in a buffer.
fn read_line(input: &mut impl Read, line: &mut String) -> Result<bool> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok(false);
        }
        if byte[0] == b'\n' {
            *line = String::from_utf8(bytes)?;
            return Ok(true);
        }
        bytes.push(byte[0]);
    }
}

struct Port {
    device: File,
    network: usize,
    host: HostId,
}

struct Worker {
    ports: Vec<Port>,
    networks: Vec<Network<Payload>>,
    /// Host name → its interfaces, as (network, host).
    hosts: BTreeMap<String, Vec<(usize, HostId)>>,
    edges: BTreeMap<String, (usize, EdgeId)>,
    /// Indices of the networks, by name.
    names: BTreeMap<String, usize>,
    pool: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Payload {
    bytes: Vec<u8>,
    sent: Tuple,
}

impl Worker {
    fn new(topology: &Topology, fds: &[RawFd]) -> Result<Self> {
        let names = topology.network_names();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&topology.seed.to_le_bytes());
        let mut worker = Self {
            ports: Vec::new(),
            networks: names.iter().map(|_| Network::new(seed)).collect(),
            hosts: BTreeMap::new(),
            edges: BTreeMap::new(),
            names: (0..)
                .zip(&names)
                .map(|(i, name)| ((*name).to_owned(), i))
                .collect(),
            pool: Vec::new(),
        };
        let network = |name: &str| {
            let found = names.iter().position(|n| *n == name);
            found.with_context(|| format!("unknown network {name}"))
        };

        for edge in &topology.edges {
            let index = network(&edge.network)?;
            let id = worker.networks[index].add_edge(edge.config());
            worker.edges.insert(edge.name.clone(), (index, id));
        }
        let mut fds = fds.iter();
        for host in &topology.hosts {
            for interface in &host.interfaces {
                let fd = fds.next().context("fewer devices than interfaces")?;
                let index = network(&interface.network)?;
                worker.add_interface(&host.name, interface, index, *fd)?;
            }
        }
        for (a, b) in &topology.blocked {
            worker.for_pairs(a, b, Network::block)?;
        }
        Ok(worker)
    }

    fn add_interface(
        &mut self,
        host: &str,
        spec: &InterfaceSpec,
        network: usize,
        fd: RawFd,
    ) -> Result<()> {
        let edge = match &spec.edge {
            Some(name) => Some(self.edge(name)?.1),
            None => None,
        };
        let routes = spec
            .serves
            .iter()
            .map(|range| Prefix {
                address: range.address,
                length: range.length,
            })
            .collect();
        let id = self.networks[network].add_host(HostConfig {
            name: host.to_owned(),
            v4: spec.v4,
            v6: spec.v6,
            routes,
            edge,
            link: spec.link.into(),
        });
        self.hosts
            .entry(host.to_owned())
            .or_default()
            .push((network, id));
        self.ports.push(Port {
            // SAFETY: the orchestrator passes descriptors that it opened for this process alone.
            device: unsafe { File::from_raw_fd(fd) },
            network,
            host: id,
        });
        Ok(())
    }

    fn run(mut self) -> Result<()> {
        loop {
            let timeout = self.until_next(Instant::now());
            let ready = self.wait(timeout)?;
            for port in ready.ports {
                self.read(port)?;
            }
            if ready.control && !self.serve_request()? {
                return Ok(());
            }
            self.deliver()?;
        }
    }

    fn until_next(&self, now: Instant) -> Option<TimeSpec> {
        let due = self
            .networks
            .iter()
            .filter_map(Network::poll_timeout)
            .min()?;
        Some(TimeSpec::from_duration(due.saturating_duration_since(now)))
    }

    fn wait(&self, timeout: Option<TimeSpec>) -> Result<Ready> {
        let stdin = io::stdin();
        let mut fds = self
            .ports
            .iter()
            .map(|port| PollFd::new(port.device.as_fd(), PollFlags::POLLIN))
            .collect::<Vec<_>>();
        fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd| fd.any().unwrap_or(false);
        Ok(Ready {
            control: fds.last().is_some_and(is_ready),
            ports: (0..self.ports.len())
                .filter(|i| is_ready(&fds[*i]))
                .collect(),
        })
    }

    /// Moves packets of one device into the model.
    fn read(&mut self, index: usize) -> Result<()> {
        let now = Instant::now();
        for _ in 0..READ_BUDGET {
            let mut bytes = self.pool.pop().unwrap_or_default();
            bytes.resize(MAX_PACKET, 0);
            let port = &mut self.ports[index];
            let length = match port.device.read(&mut bytes) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.recycle(bytes);
                    return Ok(());
                }
                Err(error) => {
                    return Err(error)
                        .context(format!("reading device {}", port.device.as_raw_fd()));
                }
            };
            bytes.truncate(length);
            let tuple =
                packet::classify(&bytes).filter(|tuple| packet::is_unicast(tuple.destination.ip()));
            let Some(sent) = tuple else {
                self.recycle(bytes);
                continue;
            };
            let (network, host) = (port.network, port.host);
            let payload = Payload { bytes, sent };
            self.networks[network].send(host, sent, length, payload, now);
        }
        Ok(())
    }

    /// Writes everything that has arrived.
    fn deliver(&mut self) -> Result<()> {
        let now = Instant::now();
        for index in 0..self.networks.len() {
            while let Some(delivery) = self.networks[index].poll_delivery(now) {
                let Payload { mut bytes, sent } = delivery.payload;
                packet::rewrite(&mut bytes, &sent, &delivery.tuple);
                let port = self
                    .ports
                    .iter_mut()
                    .find(|port| port.network == index && port.host == delivery.host)
                    .context("delivery to a host without a device")?;
                // A device that is down or full loses packets, as a cable does.
                let _ = port.device.write(&bytes);
                self.recycle(bytes);
            }
        }
        Ok(())
    }

    fn recycle(&mut self, bytes: Vec<u8>) {
        if self.pool.len() < MAX_POOLED {
            self.pool.push(bytes);
        }
    }

    /// Answers one request; `false` when the orchestrator is gone.
    fn serve_request(&mut self) -> Result<bool> {
        let mut line = String::new();
        if !read_line(&mut UnbufferedStdin, &mut line)? {
            return Ok(false);
        }
        let response = match serde_json::from_str(&line) {
            Ok(request) => self
                .execute(request)
                .unwrap_or_else(|error| Response::Error {
                    message: format!("{error:#}"),
                }),
            Err(error) => Response::Error {
                message: error.to_string(),
            },
        };
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &response)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
        Ok(true)
    }

    fn execute(&mut self, request: Request) -> Result<Response> {
        match request {
            Request::Block { a, b } => self.for_pairs(&a, &b, Network::block)?,
            Request::Unblock { a, b } => self.for_pairs(&a, &b, Network::unblock)?,
            Request::FlushEdge { edge } => {
                let (network, id) = self.edge(&edge)?;
                self.networks[network].flush_edge(id);
            }
            Request::Move {
                host,
                network,
                v4,
                v6,
            } => self.move_host(&host, &network, v4, v6)?,
            Request::Counters { from, to } => return self.counters(&from, &to),
        }
        Ok(Response::Done)
    }

    fn move_host(
        &mut self,
        host: &str,
        network: &str,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Result<()> {
        let index = self.names.get(network).copied();
        let interfaces = self.interfaces(host)?;
        let found = interfaces.iter().find(|(on, _)| Some(*on) == index);
        let (on, id) = *found.with_context(|| format!("{host} is not on network {network}"))?;
        let edge = self.networks[on].host(id).edge;
        self.networks[on].move_host(id, v4, v6, edge);
        Ok(())
    }

    fn counters(&self, from: &str, to: &str) -> Result<Response> {
        let (mut packets, mut bytes) = (0, 0);
        for (network, from) in self.interfaces(from)? {
            for (other, to) in self.interfaces(to)? {
                if network == other {
                    let delivered = self.networks[*network].delivered(*from, *to);
                    packets += delivered.packets;
                    bytes += delivered.bytes;
                }
            }
        }
        Ok(Response::Counters { packets, bytes })
    }

    fn for_pairs(
        &mut self,
        a: &str,
        b: &str,
        apply: fn(&mut Network<Payload>, HostId, HostId),
    ) -> Result<()> {
        let (left, right) = (self.interfaces(a)?.clone(), self.interfaces(b)?.clone());
        for (network, from) in left {
            for (other, to) in &right {
                if network == *other {
                    apply(&mut self.networks[network], from, *to);
                }
            }
        }
        Ok(())
    }

    fn interfaces(&self, host: &str) -> Result<&Vec<(usize, HostId)>> {
        self.hosts
            .get(host)
            .with_context(|| format!("unknown host {host}"))
    }

    fn edge(&self, name: &str) -> Result<(usize, EdgeId)> {
        let found = self.edges.get(name).copied();
        found.with_context(|| format!("unknown edge {name}"))
    }
}

struct Ready {
    ports: Vec<usize>,
    control: bool,
}

/// Standard input without the library's buffer.
struct UnbufferedStdin;

impl Read for UnbufferedStdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(io::stdin().as_fd(), buffer)?)
    }
}

impl Topology {
    /// Names of all networks, in a fixed order.
    fn network_names(&self) -> Vec<&str> {
        let interfaces = self.hosts.iter().flat_map(|host| &host.interfaces);
        let mut names = interfaces
            .map(|interface| interface.network.as_str())
            .chain(self.edges.iter().map(|edge| edge.network.as_str()))
            .collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        names
    }
}
