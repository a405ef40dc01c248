//! The memory that a plugin allocates first is there from the beginning.
//!
//! Each call gets a fresh instance, and most calls allocate a few kilobytes. Rust's own allocator for WebAssembly asks the
//! host for more memory at the first allocation; there that is a change of page protections, and another one when the
//! instance is gone: together they take longer than everything else in a short call. So the first allocations come out
//! of a static arena, one behind the other. What was allocated last can grow, shrink and be given back in place; the
//! rest of the arena is not used twice, because the call will have ended before that would matter. What does not fit is
//! left to the allocator that Rust itself uses (dlmalloc).
#![allow(unsafe_code, reason = "an allocator hands out raw memory; each block says why it is sound")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// More than most calls allocate. It is not a part of the component's bytes, and untouched pages cost nothing.
const ARENA: usize = 128 * 1024;

#[repr(align(16))]
struct Arena {
    bytes: UnsafeCell<[u8; ARENA]>,
    /// Where the part begins that was never given out, or was given back.
    free: AtomicUsize,
}

// SAFETY: guests have one thread (threads are not a part of the contract's target), so nothing is shared. The offset is
// an atomic for the sake of safe code only.
unsafe impl Sync for Arena {}

impl Arena {
    fn base(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// The offset of memory that came out of the arena.
    fn offset(&self, at: *mut u8) -> Option<usize> {
        at.addr().checked_sub(self.base().addr()).filter(|offset| *offset < ARENA)
    }

    fn alloc(&self, layout: Layout) -> Option<*mut u8> {
        let free = self.base().addr() + self.free.load(Relaxed);
        let start = free.checked_next_multiple_of(layout.align())? - self.base().addr();
        let end = start.checked_add(layout.size()).filter(|end| *end <= ARENA)?;
        self.free.store(end, Relaxed);
        // SAFETY: `start` is within the arena, as `end` is.
        Some(unsafe { self.base().add(start) })
    }

    /// Changes the size of what was allocated last. Anything else stays as it is.
    fn resize(&self, offset: usize, size: usize, new_size: usize) -> bool {
        let last = offset + size == self.free.load(Relaxed);
        match offset.checked_add(new_size) {
            Some(end) if last && end <= ARENA => {
                self.free.store(end, Relaxed);
                true
            }
            _ => false,
        }
    }
}

struct Global(Arena);

#[global_allocator]
static GLOBAL: Global = Global(Arena { bytes: UnsafeCell::new([0; ARENA]), free: AtomicUsize::new(0) });

// SAFETY: the arena gives out parts that do not overlap, are aligned as asked, and stay until they are given back; what
// is given back is the last part, so that no other one is in it. Everything else is dlmalloc's, with the same contract.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        self.0.alloc(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.0.alloc(layout) {
            Some(at) => {
                // It may have been given out before.
                // SAFETY: `at` is as large as the layout says.
                unsafe { at.write_bytes(0, layout.size()) };
                at
            }
            // SAFETY: as the caller's.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match self.0.offset(at) {
            Some(offset) => {
                self.0.resize(offset, layout.size(), 0);
            }
            // SAFETY: what is not from the arena is from dlmalloc; the caller says that the layout is its own.
            None => unsafe { System.dealloc(at, layout) },
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.0.offset(at) else {
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(at, layout, new_size) };
        };
        if self.0.resize(offset, layout.size(), new_size) || new_size <= layout.size() {
            return at;
        }
        // SAFETY: the caller says that the new size with this alignment is a layout.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both are at least as large as the old layout, and a new part overlaps no other one.
            unsafe { new.copy_from_nonoverlapping(at, layout.size()) };
        }
        new
    }
}
