//! `log`: lines from plugins, bounded and made safe to show.

use crate::bindings::host::pcoder::plugin::log::{Host, Level};
use crate::call::CallState;
use crate::gate::Gate;
use crate::secrets::Broker;

/// Bytes of one line that are kept.
const LINE: usize = 4096;

impl Host for CallState {
    async fn log(&mut self, level: Level, message: String) {
        write(&self.gate, &self.context.secrets, level, message);
    }
}

/// Writes one line of a call, unless it has written too many.
pub(crate) fn write(gate: &Gate, secrets: &Broker, level: Level, message: String) {
    if !gate.lines().take() {
        return;
    }
    // Redacted before it is cut: a value that is cut in two would not be found.
    // And one line stays one line: the next one would look like somebody else's.
    let line = crate::text::for_people(&secrets.redact_text(message), LINE).replace('\n', "\\n");
    let plugin = &gate.identity().plugin;
    match level {
        Level::Trace => tracing::trace!(target: "pcoder::plugin", plugin, "{line}"),
        Level::Debug => tracing::debug!(target: "pcoder::plugin", plugin, "{line}"),
        Level::Info => tracing::info!(target: "pcoder::plugin", plugin, "{line}"),
        Level::Warn => tracing::warn!(target: "pcoder::plugin", plugin, "{line}"),
        Level::Error => tracing::error!(target: "pcoder::plugin", plugin, "{line}"),
    }
}
