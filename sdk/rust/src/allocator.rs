//! The memory that a plugin allocates first is there from the beginning.
//!
//! Each call gets a fresh instance, and most calls allocate a few kilobytes. Rust's own allocator for WebAssembly asks the
//! host for more memory at the first allocation; there that is a change of page protections, and another one when the
//! instance is gone: together they take longer than everything else in a short call. This is the same allocator
//! (dlmalloc), which is given a static arena before it asks.
#![allow(unsafe_code, reason = "an allocator hands out raw memory; each block says why it is sound")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use dlmalloc::Dlmalloc;

/// More than most calls allocate. It is not a part of the component's bytes, and untouched pages cost nothing.
const ARENA: usize = 128 * 1024;
/// A page of WebAssembly's memory.
const PAGE: usize = 64 * 1024;

#[repr(align(65536))]
struct Bytes(UnsafeCell<[u8; ARENA]>);

// SAFETY: guests have one thread (threads are not a part of the contract's target), so nothing is shared.
unsafe impl Sync for Bytes {}

static BYTES: Bytes = Bytes(UnsafeCell::new([0; ARENA]));
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the arena once, and the host's memory after it.
struct Source;

// SAFETY: every region that `alloc` returns is valid, unused and given out once: the arena is behind a flag, and
// `memory.grow` returns pages that did not exist before.
unsafe impl dlmalloc::Allocator for Source {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if size <= ARENA && !TAKEN.swap(true, Ordering::Relaxed) {
            return (BYTES.0.get().cast(), ARENA, 0);
        }
        let pages = size.div_ceil(PAGE);
        let before = core::arch::wasm32::memory_grow(0, pages);
        // The very last page would end where addresses begin again; no host gives that much.
        if before == usize::MAX || (before + pages).checked_mul(PAGE).is_none() {
            return (core::ptr::null_mut(), 0, 0);
        }
        (core::ptr::with_exposed_provenance_mut(before * PAGE), pages * PAGE, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}

struct Global(UnsafeCell<Dlmalloc<Source>>);

// SAFETY: one thread, as above.
unsafe impl Sync for Global {}

#[global_allocator]
static GLOBAL: Global = Global(UnsafeCell::new(Dlmalloc::new_with_allocator(Source)));

// SAFETY: the contract of `GlobalAlloc` is passed on to dlmalloc's methods, which have the same one. The exclusive
// borrow of the cell ends before each method returns, and dlmalloc does not allocate through the global allocator.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; the caller says that `at` came from here with this layout.
        unsafe { (*self.0.get()).free(at, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above; the caller says that `at` came from here with this layout.
        unsafe { (*self.0.get()).realloc(at, layout.size(), layout.align(), new_size) }
    }
}
