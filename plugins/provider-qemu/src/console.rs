//! What a guest wrote to its serial console, for people.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::text;

/// How many lines of its end are told, and how many characters.
const LINES: usize = 20;
const CHARACTERS: usize = 1500;

/// Where it is, below the root `state`.
pub(crate) fn path(id: &str) -> String {
    format!("{}/console.log", crate::store::folder(id))
}

/// Whether there is anything.
pub(crate) fn has_spoken(host: ProviderHost<'_>, id: &str) -> bool {
    host.files().stat("state", &path(id)).is_ok_and(|it| it.size > 0)
}

/// Its end in one line, where it says anything. A guest may write what it likes: nothing of that controls a terminal.
pub(crate) fn tail(host: ProviderHost<'_>, id: &str) -> Option<String> {
    let text = host.files().read("state", &path(id)).ok()?;
    let end = text.len().saturating_sub(64 << 10);
    let tail = text::tail(text.get(end..)?, LINES, CHARACTERS);
    (!tail.is_empty()).then_some(tail)
}
