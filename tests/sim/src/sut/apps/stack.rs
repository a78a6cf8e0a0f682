//! User-space TCP for applications and servers: `smoltcp` on an interface that exists in memory only.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use ip_packet::{IpPacket, MAX_IP_SIZE, PacketRef};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{self, DeviceCapabilities, Medium},
    socket::tcp,
    time::Instant as StackInstant,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint},
};

/// Bytes of each socket buffer; applications exchange little, but a full-sized DNS answer must fit.
const BUFFER_SIZE: usize = 16_384;
/// How long to wait when the stack wants to be polled at once although polling has just changed nothing.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// A TCP/IP stack that takes packets for any address.
pub(crate) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Device,
    epoch: Instant,
    next_poll: Option<Instant>,
}

impl Stack {
    pub(crate) fn new(seed: u64, now: Instant) -> Self {
        let mut device = Device::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, StackInstant::ZERO);
        interface.set_any_ip(true);
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        interface.update_ip_addrs(|addresses| {
            for address in [IpCidr::new(v4.into(), 32), IpCidr::new(v6.into(), 128)] {
                addresses.push(address).expect("room for two addresses");
            }
        });
        let routes = interface.routes_mut();
        routes
            .add_default_ipv4_route(v4)
            .expect("room for two routes");
        routes
            .add_default_ipv6_route(v6)
            .expect("room for two routes");
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            device,
            epoch: now,
            next_poll: None,
        }
    }

    fn add(&mut self, patience: Option<Duration>, keep_alive: Option<Duration>) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_SIZE]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // The stack's time-out also counts silence, so it needs the keep-alive to run.
        socket.set_timeout(patience.map(Into::into));
        socket.set_keep_alive(keep_alive.map(Into::into));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    /// Opens a connection. `patience` is how long it goes on without an acknowledgement; `None` is for ever.
    pub(crate) fn connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        patience: Option<Duration>,
        keep_alive: Option<Duration>,
    ) -> SocketHandle {
        let handle = self.add(patience, keep_alive);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(self.interface.context(), endpoint(remote), endpoint(local))
            .expect("a fresh socket with specified addresses can connect");
        handle
    }

    /// Waits for one connection to this address.
    pub(crate) fn listen(&mut self, local: SocketAddr) -> SocketHandle {
        let handle = self.add(None, None);
        self.socket(handle)
            .listen(endpoint(local))
            .expect("a fresh socket with a specified port can listen");
        handle
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// Takes a packet and processes it.
    pub(crate) fn receive(&mut self, packet: PacketRef<'_>, now: Instant) {
        self.device.incoming = IpPacket::try_from(packet).ok();
        self.poll(now);
    }

    /// Lets the sockets send.
    pub(crate) fn poll(&mut self, now: Instant) {
        let stack_now = self.stack_time(now);
        self.interface
            .poll(stack_now, &mut self.device, &mut self.sockets);
        let next = self.interface.poll_at(stack_now, &self.sockets);
        self.next_poll = next.map(|at| {
            let at = self.epoch + Duration::from_micros(at.total_micros().max(0).cast_unsigned());
            at.max(now + MIN_PAUSE)
        });
    }

    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.next_poll
    }

    pub(crate) fn next_packet(&mut self) -> Option<IpPacket> {
        self.device.outgoing.pop_front()
    }

    fn stack_time(&self, now: Instant) -> StackInstant {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        StackInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

fn endpoint(socket: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(IpAddress::from(socket.ip()), socket.port())
}

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
        Some(TxToken(&mut self.outgoing))
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
        let packet = &mut buffer[..len];
        let result = write(packet);
        if let Ok(packet) = IpPacket::from_slice(packet) {
            self.0.push_back(packet);
        }
        result
    }
}
