//! Adds up the progress of several packages, and tells the caller and those who wait for the lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::install_lock::InstallLock;
use crate::progress::{Phase, Progress};

/// Progress of one installation. It owns the lock, so the lock lives as long as anything is being done.
pub(crate) struct Meter {
    progress: Arc<dyn Progress>,
    done: AtomicU64,
    total: u64,
    doing: String,
    lock: Mutex<InstallLock>,
}

impl Meter {
    pub(crate) fn new(progress: Arc<dyn Progress>, total: u64, doing: String, lock: InstallLock) -> Self {
        Self { progress, done: AtomicU64::new(0), total, doing, lock: Mutex::new(lock) }
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.progress.phase(phase);
    }

    pub(crate) fn message(&self, message: &str) {
        self.progress.message(message);
    }

    pub(crate) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.show(done);
    }

    pub(crate) fn take_back(&self, bytes: u64) {
        let done = self.done.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        self.show(done);
    }

    fn show(&self, done: u64) {
        self.progress.bytes(done, self.total);
        let percent = done.saturating_mul(100).checked_div(self.total).unwrap_or(100).min(100);
        // A holder of the lock that is just writing its status will write the next one too.
        if let Ok(mut lock) = self.lock.try_lock() {
            lock.percent(&self.doing, u8::try_from(percent).unwrap_or(100));
        }
    }
}
