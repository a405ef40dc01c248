//! Templates: guests that were booted, and saved when nothing was left for them to do. An instance that is like one goes on
//! from there, which takes a second where a boot takes seven.
//!
//! A template's guest is nobody's: it boots with a seed of its own, nothing of an instance's is in its memory, and each that
//! begins with it learns from QEMU's `vmgenid` that it is a copy, and makes itself another machine (guest/README.md). Its
//! memory is a file that all of them share until they write to it, and its disk is a layer below theirs.
//!
//! **When one is made:** by the second boot of the same kind of machine. The first one is not kept waiting, as nobody knows
//! yet whether there will be another; the second waits a second longer than for a boot of its own, as it begins with the
//! template itself. It could be made behind the user's back, by a QEMU that goes on after the first boot's call: then a
//! machine that nobody asked for would run until the next call, and take the processor from the one that somebody did.
//!
//! **Which fits:** the one with the same [`Key`], which has QEMU's whole command line. What differs in anything that the
//! guest can see is another machine.
//!
//! **When it does not work**, the instance boots, and how that kind of machine failed is remembered ([`notes`]). Whatever
//! happens here is no error of a boot.
//!
//! **Who else is there:** each template that is made has an identity of its own, so that two of one kind may be made at once
//! and are both whole. Nothing of one is changed once it is there. To remove one, its record goes first: no instance begins
//! with it then, and those that run have its memory open, and its layer is theirs as well.

mod make;
mod notes;

use std::time::Duration;

use pcoder_sdk::{Error, Result, WriteOptions, code};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::boot::{Boot, Ready};
use crate::disk;
use crate::facts::Facts;
use crate::machine::{Accelerator, Architecture};
use crate::record::Record;
use crate::start::{self, Start};
use crate::store::{ROOT, Store, folder, if_there, is_number};

pub(crate) use notes::booted;

pub(crate) const FOLDER: &str = "templates";
const FORMAT: u32 = 1;

/// Whoever makes a template says so again and again. Who has not for this long does not any more.
const STALE_MS: u64 = 120_000;
/// How many are kept. Each takes what a booted guest's memory does, 150 MB or so.
const MOST: usize = 3;
/// How long one is kept that nobody uses.
const UNUSED_MS: u64 = 30 * 86_400_000;
/// How exactly it is known when one was used.
const USED_MS: u64 = 3_600_000;
/// After this time what was written is on the disk, also where the power fails later.
const WRITTEN_MS: u64 = 120_000;

/// What makes machines the same kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Key {
    qemu: String,
    /// QEMU's, for an instance without a name and a layer without one.
    arguments: Vec<String>,
    /// The sha256 of what the guest begins with.
    image: Vec<String>,
    disk_gib: u64,
    /// Where the processor is this host's own one: since which start of the host. Another one may have another processor,
    /// or other microcode.
    host: Option<String>,
}

/// Whether a machine can be saved and others go on with that.
///
/// - A guest has to learn that it is a copy. Without `vmgenid` somebody would have to tell it through its control port, which
///   QMP cannot write to.
/// - Of KVM and of software it is known that a machine goes on as it was; of the others nobody says it.
/// - QEMU has memory in files on POSIX only. The rest might work elsewhere too, and nobody has tried.
pub(crate) fn can_be_saved(facts: &Facts, architecture: Architecture, accelerator: Accelerator) -> bool {
    let is_known = matches!(accelerator, Accelerator::Kvm | Accelerator::Tcg);
    is_known && architecture.generation && facts.os != "windows"
}

impl Key {
    /// The key of what an instance is, where there can be a template of it.
    pub(crate) fn of(boot: &Boot<'_>, accelerator: Accelerator, record: &Record) -> Option<Self> {
        let knows_of_copies = !boot.image.is_set_up_by_cloud_init();
        if !knows_of_copies || !can_be_saved(&boot.facts, boot.architecture, accelerator) {
            return None;
        }
        let qemu = boot.facts.qemu()?.to_owned();
        let nobody = Record { id: "vm-00000000".to_owned(), layers: vec!["top".to_owned()], ..record.clone() };
        Some(Self {
            qemu,
            arguments: boot.arguments(accelerator, &nobody),
            image: boot.image.digests().map(str::to_owned).to_vec(),
            disk_gib: record.disk_gib,
            host: (!accelerator.is_software()).then(|| boot.facts.key()),
        })
    }

    /// Whether this host, as far as it is known, can still have machines of this kind.
    fn may_be_of(&self, facts: &Facts) -> bool {
        let is_here = |host: &String| *host == facts.key();
        facts.qemu().is_none_or(|it| it == self.qemu && self.host.as_ref().is_none_or(is_here))
    }

    /// A short name of it.
    fn digest(&self) -> String {
        sha256(&serde_json::to_vec(self).unwrap_or_default())
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|it| format!("{it:02x}")).collect()
}

