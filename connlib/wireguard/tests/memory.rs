//! What an idle peer costs: a gateway has thousands of them.

#![allow(clippy::unwrap_used, reason = "test")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test's time begins at any instant, which only the clock can make"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use connlib_wireguard::{IndexTable, Opened, Peer, PeerConfig, PrivateKey, Role, WallClock};

/// Counts the bytes that the current thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| held.set(held.get().wrapping_add(layout.size())));
        // SAFETY: as required of our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get().wrapping_sub(layout.size())));
        // SAFETY: as required of our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A peer with the heap that it holds.
struct Weighed {
    peer: Peer,
    heap: usize,
}

impl Weighed {
    fn new(role: Role, now: Instant) -> Self {
        let (own, remote) = match role {
            Role::Initiator => (1, 2),
            Role::Responder => (2, 1),
        };
        let private = PrivateKey::from_seed([own; 32]);
        let remote = PrivateKey::from_seed([remote; 32]).public();
        let indices = IndexTable::new([own; 32]).allocate().unwrap();
        let before = HELD.get();
        let mut peer = Peer::new(
            PeerConfig {
                role,
                private: &private,
                remote,
                psk: [3; 32],
                indices,
                clock: WallClock::new(now, Duration::ZERO),
                seed: [4; 32],
            },
            now,
        );
        peer.path_ready(now);

        Self {
            peer,
            heap: HELD.get().wrapping_sub(before),
        }
    }

    fn weigh<T>(&mut self, work: impl FnOnce(&mut Peer) -> T) -> T {
        let before = HELD.get();
        let result = work(&mut self.peer);
        self.heap = self.heap.wrapping_add(HELD.get().wrapping_sub(before));
        result
    }
}

/// Carries what one has to send to the other.
fn carry(from: &mut Weighed, to: &mut Weighed, now: Instant) -> usize {
    let mut carried = 0;
    let mut datagram = [0; 256];
    let mut out = [0; 256];
    while let Some(len) = from.weigh(|peer| {
        let bytes = peer.poll_transmit()?.bytes;
        datagram[..bytes.len()].copy_from_slice(bytes);
        Some(bytes.len())
    }) {
        let opened = to.weigh(|peer| peer.open(&datagram[..len], FROM, now, &mut out));
        assert!(matches!(opened, Ok(Opened::Handshake | Opened::Keepalive)));
        carried += 1;
    }
    while from.weigh(Peer::poll_event).is_some() {}

    carried
}

#[test]
fn an_idle_peer_holds_a_few_kilobytes() {
    let start = Instant::now();
    let (mut client, mut gateway) = (
        Weighed::new(Role::Initiator, start),
        Weighed::new(Role::Responder, start),
    );
    let mut now = start;
    for _ in 0..50 {
        while carry(&mut client, &mut gateway, now) + carry(&mut gateway, &mut client, now) > 0 {}
        now = [client.peer.poll_timeout(), gateway.peer.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
            .unwrap();
        client.weigh(|peer| peer.handle_timeout(now));
        gateway.weigh(|peer| peer.handle_timeout(now));
    }

    assert!(gateway.peer.stats().handshakes > 10);
    println!(
        "peer {} bytes; heap of a client {} bytes, of a gateway {} bytes",
        size_of::<Peer>(),
        client.heap,
        gateway.heap
    );
    // Keys of the portable cipher are larger than those of the fast one.
    assert!(size_of::<Peer>() <= 2560);
    assert!(client.heap <= 6 * 1024, "client: {}", client.heap);
    assert!(gateway.heap <= 6 * 1024, "gateway: {}", gateway.heap);
}
