//! Floods: memory that strangers, peers and applications can make a part hold on to is bounded.
//!
//! Every test sends tens of thousands of distinct inputs that ask for state, and then compares what its thread holds on the
//! heap with what it held before, or after the first part of the flood. The bounds are generous multiples of the tables'
//! limits; what they exclude is growth with the number of inputs.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod allocator;
mod dns;
mod gateway;
mod node;
mod relay;
mod turn;

use allocator::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KIB: isize = 1024;
const MIB: isize = 1024 * KIB;

/// Plays `count` inputs, and fails if this thread then holds more than `limit` bytes more than before.
#[track_caller]
fn assert_bounded(limit: isize, count: u32, mut input: impl FnMut(u32)) {
    let before = allocator::live();
    (0..count).for_each(&mut input);
    let growth = allocator::live() - before;
    assert!(growth <= limit, "{count} inputs cost {growth} bytes");
}

/// The same for tables that may fill up: the first `fill` inputs are free, but for `most` bytes in all.
#[track_caller]
fn assert_levels_off(
    most: isize,
    limit: isize,
    (fill, count): (u32, u32),
    mut input: impl FnMut(u32),
) {
    assert_bounded(most, fill, &mut input);
    assert_bounded(limit, count, |n| input(fill + n));
}

#[test]
fn the_meter_sees_growth() {
    let mut hoard = Vec::new();
    let before = allocator::live();
    (0..1000).for_each(|_| hoard.push(vec![0u8; 1000]));
    let growth = allocator::live() - before;
    assert!((1_000_000..1_200_000).contains(&growth), "{growth}");
    drop(hoard);
    assert!(allocator::live() - before < KIB);
}