/// `template.json`: a template, or what is to become one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Template {
    format: u32,
    pub(crate) id: String,
    key: Key,
    /// Its disk, above the image's.
    layer: String,
    /// The instance whose boot makes it, and waits meanwhile.
    made_for: String,
    /// When whoever makes it last said so.
    seen_ms: u64,
    /// Nothing until it is whole.
    saved: Option<Saved>,
}

/// What belongs together, and is not written to any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Saved {
    at_ms: u64,
    used_ms: u64,
    /// During which start of the host.
    host: String,
    /// It was used so late that all of it was on the disk.
    written: bool,
    memory: Stamp,
    layer: Stamp,
    state: Stamp,
    state_sha256: String,
}

/// By which it is seen that a file was changed. The memory is too large to be read at each boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stamp {
    size: u64,
    modified_ms: Option<u64>,
}

impl Stamp {
    fn of(store: Store<'_>, path: &str) -> Result<Self> {
        let entry = store.host.files().stat(ROOT, path)?;
        Ok(Self { size: entry.size, modified_ms: entry.modified_ms })
    }
}

/// Whether a text is a template's identity.
pub(crate) fn is_id(text: &str) -> bool {
    text.strip_prefix("tp-").is_some_and(is_number)
}

fn file(id: &str) -> String {
    format!("{}/template.json", folder(id))
}

fn ids(store: Store<'_>) -> Result<Vec<String>> {
    Ok(store.names(FOLDER)?.into_iter().filter(|it| is_id(it)).collect())
}

/// One that is there and can be read. Of another one nobody can begin anything.
fn read(store: Store<'_>, id: &str) -> Option<Template> {
    let text = store.host.files().read(ROOT, &file(id)).ok()?;
    let template: Template = serde_json::from_slice(&text).ok()?;
    (template.format == FORMAT && template.id == id && disk::is_layer(&template.layer)).then_some(template)
}

fn write(store: Store<'_>, template: &Template) -> Result<()> {
    let text = serde_json::to_vec_pretty(template)
        .map_err(|error| Error::new(code::INTERNAL, store.operation, error.to_string()))?;
    store.host.files().write_atomic(ROOT, &file(&template.id), &text, WriteOptions::plain())
}

/// The layers that templates need.
pub(crate) fn layers(store: Store<'_>) -> Result<Vec<String>> {
    Ok(ids(store)?.iter().filter_map(|id| read(store, id)).map(|it| it.layer).collect())
}

/// Removes one, whatever there is of it, but for its layer.
fn remove(store: Store<'_>, id: &str) -> Result<()> {
    if_there(store.host.files().remove(ROOT, &file(id), false))?;
    store.end(id, Duration::ZERO)?;
    if_there(store.host.files().remove(ROOT, &folder(id), true))
}

/// The same with its layer, if nobody else needs that.
fn discard(store: Store<'_>, id: &str) {
    // What is left is removed by the next boot.
    drop(remove(store, id));
    drop(store.remove_unneeded_layers());
}

/// Begins a new instance with the memory of a template, where there is one or it is time to make one. What did not work is
/// told; then nothing runs, and the instance is as it was.
pub(crate) fn restored(
    boot: &Boot<'_>,
    accelerator: Accelerator,
    record: &mut Record,
    key: &Key,
) -> std::result::Result<Option<Ready>, String> {
    let store = boot.store;
    let template = match find(boot, key) {
        Some(template) => template,
        None if !is_due(store, key) => return Ok(None),
        None => match make::make(boot, accelerator, record, key) {
            Ok(template) => template,
            Err(why) => {
                notes::failed(store, key, &why);
                return Err(format!("template: it could not be made: {why}"));
            }
        },
    };
    let own = record.layers.clone();
    record.layers.push(template.layer.clone());
    record.seen_ms = store.host.clock().now_ms();
    let why = match begin(boot, accelerator, record, &template) {
        Ok(Begun::Ready(ready)) => {
            notes::worked(store, key);
            use_again(boot, template);
            return Ok(Some(ready));
        }
        Ok(Begun::Gone) => None,
        Ok(Begun::Fell(why)) => Some(why),
        Err(error) => Some(error.message),
    };
    drop(store.end(&record.id, Duration::ZERO));
    record.layers = own;
    drop(store.write(record));
    let Some(why) = why else { return Ok(None) };
    notes::failed(store, key, &why);
    discard(store, &template.id);
    Err(format!("template: {why}"))
}

enum Begun {
    Ready(Ready),
    /// Somebody removed the template.
    Gone,
    Fell(String),
}

