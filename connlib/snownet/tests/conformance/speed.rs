//! The packet path does not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use connlib_snownet::{DatagramSink, Decapsulated};
use ip_packet::{Ecn, PacketBatch};

use crate::world::{Place, World, packet};
use crate::{C, G};

/// Counts allocations of the current thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as required of our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as required of our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The same packet `left` times.
struct Repeat<'a> {
    packet: &'a [u8],
    left: usize,
}

impl PacketBatch for Repeat<'_> {
    fn next_packet(&mut self) -> Option<&[u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(self.packet)
    }
}

const BATCH: usize = 32;

/// A send buffer of fixed size.
struct Slots {
    bytes: Vec<[u8; 2048]>,
    routes: Vec<(Option<SocketAddr>, SocketAddr, usize)>,
}

impl DatagramSink for Slots {
    fn reserve(&mut self, src: Option<SocketAddr>, dst: SocketAddr, _: Ecn, _: usize) -> &mut [u8] {
        self.routes.push((src, dst, 0));
        &mut self.bytes[self.routes.len() - 1]
    }

    fn commit(&mut self, len: usize) {
        self.routes.last_mut().unwrap().2 = len;
    }
}

fn allocations_per_batch(world: &mut World, relay: Option<SocketAddr>) -> (usize, usize) {
    let packet = packet(1);
    let mut slots = Slots {
        bytes: vec![[0; 2048]; BATCH],
        routes: Vec::with_capacity(BATCH),
    };
    let now = world.now;
    let [client, gateway, ..] = &mut world.hosts[..] else {
        panic!("a pair");
    };
    let mut out = [0; 2048];
    let mut counts = (0, 0);
    // The first rounds let tables grow to their size.
    for _ in 0..3 {
        slots.routes.clear();
        let mut batch = Repeat {
            packet: packet.as_slice(),
            left: BATCH,
        };
        let before = ALLOCATIONS.with(Cell::get);
        let sealed = client
            .node
            .encapsulate(G as u32, &mut batch, Ecn::NotEct, now, &mut slots)
            .unwrap();
        client.node.poll_timeout();
        counts.0 = ALLOCATIONS.with(Cell::get) - before;
        assert_eq!(sealed.sent, BATCH);

        // As the gateway gets it: from the client's socket, or from the address on its relay as channel data is not decoded here.
        let path = gateway.node.path(C as u32).unwrap();
        let before = ALLOCATIONS.with(Cell::get);
        for (bytes, (_, dst, len)) in slots.bytes.iter().zip(&slots.routes) {
            assert_eq!(relay.unwrap_or(path.local), *dst);
            let header = if relay.is_some() { 4 } else { 0 };
            let opened = gateway.node.decapsulate(
                path.local,
                path.remote,
                &bytes[header..*len],
                now,
                &mut out,
            );
            assert!(matches!(opened, Ok(Decapsulated::Packet { .. })));
        }
        gateway.node.poll_timeout();
        counts.1 = ALLOCATIONS.with(Cell::get) - before;
    }
    counts
}

#[test]
fn direct_packets_do_not_allocate() {
    let mut world = World::pair(1, Place::Open, Place::Open);
    world.establish(C, G);
    world.run_for(Duration::from_secs(3));
    assert_eq!(allocations_per_batch(&mut world, None), (0, 0));
}

#[test]
fn relayed_packets_do_not_allocate() {
    let mut world = World::pair(1, Place::Symmetric, Place::Symmetric);
    world.establish(C, G);
    world.run_for(Duration::from_secs(3));
    let server = "9.9.9.1:3478".parse().unwrap();
    assert_eq!(allocations_per_batch(&mut world, Some(server)), (0, 0));
}
