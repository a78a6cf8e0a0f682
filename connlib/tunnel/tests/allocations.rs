//! The packet path of client and gateway allocates nothing, in either direction, direct or relayed.

#![allow(clippy::unwrap_used, reason = "test")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test's time begins at any instant, which only the clock can make"
)]

mod pair;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use connlib_tunnel::segment::{Coalescer, Coalescing};
use pair::{Pair, Slots, Stream, Way};

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

/// Runs `action` and returns how often it allocated.
fn allocations(action: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    action();
    ALLOCATIONS.with(Cell::get) - before
}

const PACKETS: usize = 49;
const SIZE: usize = 1280;
/// Batches before counting starts: buffers and tables have their size then.
const WARM_UP: usize = 4;
const BATCHES: usize = 64;

/// Batches of a stream, each at an instant of its own, with the time-outs that fall due; returns the allocations of
/// sealing and of opening.
fn carry(way: Way, mut stream: Stream, is_up: bool) -> (usize, usize) {
    let mut pair = Pair::connected(way);
    let mut slots = Slots::new();
    let mut out = Coalescer::new(Coalescing::ON);
    let (mut sealing, mut opening) = (0, 0);
    for batch in 0..WARM_UP + BATCHES {
        pair.run_for(Duration::from_millis(1));
        let (bytes, gso) = stream.next_super_packet();
        slots.clear();
        let sealed = allocations(|| match is_up {
            true => pair.client_seals(bytes, gso, &mut slots),
            false => pair.gateway_seals(bytes, gso, &mut slots),
        });
        assert_eq!(slots.len(), PACKETS);
        let from = match is_up {
            true => pair.client_socket,
            false => pair.gateway_socket,
        };
        let train = pair.train(from, &slots);
        let opened = allocations(|| {
            match is_up {
                true => pair.gateway_opens(&train, &mut out),
                false => pair.client_opens(&train, &mut out),
            }
            assert_eq!(out.drain().map(|(_, bytes)| bytes.len()).sum::<usize>(), {
                let payload = PACKETS * (SIZE - Stream::HEADER);
                payload + Stream::HEADER
            });
        });
        if batch >= WARM_UP {
            sealing += sealed;
            opening += opened;
        }
    }
    (sealing, opening)
}

#[test]
fn client_to_gateway_allocates_nothing() {
    for way in [Way::Direct, Way::Relayed] {
        let stream = Stream::to_host(PACKETS, SIZE);
        assert_eq!(carry(way, stream, true), (0, 0), "{way:?}");
    }
}

#[test]
fn gateway_to_client_allocates_nothing() {
    for way in [Way::Direct, Way::Relayed] {
        let stream = Stream::to_client(PACKETS, SIZE);
        assert_eq!(carry(way, stream, false), (0, 0), "{way:?}");
    }
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1; 100]))), 1);
}