fn begin(boot: &Boot<'_>, accelerator: Accelerator, record: &Record, template: &Template) -> Result<Begun> {
    let store = boot.store;
    // In this order: whoever removes the template after that finds that its layer is needed.
    store.write(record)?;
    if read(store, &template.id).is_none() {
        return Ok(Begun::Gone);
    }
    if let Some(top) = record.layers.first() {
        disk::make(store, boot.architecture, &record.id, top, record.disk_gib)?;
    }
    let tried = boot.attempt(accelerator, record, Start::Copy(&template.id), &mut boot.beat(record))?;
    Ok(tried.map_or_else(|fell| Begun::Fell(fell.why), Begun::Ready))
}

/// The template of this kind that can be used. One that cannot any more goes.
fn find(boot: &Boot<'_>, key: &Key) -> Option<Template> {
    let store = boot.store;
    for id in ids(store).unwrap_or_default() {
        let Some(template) = read(store, &id).filter(|it| it.key == *key) else { continue };
        match &template.saved {
            None => {}
            Some(saved) if is_whole(store, &template, saved, &boot.facts) => return Some(template),
            Some(_) => discard(store, &id),
        }
    }
    None
}

fn is_whole(store: Store<'_>, template: &Template, saved: &Saved, facts: &Facts) -> bool {
    let path = start::state(&template.id);
    let is = |path: &str, stamp: &Stamp| Stamp::of(store, path).is_ok_and(|it| it == *stamp);
    // What was written shortly before the power failed may not be there, whatever the file's size says.
    (saved.written || saved.host == facts.key())
        && is(&start::memory(&template.id), &saved.memory)
        && is(&disk::path(&template.layer), &saved.layer)
        && is(&path, &saved.state)
        && store.host.files().read(ROOT, &path).is_ok_and(|it| sha256(&it) == saved.state_sha256)
}

/// Notes that a template is used, so that it is kept.
fn use_again(boot: &Boot<'_>, template: Template) {
    let now = boot.store.host.clock().now_ms();
    let Some(saved) = &template.saved else { return };
    let written = saved.written || now.saturating_sub(saved.at_ms) > WRITTEN_MS;
    if written != saved.written || now.saturating_sub(saved.used_ms) > USED_MS {
        let saved = Saved { used_ms: now, written, ..saved.clone() };
        // Without it the template is made again some day.
        drop(write(boot.store, &Template { saved: Some(saved), ..template }));
    }
}

/// Whether the next boot of this kind makes a template: another one has booted, nobody else is at it, and it did not fail
/// lately.
fn is_due(store: Store<'_>, key: &Key) -> bool {
    let now = store.host.clock().now_ms();
    let others = ids(store).unwrap_or_default();
    let is_made = |it: &Template| it.key == *key && it.saved.is_none() && !is_stale(it, now);
    notes::is_due(store, key, now) && !others.iter().filter_map(|id| read(store, id)).any(|it| is_made(&it))
}

fn is_stale(template: &Template, now: u64) -> bool {
    template.saved.is_none() && now.saturating_sub(template.seen_ms) > STALE_MS
}

/// Whether it was being made for an instance that is there no more: who was at it was killed, or is about to fail.
fn is_nobodys(store: Store<'_>, template: &Template) -> bool {
    let waits = |it: &Template| store.read(&it.made_for).map_or_else(|error| error.code != code::NOT_FOUND, |_| true);
    template.saved.is_none() && !waits(template)
}

/// Removes what is not needed any more: what was not finished, what another QEMU saved, what nobody used for long, the
/// second one of a kind; and, where none are to be kept, all. What fails is left for the next time.
pub(crate) fn sweep(store: Store<'_>, facts: &Facts, keep: bool) {
    let now = store.host.clock().now_ms();
    // First: whoever starts one has written its record before.
    let services = store.host.services().list().unwrap_or_default();
    let ids = ids(store).unwrap_or_default();
    let mut kinds: Vec<Key> = Vec::new();
    let mut goes = Vec::new();
    for id in &ids {
        let stays = match read(store, id) {
            Some(template) => match &template.saved {
                _ if !keep || is_stale(&template, now) || is_nobodys(store, &template) => false,
                None => true,
                Some(saved) => {
                    let is_second = kinds.contains(&template.key);
                    let is_fit = template.key.may_be_of(facts);
                    kinds.push(template.key);
                    is_fit && !is_second && now.saturating_sub(saved.used_ms) <= UNUSED_MS
                }
            },
            // Somebody may be about to write its record, but not for this long.
            None => {
                let made = store.host.files().stat(ROOT, &folder(id)).ok().and_then(|it| it.modified_ms);
                made.is_some_and(|it| now.saturating_sub(it) <= STALE_MS)
            }
        };
        if !stays {
            goes.push(id.clone());
        }
    }
    goes.extend(services.into_iter().map(|it| it.name).filter(|it| is_id(it) && !ids.contains(it)));
    if !keep {
        notes::forget(store);
    }
    if goes.is_empty() {
        return;
    }
    for id in goes {
        drop(remove(store, &id));
    }
    drop(store.remove_unneeded_layers());
}

#[cfg(test)]
mod tests;
