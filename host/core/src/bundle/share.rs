//! One progress for everything that an export does.

use std::sync::Arc;

use pcoder_engines::{Phase, Progress};

/// The part of one progress that one step has.
pub(super) struct Share {
    whole: Arc<dyn Progress>,
    before: u64,
    total: u64,
}

impl Share {
    /// `before` bytes of `total` are through when the step begins.
    pub(super) fn new(whole: Arc<dyn Progress>, before: u64, total: u64) -> Self {
        Self { whole, before, total }
    }
}

impl Progress for Share {
    fn phase(&self, phase: Phase) {
        // An export is copying all the time; what its steps do beside that is over soon.
        if phase == Phase::Waiting {
            self.whole.phase(phase);
        }
    }

    fn bytes(&self, done: u64, _total: u64) {
        self.whole.bytes(self.before.saturating_add(done), self.total);
    }

    fn message(&self, message: &str) {
        self.whole.message(message);
    }
}
