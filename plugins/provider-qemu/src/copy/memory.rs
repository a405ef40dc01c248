//! The memory of an instance that is copied: the copy goes on where it was, which takes a second, with all that runs there.
//!
//! The machine stands still while its disk is frozen and its memory is written to a file, so that both are of the same
//! moment: half a second for a guest that did little, and as long as the disk takes for what one that did much has used.
//! Beyond some seconds a boot of the copy is the smaller harm. The copy learns that it is one as those of templates do.
//! What was saved is removed when the copy goes on, and whatever does not work here, the copy boots from the disk.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Result, WriteOptions};

use super::{cut, prepare, put_on_top, settle};
use crate::boot::{Boot, From, Ready};
use crate::disk;
use crate::facts::Facts;
use crate::machine::{Accelerator, Architecture};
use crate::migrate;
use crate::qmp::Qmp;
use crate::record::Record;
use crate::start::{self, Start};
use crate::store::{ROOT, Store};
use crate::template;

/// How long an instance may stand still.
const LONGEST: Duration = Duration::from_secs(8);

/// Whether a copy can begin with the memory of this instance.
pub(super) fn can_be_saved(host: ProviderHost<'_>, facts: &Facts, architecture: Architecture, record: &Record) -> bool {
    let accelerator = record.accelerator.as_deref().and_then(Accelerator::of);
    let wanted = host.settings().get("template").as_deref() != Some("off");
    wanted && accelerator.is_some_and(|it| template::can_be_saved(facts, architecture, it))
}

/// Freezes the disk and saves the memory for a copy. That the memory could not be saved is no error.
pub(super) fn freeze(
    store: Store<'_>,
    architecture: Architecture,
    record: &mut Record,
    copy: &Record,
    qmp: &mut Qmp<'_>,
) -> Result<(Vec<String>, From)> {
    settle(store, record, Some(qmp))?;
    let frozen = record.layers.clone();
    let path = start::state(&copy.id);
    let cut = stand_still(store, architecture, record, copy, &path, qmp);
    let stood = matches!(cut, Ok((_, true)));
    let saved = stood.then(|| migrate::save(qmp, store.host.clock(), &path, LONGEST));
    let is_saved = matches!(saved, Some(Ok(())));
    if !is_saved {
        drop(migrate::cancel(qmp));
        drop(store.host.files().remove(ROOT, &path, false));
    }
    // Whatever happened.
    let went_on = qmp.run("cont");
    let done = cut.and_then(|(next, _)| went_on.map(|_| next)).and_then(|next| put_on_top(store, record, next));
    if let Err(error) = done {
        drop(store.remove(&copy.id));
        return Err(error);
    }
    Ok((frozen, if is_saved { From::Saved } else { From::Nothing }))
}

/// Freezes the disk of a machine that stands still from now on, and says which layer is next and whether it does.
fn stand_still(
    store: Store<'_>,
    architecture: Architecture,
    record: &mut Record,
    copy: &Record,
    path: &str,
    qmp: &mut Qmp<'_>,
) -> Result<(String, bool)> {
    // Before something is saved for it, so that this is accounted for. QEMU writes into the file that is there, which
    // nobody else reads: in a memory there may be anything.
    store.create(copy)?;
    store.host.files().write(ROOT, path, b"", WriteOptions::plain().with_mode(0o600))?;
    record.paused = true;
    let next = prepare(store, architecture, record)?;
    // One that may not be stopped is copied as it runs.
    let stands = qmp.run("stop").is_ok();
    cut(qmp, &record.layers, &next)?;
    Ok((next, stands))
}

/// Lets a copy go on with what was saved for it, on the accelerator that it was saved on. What did not work is told; then
/// nothing runs.
pub(crate) fn restored(
    boot: &Boot<'_>,
    accelerator: Accelerator,
    record: &Record,
) -> std::result::Result<Option<Ready>, String> {
    if record.accelerator.as_deref() != Some(accelerator.name()) {
        return Ok(None);
    }
    let store = boot.store;
    let made = match record.layers.first() {
        Some(top) => disk::make(store, boot.architecture, &record.id, top, record.disk_gib),
        None => Ok(()),
    };
    let tried = made.and_then(|()| boot.attempt(accelerator, record, Start::Saved, &mut boot.beat(record)));
    // It is as large as the memory, and holds whatever that did.
    drop(store.host.files().remove(ROOT, &start::state(&record.id), false));
    let why = match tried {
        Ok(Ok(ready)) => return Ok(Some(ready)),
        Ok(Err(fell)) => fell.why,
        Err(error) => error.message,
    };
    drop(store.end(&record.id, Duration::ZERO));
    Err(format!("memory: {why}"))
}
