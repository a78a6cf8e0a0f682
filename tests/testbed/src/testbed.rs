//! Starting and steering a test network.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, bail};

use crate::{
    control::{Request, Response},
    host::Host,
    interface,
    namespace::{Namespace, die_with_parent},
    topology::{HostSpec, InterfaceSpec, Topology},
    worker::WORKER_ARGUMENT,
};

/// A running test network. Dropping it ends the worker; the namespaces go with the last process inside.
#[derive(Debug)]
pub struct Testbed {
    hosts: Vec<Host>,
    specs: Vec<HostSpec>,
    worker: Mutex<Worker>,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
}

impl Testbed {
    /// Makes the namespaces and devices and starts the worker. The calling thread must live as long as the testbed:
    /// processes die with the thread that started them.
    ///
    /// # Errors
    ///
    /// If namespaces or devices cannot be made (see [`crate::isolate`]), or the worker does not start.
    pub fn start(topology: &Topology) -> Result<Self> {
        let mut hosts = Vec::new();
        let mut devices = Vec::new();
        for spec in &topology.hosts {
            let (namespace, fds) = Namespace::create(&spec.etc, || interface::create_all(spec))
                .with_context(|| format!("cannot make host {}", spec.name))?;
            devices.extend(fds);
            hosts.push(Host {
                name: spec.name.clone(),
                namespace,
            });
        }
        let worker = Mutex::new(Worker::spawn(topology, devices)?);
        Ok(Self {
            hosts,
            specs: topology.hosts.clone(),
            worker,
        })
    }

    /// The host of this name.
    ///
    /// # Errors
    ///
    /// If the topology has none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        let host = self.hosts.iter().find(|host| host.name == name);
        host.with_context(|| format!("the test network has no host {name}"))
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Drops everything between two hosts from now on.
    ///
    /// # Errors
    ///
    /// If a host is unknown or the worker is gone.
    pub fn block(&self, a: &str, b: &str) -> Result<()> {
        let (a, b) = (a.to_owned(), b.to_owned());
        self.request(&Request::Block { a, b }).map(drop)
    }

    /// Undoes [`Self::block`].
    ///
    /// # Errors
    ///
    /// As [`Self::block`].
    pub fn unblock(&self, a: &str, b: &str) -> Result<()> {
        let (a, b) = (a.to_owned(), b.to_owned());
        self.request(&Request::Unblock { a, b }).map(drop)
    }

    /// Pulls the cable out of a host's first interface: nothing passes any more, its addresses are gone.
    ///
    /// # Errors
    ///
    /// If the host is unknown, the kernel refuses or the worker is gone.
    pub fn unplug(&self, host: &str) -> Result<()> {
        let interface = self.first_interface(host)?;
        self.move_to(host, interface, None, None)?;
        let device = &interface.device;
        self.host(host)?.run(|| interface::remove_addresses(device))
    }

    /// Plugs a host's first interface in again, with these addresses, behind the same edge as before.
    ///
    /// # Errors
    ///
    /// As [`Self::unplug`].
    pub fn plug(&self, host: &str, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Result<()> {
        let interface = self.first_interface(host)?;
        self.move_to(host, interface, v4, v6)?;
        let spec = InterfaceSpec {
            v4,
            v6,
            ..interface.clone()
        };
        self.host(host)?.run(|| interface::configure_again(&spec))
    }

    fn first_interface(&self, host: &str) -> Result<&InterfaceSpec> {
        let spec = self.specs.iter().find(|spec| spec.name == host);
        let interface = spec.and_then(|spec| spec.interfaces.first());
        interface.with_context(|| format!("the test network has no host {host} with an interface"))
    }

    fn move_to(
        &self,
        host: &str,
        interface: &InterfaceSpec,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Result<()> {
        self.request(&Request::Move {
            host: host.to_owned(),
            network: interface.network.clone(),
            v4,
            v6,
        })
        .map(drop)
    }

    /// Makes a NAT forget its mappings.
    ///
    /// # Errors
    ///
    /// If the edge is unknown or the worker is gone.
    pub fn flush_edge(&self, edge: &str) -> Result<()> {
        let edge = edge.to_owned();
        self.request(&Request::FlushEdge { edge }).map(drop)
    }

    /// Packets and bytes that one host has delivered to another so far.
    ///
    /// # Errors
    ///
    /// If a host is unknown or the worker is gone.
    pub fn delivered(&self, from: &str, to: &str) -> Result<(u64, u64)> {
        let (from, to) = (from.to_owned(), to.to_owned());
        match self.request(&Request::Counters { from, to })? {
            Response::Counters { packets, bytes } => Ok((packets, bytes)),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    fn request(&self, request: &Request) -> Result<Response> {
        let mut worker = self
            .worker
            .lock()
            .map_err(|_| anyhow::anyhow!("the testbed is broken"))?;
        match worker.request(request)? {
            Response::Error { message } => bail!("test network: {message}"),
            response => Ok(response),
        }
    }
}

impl Worker {
    fn spawn(topology: &Topology, devices: Vec<OwnedFd>) -> Result<Self> {
        let fds = devices.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(WORKER_ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // A Ctrl-C at the terminal is for the orchestrator, which still needs the network to say goodbye.
        command.process_group(0);
        die_with_parent(&mut command);
        pass_on(&mut command, fds.clone());
        let mut child = command.spawn().context("cannot start the network worker")?;

        let mut requests = child.stdin.take().context("worker without stdin")?;
        let responses = child.stdout.take().context("worker without stdout")?;
        serde_json::to_writer(&mut requests, &(topology, fds))?;
        requests.write_all(b"\n")?;
        Ok(Self {
            child,
            requests,
            responses: BufReader::new(responses),
        })
    }

    fn request(&mut self, request: &Request) -> Result<Response> {
        let gone = "the network worker has ended";
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.requests.write_all(line.as_bytes()).context(gone)?;
        line.clear();
        self.responses.read_line(&mut line).context(gone)?;
        serde_json::from_str(&line).context(gone)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The worker holds no state worth a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the child inherit descriptors that are closed on exec otherwise.
fn pass_on(command: &mut Command, fds: Vec<RawFd>) {
    // SAFETY: `fcntl` is a plain system call, safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for fd in &fds {
                if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
