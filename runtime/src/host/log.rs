//! `log`: lines from plugins, bounded and made safe to show.

use crate::bindings::host::pcoder::plugin::log::{Host, Level};
use crate::call::CallState;

/// Bytes of one line that are kept.
const LINE: usize = 4096;

/// How many lines a call may still write.
#[derive(Debug)]
pub(crate) struct LogBudget {
    left: u32,
    pub(crate) dropped: u64,
}

impl LogBudget {
    pub(crate) fn new(lines: u32) -> Self {
        Self { left: lines, dropped: 0 }
    }
}

impl Host for CallState {
    async fn log(&mut self, level: Level, message: String) {
        if self.log.left == 0 {
            self.log.dropped += 1;
            return;
        }
        self.log.left -= 1;
        // Redacted before it is cut: a value that is cut in two would not be found.
        // And one line stays one line: the next one would look like somebody else's.
        let line = crate::text::for_people(&self.context.secrets.redact_text(message), LINE).replace('\n', "\\n");
        let plugin = &self.gate.identity().plugin;
        match level {
            Level::Trace => tracing::trace!(target: "pcoder::plugin", plugin, "{line}"),
            Level::Debug => tracing::debug!(target: "pcoder::plugin", plugin, "{line}"),
            Level::Info => tracing::info!(target: "pcoder::plugin", plugin, "{line}"),
            Level::Warn => tracing::warn!(target: "pcoder::plugin", plugin, "{line}"),
            Level::Error => tracing::error!(target: "pcoder::plugin", plugin, "{line}"),
        }
    }
}
