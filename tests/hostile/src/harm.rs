//! What a guest can do to itself and, if nothing stops it, to its host.

use std::hint::black_box;

use pcoder_sdk::bindings::host::wasi::clocks::monotonic_clock::subscribe_duration;
use pcoder_sdk::bindings::host::wasi::random::random::get_random_bytes;
use pcoder_sdk::{Instance, Result};

/// Computes for ever.
pub(crate) fn spin() -> ! {
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}

/// Takes memory until there is none.
pub(crate) fn allocate() -> ! {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(black_box(vec![1; 1 << 20]));
    }
}

/// Calls itself until the stack of its own memory is full.
pub(crate) fn overflow(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    if black_box(depth) == u64::MAX { 0 } else { overflow(depth + 1).wrapping_add(room[7]) }
}

/// Calls itself, without a byte of its own memory, until the stack of its host is full.
#[inline(never)]
pub(crate) fn descend(depth: u64, bottom: u64) -> u64 {
    if depth == bottom { 0 } else { descend(depth + 1, bottom).wrapping_mul(31) ^ depth }
}

/// Waits in the host for ever.
pub(crate) fn wait() {
    subscribe_duration(u64::MAX).block();
}

/// Opens handles and keeps them.
pub(crate) fn handles(count: usize) -> Result<String> {
    let held: Vec<_> = (0..count).map(|_| subscribe_duration(u64::MAX)).collect();
    Ok(held.len().to_string())
}

/// Asks the host for random bytes.
pub(crate) fn random(count: u64) -> Result<String> {
    Ok(get_random_bytes(count).len().to_string())
}

/// More than a host should take in one answer.
pub(crate) fn many_instances() -> Vec<Instance> {
    (0..400_000).map(|_| Instance { id: "x".repeat(32), ..crate::instance() }).collect()
}
