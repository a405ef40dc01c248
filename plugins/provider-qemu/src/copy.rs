//! Copies of instances: their disks part, and what was written before is shared.
//!
//! What an instance writes to is frozen and gets a new layer on top; the copy gets another one. At each point at which
//! this may be killed, the record and the disks make a chain that boots:
//!
//! 1. the record names the new layer as `next`, so that nobody removes it
//! 2. the layer's file is made, whole or not at all
//! 3. QEMU, where it runs, writes to it from now on
//! 4. the record has it on top
//!
//! Where the memory is copied too ([`memory`]), the machine stands still around 3, and the record says from 1 to 4 that it may.
//!
//! Between 2 and 4 it is not known whether something was written to it, but that does not matter: an empty layer on top is
//! no difference. So [`settle`] puts it there if its file is there. Only a QEMU that runs has to be asked, as what is frozen
//! must be what it does not write to.

mod memory;

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{CommandSpec, Error, Instance, Result, code};
use serde_json::{Value, json};

use crate::boot::{Boot, From};
use crate::disk;
use crate::exec;
use crate::facts::Facts;
use crate::image::Image;
use crate::life::{PATIENCE, architecture, bring_up, same_image};
use crate::machine::Architecture;
use crate::migrate;
use crate::qmp::Qmp;
use crate::record::{Phase, Record, Wish};
use crate::store::{ROOT, Store};

pub(crate) use memory::{forget, restored};

/// How many layers a disk may have. Each one is a file that QEMU holds open, and one more to look into.
const DEEPEST: usize = 30;

pub(crate) fn fork(host: ProviderHost<'_>, id: &str) -> Result<Instance> {
    let store = Store::new(host, "provider.fork");
    let mut record = store.read(id)?;
    let facts = Facts::read(host, store.operation)?;
    let architecture = architecture(&facts, store.operation)?;
    let image = Image::read(host, store.operation, &record.image)?;
    same_image(store, &record, &image)?;
    if record.layers.len() + usize::from(record.next.is_some()) >= DEEPEST {
        let message = format!("its disk has {} layers already", record.layers.len());
        return Err(Error::new(code::LIMIT, store.operation, message)
            .subject(id)
            .hint("boot a new instance, and copy from that one"));
    }
    let now = host.clock().now_ms();
    let mut copy = Record {
        id: store.new_id(),
        name: record.name.as_ref().map(|it| format!("{it}-copy")),
        created_ms: now,
        seen_ms: now,
        wish: Wish::New,
        layers: vec![disk::new_name(host)],
        next: None,
        paused: false,
        halting: false,
        host_key: None,
        tried: Vec::new(),
        restored: false,
        ..record.clone()
    };
    copy.unreachable();
    let (frozen, from) = match record.phase(store.service(id)?.as_ref(), now) {
        Phase::Ready => {
            if record.paused {
                record = go_on(store, id, PATIENCE)?;
            }
            // What the guest holds in its memory belongs to what is copied, also where the memory is not.
            let endpoint = exec::endpoint(host, store.operation, &record)?;
            let synced = host.ssh().capture(&endpoint, &CommandSpec::argv("sync", [""; 0]), b"");
            let synced = synced.map_err(|error| exec::told(store, id, error))?;
            if !synced.status.success() {
                return Err(synced.failure(store.operation, "sync").subject(id));
            }
            let mut qmp = Qmp::open(host, store.operation, id, PATIENCE)?;
            // As it is now that nobody else talks.
            record = store.read(id)?;
            if record.halting {
                return Err(record.not_running(store.operation));
            }
            let knows_of_copies = !image.is_set_up_by_cloud_init();
            match knows_of_copies && memory::can_be_saved(host, &facts, architecture, &record) {
                true => memory::freeze(store, architecture, &mut record, &copy, &mut qmp)?,
                false => (freeze(store, architecture, &mut record, Some(&mut qmp))?, From::Nothing),
            }
        }
        Phase::Stopped => (freeze(store, architecture, &mut record, None)?, From::Nothing),
        Phase::Booting | Phase::Stopping | Phase::Broken => return Err(record.not_running(store.operation)),
    };
    copy.layers.extend(frozen);
    bring_up(&Boot { store, facts, architecture, image, from }, &mut copy)
}

