//! Two thousand busy clients and a quiet one: C-49, in a network namespace of their own.
//!
//! How many milliseconds the quiet one waits is a matter of benchmarks (`tests/bench`, turn). What holds on every machine,
//! however busy, is shown here: whose turn it is, that nothing of the quiet one is lost, and heartbeats.

use std::{
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{Signal, kill},
    socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt},
    time::TimeSpec,
};
use phoenix_channel::channel::HEARTBEAT_INTERVAL;

use super::{
    load::{FIRST_PORT, in_namespace},
    portal::Portal,
    process::{Launch, PATIENCE, Relay, receive, socket},
    raw::{Raw, framed, refresh},
};

const BUSY: u16 = 2000;
/// So many that the one worker which has them all finds a port for each at once.
const PORTS: u16 = BUSY + 200;
/// Whose turn it is is a matter of one worker.
const ARGUMENTS: [&str; 5] = ["--standalone", "--profile", "portal", "--workers", "1"];
/// Sockets of clients, and what a process has open besides.
const DESCRIPTORS: u64 = BUSY as u64 + 500;
/// Takes a round of everybody's datagrams, with what the kernel counts for each.
const SINK_BUFFER: usize = 16 * 1024 * 1024;
/// How late a heartbeat may be: the portal drops a relay that is silent for 41 s (relay spec §3.2).
const HEARTBEAT_SLACK: Duration = Duration::from_secs(5);

/// Whether this process may open enough sockets; says so if not.
fn can_have_crowd() -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let is_enough = hard >= DESCRIPTORS;
    match is_enough {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap(),
        false => println!("cannot run: {hard} open files are allowed, {DESCRIPTORS} are needed"),
    }
    is_enough
}

/// Clients with an allocation and a channel to the peer each, the quiet one last; and their relayed addresses.
fn crowd(relay: &Relay, peer: SocketAddr) -> Vec<(Raw, SocketAddr)> {
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let client = |number| {
        let mut client = Raw::new(server, &format!("user{number}"));
        let relayed = client.allocate();
        client.bind(0x4000, peer);
        let reachable = (Ipv4Addr::LOCALHOST, relayed.port()).into();
        (client, reachable)
    };
    (0..=BUSY).map(client).collect()
}

fn sink() -> UdpSocket {
    let sink = socket("127.0.0.1:0");
    setsockopt(&sink, sockopt::RcvBufForce, &SINK_BUFFER).unwrap();
    sink
}

/// Runs with a relay, the peer of everybody's channel, and the crowd that is ready to use them; not where that cannot be.
fn with_crowd(run: impl FnOnce(&Relay, &UdpSocket, Vec<(Raw, SocketAddr)>) + Send + 'static) {
    in_namespace(&["ip link set lo up"], || {
        if !can_have_crowd() {
            return;
        }
        let relay = Launch {
            allocations: PORTS,
            ..Launch::new(FIRST_PORT, &ARGUMENTS)
        }
        .ready();
        let peer = sink();
        let clients = crowd(&relay, peer.local_addr().unwrap());
        run(&relay, &peer, clients);
    });
}

/// Everybody's allocation holds a backlog of peers' datagrams when the last one's only datagram arrives. It is sent on
/// before anybody has had a second turn. The kernel's time stamps tell the order, so it does not matter how fast anything
/// here is.
#[test]
fn relay_49_the_quiet_one_is_served_within_a_round() {
    /// Datagrams that wait for each busy client: three turns.
    const BACKLOG: usize = 100;
    /// What an allocation may pass on in one turn: receive calls of four and of thirty-two datagrams.
    const TURN: usize = 36;
    with_crowd(|relay, peer, mut clients| {
        for (client, _) in &clients {
            setsockopt(&client.socket, sockopt::ReceiveTimestampns, &true).unwrap();
        }

        stop(relay);
        let (_, last) = clients.last().unwrap();
        for (_, relayed) in &clients[..usize::from(BUSY)] {
            for _ in 0..BACKLOG {
                peer.send_to(b"busy", relayed).unwrap();
            }
        }
        peer.send_to(b"quiet", last).unwrap();
        signal(relay, Signal::SIGCONT);

        let (quiet, _) = clients.pop().unwrap();
        let served = arrivals(&quiet.socket, 1)[0];
        let mut whole_backlogs = 0;
        for (index, (client, _)) in clients.iter().enumerate() {
            let arrivals = arrivals(&client.socket, BACKLOG);
            let before = arrivals.iter().filter(|at| **at < served).count();
            assert!(before <= TURN, "{before} of client {index} went before");
            whole_backlogs += usize::from(arrivals.len() == BACKLOG);
        }
        // Nothing of a backlog is lost either.
        assert_eq!(whole_backlogs, usize::from(BUSY));
    });
}

