//! The relay as a process of its own.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant, SystemTime},
};

use connlib_stun::relay_password;

/// Nothing here takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// Not an address of this host: as behind a 1:1 NAT.
pub(crate) const PUBLIC_V4: &str = "198.51.100.7";
pub(crate) const PUBLIC_V6: &str = "2001:db8:7::7";
/// Ports of one relay.
pub(crate) const PORTS: u16 = 16;

/// Below the ports that the system hands out by itself; each relay of this process has its own.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub(crate) struct Relay {
    child: Child,
    pub(crate) port: u16,
    pub(crate) lowest: u16,
    health: SocketAddr,
    _directory: tempfile::TempDir,
}

/// First of the ports of a new relay: listen port, allocations, health. Fixed ones, because the system might give a free
/// port away again before the relay binds it.
pub(crate) fn ports() -> u16 {
    block(PORTS)
}

/// The same for a relay with so many ports for allocations.
pub(crate) fn block(allocations: u16) -> u16 {
    let salt = (std::process::id() % 16) as u16 * 1300;
    11_000 + salt + NEXT_PORT.fetch_add(allocations + 2, Ordering::Relaxed)
}

/// How a relay is started.
pub(crate) struct Launch<'a> {
    /// First of its ports.
    pub(crate) first: u16,
    /// Ports for allocations.
    pub(crate) allocations: u16,
    /// Content of the stamp secret file.
    pub(crate) secret: &'a str,
    /// Addresses that it advertises.
    pub(crate) public: [&'a str; 2],
    /// Shell command in front, such as `ulimit`.
    pub(crate) prelude: &'a str,
    pub(crate) arguments: &'a [&'a str],
}

impl<'a> Launch<'a> {
    pub(crate) fn new(first: u16, arguments: &'a [&'a str]) -> Self {
        Self {
            first,
            allocations: PORTS,
            secret: SECRET,
            public: [PUBLIC_V4, PUBLIC_V6],
            prelude: "true",
            arguments,
        }
    }

    /// Starts and waits until it is ready.
    pub(crate) fn ready(self) -> Relay {
        let relay = self.start();
        relay.wait_for("/readyz", 200);
        relay
    }

    pub(crate) fn start(self) -> Relay {
        let first = self.first;
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, self.secret).unwrap();
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, first + self.allocations + 1));
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{} && exec \"$0\" \"$@\"", self.prelude))
            .arg(env!("CARGO_BIN_EXE_firezone-relay"))
            .args(["--public-ip4-addr", self.public[0]])
            .args(["--public-ip6-addr", self.public[1]])
            .args(["--listen-port", &first.to_string()])
            .args(["--lowest-port", &(first + 1).to_string()])
            .args(["--highest-port", &(first + self.allocations).to_string()])
            .args(["--allow-peer-cidr", "127.0.0.0/8,::1/128"])
            .args(["--health-check-addr", &health.to_string()])
            .arg("--stamp-secret-file")
            .arg(&secret)
            .args(self.arguments)
            .env("FIREZONE_TOKEN", "token")
            .env("RUST_LOG", "debug")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Relay {
            child,
            port: first,
            lowest: first + 1,
            health,
            _directory: directory,
        }
    }
}

impl Relay {
    /// Stand-alone, portal profile, loopback peers allowed; waits until it is ready.
    pub(crate) fn standalone(more: &[&str]) -> Self {
        let arguments = ["--standalone", "--profile", "portal"];
        let relay = Self::start(ports(), &[&arguments[..], more].concat());
        relay.wait_for("/readyz", 200);
        relay
    }

    pub(crate) fn start(first: u16, arguments: &[&str]) -> Self {
        Launch::new(first, arguments).start()
    }

    pub(crate) fn health(&self) -> SocketAddr {
        self.health
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn server(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.port)
    }

    /// Status and body of a health request; `None` while nobody listens.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        http(self.health, "GET", path)
    }

    pub(crate) fn wait_for(&self, path: &str, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        while self.get(path).is_none_or(|(got, _)| got != status) {
            assert!(Instant::now() < deadline, "{path} does not answer {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn terminate(&self) {
        let id = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the relay does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Status and body of a request; `None` while nobody listens.
pub(crate) fn http(server: SocketAddr, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let status = response.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = response.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User name and password, valid for an hour.
pub(crate) fn credentials(salt: &str) -> (String, String) {
    credentials_from(SECRET, salt)
}

/// The same from another stamp secret.
pub(crate) fn credentials_from(secret: &str, salt: &str) -> (String, String) {
    let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let expiry = unix_now.unwrap().as_secs() + 3600;
    let password = relay_password(expiry, secret, salt);
    (format!("{expiry}:{salt}"), password)
}

/// A socket that gives up after a while.
pub(crate) fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// One datagram and its sender.
pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram arrives");
    buffer.truncate(len);
    (buffer, from)
}