/// Puts a new layer on top, and returns those that are not written to any more.
fn freeze(
    store: Store<'_>,
    architecture: Architecture,
    record: &mut Record,
    mut qmp: Option<&mut Qmp<'_>>,
) -> Result<Vec<String>> {
    settle(store, record, qmp.as_deref_mut())?;
    if let (None, [top, below @ ..]) = (&qmp, &record.layers[..])
        && !below.is_empty()
        && disk::is_empty(store, top, record.disk_gib)
    {
        // Copied before, and not run since. So a template can be copied for ever.
        return Ok(below.to_vec());
    }
    let frozen = record.layers.clone();
    let next = prepare(store, architecture, record)?;
    if let Some(qmp) = qmp {
        cut(qmp, &frozen, &next)?;
    }
    put_on_top(store, record, next)?;
    Ok(frozen)
}

/// Makes the layer that is to be put on top.
fn prepare(store: Store<'_>, architecture: Architecture, record: &mut Record) -> Result<String> {
    let next = disk::new_name(store.host);
    record.next = Some(next.clone());
    store.write(record)?;
    disk::make(store, architecture, &record.id, &next, record.disk_gib)?;
    Ok(next)
}

/// From now on QEMU writes to the next layer.
fn cut(qmp: &mut Qmp<'_>, layers: &[String], next: &str) -> Result<()> {
    let file = json!({ "driver": "file", "filename": disk::path(next) });
    let node = json!({ "driver": "qcow2", "node-name": next, "file": file, "backing": null });
    qmp.run_with("blockdev-add", node)?;
    qmp.run_with("blockdev-snapshot", json!({ "node": layers.first(), "overlay": next })).map(drop)
}

/// Its machine, if it runs, does not stand still any more.
fn put_on_top(store: Store<'_>, record: &mut Record, layer: String) -> Result<()> {
    record.layers.insert(0, layer);
    record.next = None;
    record.paused = false;
    store.write(record)
}

/// Brings to its end what a copy that was killed began.
pub(crate) fn settle(store: Store<'_>, record: &mut Record, mut qmp: Option<&mut Qmp<'_>>) -> Result<()> {
    if let (true, Some(qmp)) = (record.paused, qmp.as_deref_mut()) {
        // It may still be saving, and does not go on before that ends. One that runs takes no harm.
        migrate::cancel(qmp)?;
        qmp.run("cont")?;
    }
    let Some(next) = record.next.clone() else {
        return match std::mem::take(&mut record.paused) {
            true => store.write(record),
            false => Ok(()),
        };
    };
    let is_written = match qmp {
        Some(qmp) => writes_to(&qmp.run("query-block")?, &next),
        None => disk::is_there(store.host, &next),
    };
    if is_written {
        return put_on_top(store, record, next);
    }
    record.next = None;
    record.paused = false;
    store.write(record)?;
    drop(store.host.files().remove(ROOT, &disk::path(&next), false));
    Ok(())
}

/// Lets an instance go on that stands still because whoever copied it was killed; one that is being copied is waited for,
/// for so long.
pub(crate) fn go_on(store: Store<'_>, id: &str, patience: Duration) -> Result<Record> {
    let mut qmp = Qmp::open(store.host, store.operation, id, patience)?;
    let mut record = store.read(id)?;
    settle(store, &mut record, Some(&mut qmp))?;
    Ok(record)
}

/// Whether a disk of the machine is this layer and what is below it.
fn writes_to(blocks: &Value, layer: &str) -> bool {
    let is = |it: &Value| it["inserted"]["node-name"] == layer;
    blocks.as_array().is_some_and(|it| it.iter().any(is))
}

#[cfg(test)]
mod tests;
