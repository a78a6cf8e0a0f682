//! Tells when the host's way into the network changed, so that the session can start afresh (clients spec §4).
//!
//! The kernel's routing decides, not a daemon's opinion: whenever links, addresses or routes change, the kernel is asked
//! from which address this program's sockets would now send. Works with every network manager and without any. Changes
//! that leave the way as it was (a container's bridge, our own interface, renewed leases) are none.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use futures_util::StreamExt as _;
use nix::{net::if_::InterfaceFlags, sys::socket::SockaddrStorage};
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;

use super::{netlink::AbortOnDrop, sockets::mark_socket};

/// Docking a laptop makes a burst of changes, and each reset drops every connection: act after this much silence.
const DEBOUNCE: Duration = Duration::from_millis(400);
/// Somewhere behind the default route. Nothing is ever sent there (documentation addresses, RFC 5737 and RFC 3849).
const SOMEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Watches the host's way into the network.
#[derive(Debug)]
pub struct NetworkChanges {
    changes: mpsc::Receiver<()>,
    _watcher: AbortOnDrop,
}

impl NetworkChanges {
    /// Starts watching, silently: only what changes from now on is told. `own_interface` is left out of account. Must be
    /// called inside a runtime.
    ///
    /// # Errors
    ///
    /// If the kernel offers no netlink socket. A program works on without, but must be told of a change (SIGHUP).
    pub fn watch(own_interface: &str) -> io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _handle, mut events) = rtnetlink::new_multicast_connection(&groups)?;
        // One waiting notice stands for all that follow it.
        let (notice, changes) = mpsc::channel(1);
        let observer = Observer::new(own_interface);
        let mut judge = Judge::new(observer.way());
        let watcher = tokio::spawn(async move {
            let _connection = AbortOnDrop(tokio::spawn(connection));
            while events.next().await.is_some() {
                judge.see(observer.way());
                while let Ok(Some(_)) = tokio::time::timeout(DEBOUNCE, events.next()).await {
                    judge.see(observer.way());
                }
                if judge.is_new() && notice.try_send(()).is_ok() {
                    tracing::debug!("The way into the network changed");
                }
            }
        });
        Ok(Self {
            changes,
            _watcher: AbortOnDrop(watcher),
        })
    }

    /// Waits for the next change. Never ends once the kernel stopped telling. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Looks at the way of this host.
#[derive(Debug)]
struct Observer {
    own_interface: String,
    /// There was no default route at the start, so nothing can be told from it.
    is_closed: bool,
}

impl Observer {
    fn new(own_interface: &str) -> Self {
        let mut this = Self {
            own_interface: own_interface.to_owned(),
            is_closed: false,
        };
        this.is_closed = this.way().is_none();
        this
    }

    fn way(&self) -> Way {
        let (own, others) = addresses(&self.own_interface);
        // With a default route but no address of its family, the kernel takes the loopback's or our own interface's.
        let is_foreign =
            |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified() && !own.contains(ip);
        let source = |towards| source_towards(towards).filter(is_foreign);
        Way {
            sources: SOMEWHERE.map(source),
            addresses: if self.is_closed {
                others
            } else {
                BTreeSet::new()
            },
        }
    }
}

/// From which addresses this program's sockets send.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    /// Towards the default route, by family.
    sources: [Option<IpAddr>; 2],
    /// In a closed network: every address that could be a source.
    addresses: BTreeSet<IpAddr>,
}

impl Way {
    fn is_none(&self) -> bool {
        self.sources == [None, None] && self.addresses.is_empty()
    }
}

/// Decides which ways are news.
#[derive(Debug)]
struct Judge {
    told: Way,
    now: Way,
    /// There was no way since the last notice: the next one leads into another network, even from the same address.
    was_lost: bool,
}

impl Judge {
    fn new(way: Way) -> Self {
        Self {
            was_lost: way.is_none(),
            told: way.clone(),
            now: way,
        }
    }

    fn see(&mut self, way: Way) {
        self.was_lost |= way.is_none();
        self.now = way;
    }

    /// Whether somebody should hear of it. Without any way there is nothing to start afresh with.
    fn is_new(&mut self) -> bool {
        let is_new = !self.now.is_none() && (self.was_lost || self.now != self.told);
        if is_new {
            self.told = self.now.clone();
            self.was_lost = false;
        }
        is_new
    }
}

