//! How a template is made: a guest boots, ends what it began with its boot, and is saved.

use std::collections::BTreeMap;
use std::time::Duration;

use pcoder_sdk::{CommandSpec, Error, ExitStatus, Result, code, text};

use super::{FORMAT, Key, MOST, Saved, Stamp, Template, discard, folder, ids, read, sha256, write};
use crate::boot::{Boot, Ready};
use crate::disk;
use crate::exec;
use crate::machine::Accelerator;
use crate::migrate;
use crate::qmp::Qmp;
use crate::record::{Record, Wish};
use crate::start::{self, Start};
use crate::store::ROOT;

/// How long it may take to save the devices. The memory is in its file already.
const SAVE: Duration = Duration::from_secs(20);
/// How long QEMU may take to end.
const END: Duration = Duration::from_secs(10);

/// Until the boot has nothing left to do, at most for some seconds, and what was written is on the disk: so no copy has to
/// do it. The login itself is of use, too: what it takes is in the memory.
const SETTLE: &str =
    "n=0; until [ -e /run/pcoder/settled ]; do n=$((n+1)); [ $n -le 200 ] || exit 1; sleep 0.05; done; sync";

/// Makes a template of this kind, while an instance waits. What did not work leaves nothing.
pub(super) fn make(
    boot: &Boot<'_>,
    accelerator: Accelerator,
    waits: &Record,
    key: &Key,
) -> std::result::Result<Template, String> {
    let store = boot.store;
    make_room(boot);
    let number = store.host.random().bits() >> 32;
    let mut template = Template {
        format: FORMAT,
        id: format!("tp-{number:08x}"),
        key: key.clone(),
        layer: disk::new_name(store.host),
        made_for: waits.id.clone(),
        seen_ms: store.host.clock().now_ms(),
        saved: None,
    };
    let made = begin(boot, &template).and_then(|()| save(boot, accelerator, waits, &mut template));
    made.map_err(|error| {
        discard(store, &template.id);
        error.message
    })?;
    Ok(template)
}

/// The record comes first, so that what is made after it is accounted for.
fn begin(boot: &Boot<'_>, template: &Template) -> Result<()> {
    boot.store.host.files().create_directory(ROOT, &folder(&template.id), None)?;
    write(boot.store, template)
}

fn save(boot: &Boot<'_>, accelerator: Accelerator, waits: &Record, template: &mut Template) -> Result<()> {
    let store = boot.store;
    let clock = store.host.clock();
    disk::make(store, boot.architecture, &waits.id, &template.layer, waits.disk_gib)?;
    let mut guest = Record {
        id: template.id.clone(),
        name: None,
        layers: vec![template.layer.clone()],
        environment: BTreeMap::new(),
        idle_stop: None,
        ..waits.clone()
    };
    boot.write_seed(&guest)?;
    let mut alive = boot.beat(waits);
    let mut beat = |template: &mut Template| {
        template.seen_ms = clock.now_ms();
        write(store, template).and_then(|()| alive())
    };
    let ready = boot.attempt(accelerator, &guest, Start::Template, &mut || beat(template))?;
    let Ready { host_key, ssh_port } =
        ready.map_err(|fell| Error::new(code::PROCESS, store.operation, fell.why).subject(&template.id))?;
    guest.wish = Wish::Run;
    (guest.host_key, guest.ssh_port) = (Some(host_key), Some(ssh_port));
    let endpoint = exec::endpoint(store.host, store.operation, &guest)?;
    let settled = store.host.ssh().capture(&endpoint, &CommandSpec::shell(SETTLE), b"")?;
    if !settled.status.success() {
        return Err(settled.failure(store.operation, "the wait for the end of its boot"));
    }
    beat(template)?;
    let mut qmp = Qmp::open(store.host, store.operation, &template.id, END)?;
    qmp.run("stop")?;
    migrate::save(&mut qmp, clock, &start::state(&template.id), SAVE)?;
    beat(template)?;
    qmp.run("quit")?;
    if !qmp.ends_within(END) {
        return Err(Error::new(code::TIMEOUT, store.operation, "QEMU does not end"));
    }
    drop(qmp);
    // One that crashed may not have written all.
    match boot.exit(&template.id)? {
        Some(ExitStatus::Exited(0)) => {}
        _ => {
            let log = store.host.services().log_tail(&template.id, 2000).unwrap_or_default();
            let message = format!("QEMU did not end well ({})", text::tail(&log, 1, 300));
            return Err(Error::new(code::PROCESS, store.operation, message));
        }
    }
    store.end(&template.id, Duration::ZERO)?;
    let state = start::state(&template.id);
    let now = clock.now_ms();
    template.saved = Some(Saved {
        at_ms: now,
        used_ms: now,
        host: boot.facts.key(),
        written: false,
        memory: Stamp::of(store, &start::memory(&template.id))?,
        layer: Stamp::of(store, &disk::path(&template.layer))?,
        state: Stamp::of(store, &state)?,
        state_sha256: sha256(&store.host.files().read(ROOT, &state)?),
    });
    // From here on it is one.
    write(store, template)
}

/// Removes those that were not used for the longest time, so that with the new one there are not too many.
fn make_room(boot: &Boot<'_>) {
    let store = boot.store;
    let mut all: Vec<(u64, String)> = ids(store)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|id| Some((read(store, &id)?.saved?.used_ms, id)))
        .collect();
    all.sort();
    let surplus = (all.len() + 1).saturating_sub(MOST);
    for (_, id) in all.into_iter().take(surplus) {
        discard(store, &id);
    }
}