/// Stops all threads of the relay, and waits until they are.
fn stop(relay: &Relay) {
    signal(relay, Signal::SIGSTOP);
    let deadline = Instant::now() + PATIENCE;
    let tasks = format!("/proc/{}/task", relay.id());
    let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        status.contains("State:\tT")
    };
    while !std::fs::read_dir(&tasks).unwrap().all(is_stopped) {
        assert!(Instant::now() < deadline, "the relay does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(relay: &Relay, signal: Signal) {
    let id = nix::unistd::Pid::from_raw(relay.id() as i32);
    kill(id, signal).unwrap();
}

/// When so many datagrams arrived, by the kernel's clock.
fn arrivals(socket: &UdpSocket, count: usize) -> Vec<TimeSpec> {
    let arrival = |_| {
        let mut buffer = [0; 64];
        let mut control = nix::cmsg_space!(nix::libc::timespec);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<SockaddrIn>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )
        .expect("a datagram arrives");
        let stamp = message.cmsgs().unwrap().find_map(|it| match it {
            ControlMessageOwned::ScmTimestampns(at) => Some(at),
            _ => None,
        });
        stamp.expect("the kernel tells the time")
    };
    (0..count).map(arrival).collect()
}

/// Everybody sends without a break, beside them the quiet one, refreshes and health checks: of the quiet one, nothing is
/// lost.
#[test]
fn relay_49_busy_allocations_and_a_quiet_one() {
    const ROUNDS: usize = 10;
    with_crowd(|relay, sink, mut clients| {
        let (mut quiet, relayed) = clients.pop().unwrap();
        let peer = socket("127.0.0.1:0");
        quiet.bind(0x4001, peer.local_addr().unwrap());

        let received = AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        sink.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if sink.recv(&mut [0; 2048]).is_ok() {
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            for round in 0..ROUNDS {
                for (client, _) in &clients {
                    client.send(&framed(0x4000, &[7; 1000]));
                }
                let payload = [round as u8];
                quiet.send(&framed(0x4001, &payload));
                assert_eq!(receive(&peer).0, payload);
                peer.send_to(&payload, relayed).unwrap();
                assert_eq!(receive(&quiet.socket).0, framed(0x4001, &payload));
                let (refreshing, _) = &mut clients[round];
                assert_eq!(refreshing.code(refresh(None)), None);
                assert_eq!(relay.get("/healthz").unwrap().0, 200);
                // The sink is this test's own; it must not be what loses datagrams.
                let wanted = usize::from(BUSY) * (round + 1) * 99 / 100;
                wait_for(|| received.load(Ordering::Relaxed) >= wanted);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let received = received.into_inner();
        let sent = usize::from(BUSY) * ROUNDS;
        assert!(received * 100 >= sent * 99, "{received} of {sent}");
    });
}

/// Waits a moment; whoever waits in vain finds out later.
fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while !condition() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Two thousand clients flood the relay, and refresh their allocations beside that: the session with the portal has a
/// thread of its own and is on time.
#[test]
fn relay_49_heartbeats_are_on_time_under_load() {
    in_namespace(&["ip link set lo up"], || {
        if !can_have_crowd() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(heartbeats_under_load());
    });
}

async fn heartbeats_under_load() {
    const HEARTBEATS: usize = 2;
    let portal = Portal::new().await;
    let url = format!("ws://{}", portal.address());
    let relay = Launch {
        allocations: PORTS,
        ..Launch::new(FIRST_PORT, &["--api-url", &url, "--workers", "1"])
    }
    .start();
    let mut visit = portal.accept().await;
    visit.join().await;
    relay.wait_for("/readyz", 200);
    let sink = sink();
    let mut clients = crowd(&relay, sink.local_addr().unwrap());
    // Those that came due while the allocations were made.
    visit.answer_what_is_there().await;
    let mut last = Instant::now();

    let (is_over, refreshed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut late = Vec::new();
    std::thread::scope(|scope| {
        for share in clients.chunks_mut(usize::from(BUSY) / 2) {
            let (is_over, refreshed) = (&is_over, &refreshed);
            scope.spawn(move || {
                let datagram = framed(0x4000, &[7; 1200]);
                let short = Some(Duration::from_millis(500));
                for (index, _) in (0..share.len()).cycle().zip(0_u64..) {
                    if is_over.load(Ordering::Relaxed) || Instant::now() > deadline {
                        return;
                    }
                    for (client, _) in share.iter() {
                        client.send(&datagram);
                    }
                    // A flood may cost the request or its answer; that others get theirs is counted below.
                    let (client, _) = &mut share[index];
                    client.socket.set_read_timeout(short).unwrap();
                    let request = client.signed(refresh(None));
                    client.send(&request);
                    let answered = client.socket.recv(&mut [0; 2048]).is_ok();
                    refreshed.fetch_add(answered.into(), Ordering::Relaxed);
                }
            });
        }
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..HEARTBEATS {
                    visit.heartbeat().await;
                    late.push(last.elapsed().saturating_sub(HEARTBEAT_INTERVAL));
                    last = Instant::now();
                }
            });
        });
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(late.iter().all(|it| *it < HEARTBEAT_SLACK), "{late:?}");
    assert!(refreshed.into_inner() > 0, "no refresh was answered");
    assert_eq!(relay.get("/readyz").unwrap().0, 200);
}
