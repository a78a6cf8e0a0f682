//! Traffic as QUIC sends it: trains of equal datagrams by segmentation offload, a window's worth under way, acknowledged.
//!
//! Not the protocol: no encryption and no congestion control, which would be measured instead of the tunnel. A receiver
//! acknowledges what a receive call has brought; a sender keeps a window full and gives up what is not acknowledged
//! in time.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::interrupt;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use testbed::Host;

use crate::{
    datagrams::{self, Inbox, Outbox},
    load::{DATAGRAM, Direction, Transfer, Version},
};

/// Ports of the server, one for each direction.
const PORTS: [u16; 2] = [5301, 5302];
/// Most datagrams under way: 20 full trains.
const WINDOW: u64 = 1024;
/// What nothing acknowledges for so long is lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long both sides may take to find each other.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
const GREETING: &[u8] = b"hello";
/// How long a receiver listens after the sender has stopped.
const DRAIN: Duration = Duration::from_millis(300);

/// Sends between a client and an address of a server for so long.
pub(crate) fn run(
    client: &Host,
    server: (&Host, IpAddr),
    direction: Direction,
    length: Duration,
) -> Result<Transfer> {
    let flows = match direction {
        Direction::Forward => vec![(PORTS[0], Role::Sender)],
        Direction::Reverse => vec![(PORTS[1], Role::Receiver)],
        Direction::Both => vec![(PORTS[0], Role::Sender), (PORTS[1], Role::Receiver)],
    };
    let (host, ip) = server;
    thread::scope(|scope| {
        let running = flows.into_iter().map(|(port, role)| {
            let address = SocketAddr::new(ip, port);
            let serving = scope
                .spawn(move || host.run(move || role.opposite().play(&accept(address)?, length)));
            let asking =
                scope.spawn(move || client.run(move || role.play(&connect(address)?, length)));
            [serving, asking]
        });
        let mut total = Transfer {
            slower_bits_per_second: f64::INFINITY,
            ..Transfer::default()
        };
        for sides in running.collect::<Vec<_>>() {
            let mut flow = Flow::default();
            for side in sides {
                let side = side.join();
                flow.add(side.map_err(|_| anyhow::anyhow!("a thread panicked"))??);
            }
            flow.add_to(&mut total)?;
        }
        Ok(total)
    })
}

/// What happened to one direction; each side knows a part.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    sent: u64,
    received: u64,
    /// From the first datagram to the last that arrived.
    time: Duration,
}

impl Flow {
    fn add(&mut self, side: Self) {
        self.sent += side.sent;
        self.received += side.received;
        self.time += side.time;
    }

    fn add_to(self, total: &mut Transfer) -> Result<()> {
        ensure!(!self.time.is_zero(), "nothing arrived");
        let bytes = self.received * u64::from(DATAGRAM);
        let rate = bytes as f64 * 8.0 / self.time.as_secs_f64();
        total.bytes += bytes;
        total.bits_per_second += rate;
        total.slower_bits_per_second = total.slower_bits_per_second.min(rate);
        total.datagrams += self.sent;
        total.lost += self.sent.saturating_sub(self.received);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Sender,
    Receiver,
}

impl Role {
    fn opposite(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }

    fn play(self, socket: &UdpSocket, length: Duration) -> Result<Flow> {
        datagrams::prepare(socket)?;
        let end = Instant::now() + length;
        match self {
            Self::Sender => send(socket, end),
            Self::Receiver => receive(socket, end + DRAIN),
        }
    }
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // The window must fit from the first train on, or what is lost here is the tunnel's loss in the table.
    datagrams::widen(&socket)?;
    Ok(socket)
}

/// Waits for a client.
fn accept(address: SocketAddr) -> Result<UdpSocket> {
    let socket = bind(address)?;
    socket.set_read_timeout(Some(GREETING_LIMIT))?;
    let (_, client) = socket.recv_from(&mut [0; 64]).context("no client came")?;
    socket.connect(client)?;
    socket.send(GREETING)?;
    Ok(socket)
}

/// Calls a server until it answers.
fn connect(address: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = match Version::of(address.ip()) {
        Version::V4 => ([0; 4], 0).into(),
        Version::V6 => ([0; 16], 0).into(),
    };
    let socket = bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let started = Instant::now();
    while started.elapsed() < GREETING_LIMIT {
        // A port that is not open yet is an error of the call after.
        let _ = socket.send(GREETING);
        if socket.recv(&mut [0; 64]).is_ok() {
            return Ok(socket);
        }
    }
    anyhow::bail!("{address} does not answer")
}

fn send(socket: &UdpSocket, end: Instant) -> Result<Flow> {
    let mut outbox = Outbox::new(DATAGRAM.into());
    let mut inbox = Inbox::new();
    let train = outbox.train_len();
    let (mut sent, mut acknowledged, mut given_up) = (0, 0, 0);
    let mut heard = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        interrupt::check()?;
        let under_way = sent - (acknowledged + given_up).min(sent);
        if under_way + train as u64 <= WINDOW {
            sent += outbox.send_as_train(socket, None, train)? as u64;
        } else {
            wait(socket, PATIENCE)?;
        }
        inbox.receive(socket, |datagram| {
            if let Ok(count) = datagram.try_into().map(u64::from_be_bytes) {
                acknowledged = count.max(acknowledged);
                heard = now;
            }
        })?;
        if now - heard > PATIENCE {
            given_up = sent - acknowledged.min(sent);
            heard = now;
        }
    }
    Ok(Flow {
        sent,
        ..Flow::default()
    })
}

fn receive(socket: &UdpSocket, end: Instant) -> Result<Flow> {
    let mut inbox = Inbox::new();
    let (mut received, mut first, mut last) = (0_u64, None, None);
    while Instant::now() < end {
        interrupt::check()?;
        wait(socket, DRAIN)?;
        let before = received;
        inbox.receive(socket, |datagram| {
            received += u64::from(datagram.len() == usize::from(DATAGRAM));
        })?;
        if received > before {
            // Lost if there is no room: the next one says the same and more.
            let _ = socket.send(&received.to_be_bytes());
            last = Some(Instant::now());
            first = first.or(last);
        }
    }
    Ok(Flow {
        received,
        time: first.zip(last).map_or(Duration::ZERO, |(a, b)| b - a),
        ..Flow::default()
    })
}

fn wait(socket: &UdpSocket, limit: Duration) -> io::Result<()> {
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, limit)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_goes_round_and_round_without_loss() {
        let address = UdpSocket::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .unwrap();
        let length = Duration::from_millis(200);
        let flow = thread::scope(|scope| {
            let server =
                scope.spawn(move || Role::Receiver.play(&accept(address).unwrap(), length));
            let client = Role::Sender.play(&connect(address).unwrap(), length);
            let mut flow = client.unwrap();
            flow.add(server.join().unwrap().unwrap());
            flow
        });
        let mut total = Transfer::default();
        flow.add_to(&mut total).unwrap();
        assert!(total.datagrams > WINDOW, "{total:?}");
        assert!(total.loss_percent() < 1.0, "{total:?}");
    }

    #[test]
    fn silence_is_an_error() {
        let error = Flow::default().add_to(&mut Transfer::default());
        assert_eq!(error.unwrap_err().to_string(), "nothing arrived");
    }
}
