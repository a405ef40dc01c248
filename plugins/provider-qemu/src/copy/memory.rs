//! The memory of an instance that is copied: the copy goes on where it was, which takes a second, with all that runs there.
//!
//! Its memory is written to a file while it runs, and for what changed meanwhile it stands still, some hundredths of a second.
//! Then its disk is frozen too, so that both are of the same moment. To let it stand still for all of it took three seconds
//! for a machine that had begun with a template: pages that nobody has touched are read from the template's file.
//!
//! The copy learns that it is one as those of templates do. What was saved is removed when the copy goes on. Whatever does
//! not work here, also that a busy machine changes more than is written, the copy boots from the disk.

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

/// How long the memory may take that is written while the instance runs, and the rest, for which it stands still.
const LONGEST: Duration = Duration::from_secs(20);
const STILL: Duration = Duration::from_secs(5);

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
    let frozen_at = save_and_cut(store, architecture, record, copy, qmp);
    let is_saved = matches!(frozen_at, Ok((_, true)));
    if !is_saved {
        drop(migrate::cancel(qmp));
        drop(store.host.files().remove(ROOT, &start::state(&copy.id), false));
    }
    // Whatever happened.
    let went_on = qmp.run("cont");
    let done = frozen_at.and_then(|(next, _)| went_on.map(|_| next)).and_then(|next| put_on_top(store, record, next));
    if let Err(error) = done {
        drop(store.remove(&copy.id));
        return Err(error);
    }
    Ok((frozen, if is_saved { From::Saved } else { From::Nothing }))
}

/// Saves the memory and freezes the disk. Says which layer is next, and whether the memory was saved.
fn save_and_cut(
    store: Store<'_>,
    architecture: Architecture,
    record: &mut Record,
    copy: &Record,
    qmp: &mut Qmp<'_>,
) -> Result<(String, bool)> {
    // Before something is saved for it, so that this is accounted for. QEMU writes into the file that is there, which
    // nobody else reads: in a memory there may be anything.
    store.create(copy)?;
    let path = start::state(&copy.id);
    store.host.files().write(ROOT, &path, b"", WriteOptions::plain().with_mode(0o600))?;
    record.paused = true;
    let next = prepare(store, architecture, record)?;
    let clock = store.host.clock();
    let stands = migrate::approach(qmp, clock, &path, LONGEST).is_ok();
    if !stands {
        drop(migrate::cancel(qmp));
    }
    cut(qmp, &record.layers, &next)?;
    Ok((next, stands && migrate::finish(qmp, clock, STILL).is_ok()))
}

/// Removes what was saved for a copy: it is as large as the memory, and holds whatever that did.
pub(crate) fn forget(store: Store<'_>, id: &str) {
    drop(store.host.files().remove(ROOT, &start::state(id), false));
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
    forget(store, &record.id);
    let why = match tried {
        Ok(Ok(ready)) => return Ok(Some(ready)),
        Ok(Err(fell)) => fell.why,
        Err(error) => error.message,
    };
    drop(store.end(&record.id, Duration::ZERO));
    Err(format!("memory: {why}"))
}
