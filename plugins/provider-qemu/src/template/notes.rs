//! What is remembered of kinds of machines that have no template: that one booted, and how it failed to make one.

use pcoder_sdk::{Result, WriteOptions};
use serde::{Deserialize, Serialize};

use super::{FOLDER, Key};
use crate::store::{ROOT, Store};

const FILE: &str = "templates/notes.json";
/// The oldest are forgotten.
const MOST: usize = 32;

/// How long no template is made after the first failure in a row, the second and so on.
const WAITS_MS: [u64; 3] = [600_000, 3_600_000, 86_400_000];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Note {
    /// The key's digest.
    key: String,
    at_ms: u64,
    /// In a row.
    failures: usize,
    /// The last one's reason, for people.
    why: Option<String>,
}

/// What cannot be read is forgotten: it costs a boot or a try.
fn read(store: Store<'_>) -> Vec<Note> {
    let text = store.host.files().read(ROOT, FILE).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write(store: Store<'_>, notes: &[Note]) -> Result<()> {
    let text = serde_json::to_vec_pretty(notes).unwrap_or_default();
    store.host.files().create_directory(ROOT, FOLDER, None)?;
    store.host.files().write_atomic(ROOT, FILE, &text, WriteOptions::plain())
}

/// Changes the note of a key. Of two who do so at once one is lost, which costs no more than to forget it.
fn change(store: Store<'_>, key: &Key, change: impl FnOnce(&mut Note)) {
    let mut notes = read(store);
    let digest = key.digest();
    let old = notes.iter().position(|it| it.key == digest).map(|at| notes.remove(at));
    let is_new = old.is_none();
    let mut note = old.clone().unwrap_or(Note { key: digest, at_ms: 0, failures: 0, why: None });
    change(&mut note);
    if !is_new && old.as_ref() == Some(&note) {
        return;
    }
    note.at_ms = store.host.clock().now_ms();
    notes.push(note);
    let surplus = notes.len().saturating_sub(MOST);
    drop(write(store, notes.get(surplus..).unwrap_or_default()));
}

/// One of this kind booted by itself.
pub(crate) fn booted(store: Store<'_>, key: &Key) {
    change(store, key, |_| ());
}

pub(super) fn failed(store: Store<'_>, key: &Key, why: &str) {
    change(store, key, |note| {
        note.failures += 1;
        note.why = Some(why.to_owned());
    });
}

/// An instance began with a template of this kind.
pub(super) fn worked(store: Store<'_>, key: &Key) {
    change(store, key, |note| {
        note.failures = 0;
        note.why = None;
    });
}

/// Whether it is time to make one.
pub(super) fn is_due(store: Store<'_>, key: &Key, now: u64) -> bool {
    let digest = key.digest();
    read(store).iter().any(|note| {
        let wait = note.failures.checked_sub(1).map(|it| WAITS_MS[it.min(WAITS_MS.len() - 1)]);
        note.key == digest && wait.is_none_or(|it| now.saturating_sub(note.at_ms) > it)
    })
}

/// Forgets all of it.
pub(super) fn forget(store: Store<'_>) {
    drop(store.host.files().remove(ROOT, FILE, false));
}
