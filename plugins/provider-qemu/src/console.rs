//! What a guest wrote to its serial console, for people.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Result, code, text};
use serde_json::json;

use crate::qmp::Qmp;
use crate::store::Store;

/// How many lines of its end are told, and how many characters.
const LINES: usize = 20;
const CHARACTERS: usize = 1500;

/// How much of what a machine that is ready writes QEMU keeps, in bytes.
const KEPT: usize = 64 << 10;

/// Where it is, below the root `state`.
pub(crate) fn path(id: &str) -> String {
    format!("{}/console.log", crate::store::folder(id))
}

/// Whether there is anything.
pub(crate) fn has_spoken(host: ProviderHost<'_>, id: &str) -> bool {
    host.files().stat("state", &path(id)).is_ok_and(|it| it.size > 0)
}

/// From now on QEMU keeps the end of what the guest writes in memory: it could fill this host's disk. Not every console can
/// be moved.
pub(crate) fn bound(qmp: &mut Qmp<'_>) -> Result<()> {
    let backend = json!({ "type": "ringbuf", "data": { "size": KEPT } });
    match qmp.run_with("chardev-change", json!({ "id": "serial0", "backend": backend })) {
        Err(error) if error.code != code::PROCESS => Err(error),
        _ => Ok(()),
    }
}

/// What one that runs has written since it was ready, or since it was asked; where that is not kept, what is in the file.
pub(crate) fn last_words(store: Store<'_>, id: &str) -> Option<String> {
    let mut qmp = Qmp::open(store.host, store.operation, id, Duration::ZERO).ok()?;
    let read = json!({ "device": "serial0", "size": KEPT, "format": "base64" });
    let Ok(kept) = qmp.run_with("ringbuf-read", read) else { return tail(store.host, id) };
    let tail = text::tail(&STANDARD.decode(kept.as_str()?).ok()?, LINES, CHARACTERS);
    (!tail.is_empty()).then_some(tail)
}

/// Its end in one line, where it says anything. A guest may write what it likes: nothing of that controls a terminal.
pub(crate) fn tail(host: ProviderHost<'_>, id: &str) -> Option<String> {
    let text = host.files().read("state", &path(id)).ok()?;
    let end = text.len().saturating_sub(KEPT);
    let tail = text::tail(text.get(end..)?, LINES, CHARACTERS);
    (!tail.is_empty()).then_some(tail)
}
