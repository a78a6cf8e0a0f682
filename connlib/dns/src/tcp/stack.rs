//! The user-space TCP/IP stack: `smoltcp` on a network interface that exists in memory only.
//!
//! The interface has dummy loop-back addresses and takes packets for any address ("any IP"), since the real endpoints
//! are sentinels or the TUN addresses, which come and go. Only TCP packets are put in.

use ip_packet::{IpPacket, MAX_IP_SIZE, PacketRef};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Bytes of each socket buffer: one message of the largest size with its length in front, and a packet's worth more,
/// since windows are announced in units of two bytes and the last odd byte would wait for a window probe.
const BUFFER_SIZE: usize = 2 + u16::MAX as usize + MAX_IP_SIZE;

/// A connection over which nothing arrived for this long is dropped: applications and servers that vanished without a
/// farewell must not occupy sockets for ever. Longer than any look-up takes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Packets that may wait for [`Stack::next_packet`]; what is beyond that stays in the sockets' buffers. Room for the
/// largest message twice.
const MAX_OUTGOING: usize = 128;

/// How long to wait when the stack wants to be polled at once although polling has just changed nothing.
const MIN_PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Device,
    /// What the stack calls time zero.
    epoch: Instant,
    next_poll: Option<Instant>,
}

impl Stack {
    /// A stack without sockets; `seed` is where initial sequence numbers come from.
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        let mut device = Device::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, StackInstant::ZERO);
        interface.set_any_ip(true);
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        interface.update_ip_addrs(|addresses| {
            for address in [IpCidr::new(v4.into(), 32), IpCidr::new(v6.into(), 128)] {
                addresses
                    .push(address)
                    .expect("the interface has room for two addresses");
            }
        });
        let routes = interface.routes_mut();
        routes
            .add_default_ipv4_route(v4)
            .expect("the table has room for two routes");
        routes
            .add_default_ipv6_route(v6)
            .expect("the table has room for two routes");
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            device,
            epoch: now,
            next_poll: None,
        }
    }

    /// Adds a closed socket.
    pub(super) fn add_socket(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_SIZE]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_timeout(Some(IDLE_TIMEOUT.into()));
        // Messages are written whole, and acknowledged at once: nothing is gained by waiting.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    /// Removes a socket without a word to its peer.
    pub(super) fn remove_socket(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Starts a connection; false when the addresses do not allow one.
    pub(super) fn connect(
        &mut self,
        handle: SocketHandle,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(self.interface.context(), endpoint(remote), endpoint(local))
            .is_ok()
    }

    /// Puts a packet in; [`poll`](Self::poll) processes it.
    pub(super) fn receive(&mut self, packet: PacketRef<'_>) {
        self.device.incoming = IpPacket::try_from(packet).ok();
    }

    /// Processes the packet that came in and lets the sockets send.
    pub(super) fn poll(&mut self, now: Instant) {
        let stack_now = self.stack_time(now);
        self.interface
            .poll(stack_now, &mut self.device, &mut self.sockets);
        let next = self.interface.poll_at(stack_now, &self.sockets);
        self.next_poll = next.map(|at| {
            let at = self.epoch + Duration::from_micros(at.total_micros().max(0) as u64);
            match self.device.outgoing.is_empty() {
                true => at.max(now + MIN_PAUSE),
                false => at,
            }
        });
    }

    /// When to [`poll`](Self::poll) next.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        self.next_poll
    }

    /// The next packet that the sockets want to send.
    pub(super) fn next_packet(&mut self) -> Option<IpPacket> {
        self.device.outgoing.pop_front()
    }

    fn stack_time(&self, now: Instant) -> StackInstant {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        StackInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

/// As `smoltcp` calls it.
pub(super) fn endpoint(socket: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(IpAddress::from(socket.ip()), socket.port())
}

/// As the standard library calls it.
pub(super) fn socket_addr(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(IpAddr::from(endpoint.addr), endpoint.port)
}

/// One packet in, some packets out.
#[derive(Default)]
struct Device {
    incoming: Option<IpPacket>,
    outgoing: VecDeque<IpPacket>,
}

impl phy::Device for Device {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(RxToken, TxToken<'_>)> {
        let packet = self.incoming.take()?;
        Some((RxToken(packet), TxToken(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<TxToken<'_>> {
        (self.outgoing.len() < MAX_OUTGOING).then_some(TxToken(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MAX_IP_SIZE;
        capabilities
    }
}

struct RxToken(IpPacket);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0.as_slice())
    }
}

struct TxToken<'a>(&'a mut VecDeque<IpPacket>);

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut buffer = [0; MAX_IP_SIZE];
        // The stack honours the MTU.
        let packet = &mut buffer[..len];
        let result = write(packet);
        match IpPacket::from_slice(packet) {
            // Replies to single packets come without asking whether there is room.
            Ok(packet) if self.0.len() < 2 * MAX_OUTGOING => self.0.push_back(packet),
            Ok(_) => tracing::debug!("Too many packets wait to be sent"),
            Err(error) => tracing::debug!(%error, "User-space TCP made a bad packet"),
        }
        result
    }
}
