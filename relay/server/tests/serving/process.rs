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
    let salt = std::process::id() as u16 % 64 * 300;
    11_000 + salt + NEXT_PORT.fetch_add(PORTS + 2, Ordering::Relaxed)
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
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, first + PORTS + 1));
        let child = Command::new(env!("CARGO_BIN_EXE_firezone-relay"))
            .args([
                "--public-ip4-addr",
                PUBLIC_V4,
                "--public-ip6-addr",
                PUBLIC_V6,
            ])
            .args(["--listen-port", &first.to_string()])
            .args(["--lowest-port", &(first + 1).to_string()])
            .args(["--highest-port", &(first + PORTS).to_string()])
            .args(["--allow-peer-cidr", "127.0.0.0/8,::1/128"])
            .args(["--health-check-addr", &health.to_string()])
            .arg("--stamp-secret-file")
            .arg(&secret)
            .args(arguments)
            .env("FIREZONE_TOKEN", "token")
            .env("RUST_LOG", "debug")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            port: first,
            lowest: first + 1,
            health,
            _directory: directory,
        }
    }

    pub(crate) fn server(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.port)
    }

    /// Status and body of a health request; `None` while nobody listens.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.health).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let status = response.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = response.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
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

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User name and password, valid for an hour.
pub(crate) fn credentials(salt: &str) -> (String, String) {
    let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let expiry = unix_now.unwrap().as_secs() + 3600;
    let password = relay_password(expiry, SECRET, salt);
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