/// The source address that the kernel chooses; connecting a UDP socket sends nothing.
fn source_towards(destination: IpAddr) -> Option<IpAddr> {
    let unspecified: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0)).ok()?;
    // Past our own routes, as the data path's sockets.
    mark_socket(socket.as_fd()).ok()?;
    socket.connect(SocketAddr::new(destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Addresses of the interface called `own`, and those of all others that could be a source.
fn addresses(own: &str) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let (mut owned, mut others) = (BTreeSet::new(), BTreeSet::new());
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(ip) = interface.address.as_ref().and_then(ip_of) else {
            continue;
        };
        if interface.interface_name == own {
            owned.insert(ip);
        } else if interface.flags.contains(InterfaceFlags::IFF_RUNNING)
            && !ip.is_loopback()
            && !is_link_local(&ip)
        {
            others.insert(ip);
        }
    }
    (owned, others)
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic anywhere")]
mod tests {
    use std::process::Command;

    use super::*;

    fn way(last: u8) -> Way {
        Way {
            sources: [Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, last))), None],
            addresses: BTreeSet::new(),
        }
    }

    fn no_way() -> Way {
        Way {
            sources: [None, None],
            addresses: BTreeSet::new(),
        }
    }

    #[test]
    fn another_address_is_news_once() {
        let mut judge = Judge::new(way(1));
        judge.see(way(1));
        assert!(!judge.is_new());
        judge.see(way(2));
        assert!(judge.is_new());
        assert!(!judge.is_new());
    }

    #[test]
    fn a_loss_is_none_and_the_return_is_news_even_from_the_same_address() {
        let mut judge = Judge::new(way(1));
        judge.see(no_way());
        assert!(!judge.is_new());
        judge.see(way(1));
        assert!(judge.is_new());
    }

    #[test]
    fn a_loss_within_a_burst_is_not_missed() {
        let mut judge = Judge::new(way(1));
        judge.see(no_way());
        judge.see(way(1));
        assert!(judge.is_new());
    }

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "ip {arguments}");
    }

    /// Whether a change is told within two seconds.
    async fn is_told(changes: &mut NetworkChanges) -> bool {
        tokio::time::timeout(Duration::from_secs(2), changes.changed())
            .await
            .is_ok()
    }

    /// Runs a test in a network namespace of its own.
    fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
        let body = || {
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                return println!("skipped: no permission to make a network namespace: {error}");
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test());
        };
        std::thread::spawn(body).join().unwrap();
    }

    fn add_uplink() {
        ip("link add uplink type veth peer name far");
        ip("addr add 198.51.100.7/24 dev uplink");
        ip("link set far up");
        ip("link set uplink up");
    }

    // clients 56: network changes are detected without D-Bus.
    #[test]
    fn kernel_tells_once_per_burst() {
        in_namespace(|| async {
            add_uplink();
            ip("route add default via 198.51.100.1");
            let mut changes = NetworkChanges::watch("tun-test").unwrap();
            assert!(!is_told(&mut changes).await, "nothing changed yet");

            ip("link add bridge type veth peer name container");
            ip("addr add 10.0.0.1/24 dev bridge");
            ip("link set bridge up");
            assert!(!is_told(&mut changes).await, "traffic goes its old way");

            ip("addr del 198.51.100.7/24 dev uplink");
            ip("addr add 203.0.113.7/24 dev uplink");
            ip("route add default via 203.0.113.1");
            assert!(is_told(&mut changes).await, "another address");
            assert!(!is_told(&mut changes).await, "one burst is one change");

            ip("link set uplink down");
            assert!(!is_told(&mut changes).await, "no network is no new one");
            ip("link set uplink up");
            ip("route add default via 203.0.113.1");
            assert!(is_told(&mut changes).await, "back again");
        });
    }

    #[test]
    fn our_own_address_is_no_way() {
        in_namespace(|| async {
            ip("link set lo up");
            add_uplink();
            ip("route add default via 198.51.100.1");
            ip("-6 route add default dev uplink");
            let mut changes = NetworkChanges::watch("tun-test").unwrap();
            ip("link add tun-test type veth peer name other");
            ip("link set other up");
            ip("link set tun-test up");
            ip("-6 addr add fd00:2021:1111::1/128 dev tun-test nodad");
            assert!(!is_told(&mut changes).await);
        });
    }

    #[test]
    fn closed_network_is_judged_by_its_addresses() {
        in_namespace(|| async {
            add_uplink();
            let mut changes = NetworkChanges::watch("tun-test").unwrap();
            ip("addr add 203.0.113.7/24 dev uplink");
            assert!(is_told(&mut changes).await, "another address");
            ip("link add tun-test type veth peer name other");
            ip("link set other up");
            ip("addr add 100.64.0.1/32 dev tun-test");
            ip("link set tun-test up");
            assert!(!is_told(&mut changes).await, "our own interface");
        });
    }
}
