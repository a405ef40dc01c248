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
//! Between 2 and 4 it is not known whether something was written to it, but that does not matter: an empty layer on top is
//! no difference. So [`settle`] puts it there if its file is there. Only a QEMU that runs has to be asked, as what is frozen
//! must be what it does not write to.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{CommandSpec, Error, Instance, Result, code};
use serde_json::{Value, json};

use crate::boot::Boot;
use crate::disk;
use crate::exec;
use crate::facts::Facts;
use crate::image::Image;
use crate::life::{PATIENCE, architecture, bring_up, same_image};
use crate::machine::Architecture;
use crate::qmp::Qmp;
use crate::record::{Phase, Record, Wish};
use crate::store::{ROOT, Store};

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
    let frozen = match record.phase(store.service(id)?.as_ref(), host.clock().now_ms()) {
        Phase::Ready => {
            // What the guest holds in its memory belongs to what is copied.
            let endpoint = exec::endpoint(host, store.operation, &record)?;
            let synced = host.ssh().capture(&endpoint, &CommandSpec::argv("sync", [""; 0]), b"")?;
            if !synced.status.success() {
                return Err(synced.failure(store.operation, "sync").subject(id));
            }
            let mut qmp = Qmp::open(host, store.operation, id, PATIENCE)?;
            // As it is now that nobody else talks.
            record = store.read(id)?;
            freeze(store, architecture, &mut record, Some(&mut qmp))?
        }
        Phase::Stopped => freeze(store, architecture, &mut record, None)?,
        Phase::Booting | Phase::Broken => return Err(record.not_running(store.operation)),
    };
    let now = host.clock().now_ms();
    let mut copy = Record {
        id: store.new_id(),
        name: record.name.as_ref().map(|it| format!("{it}-copy")),
        created_ms: now,
        seen_ms: now,
        wish: Wish::New,
        layers: std::iter::once(disk::new_name(host)).chain(frozen).collect(),
        next: None,
        host_key: None,
        tried: Vec::new(),
        restored: false,
        ..record
    };
    copy.unreachable();
    bring_up(&Boot { store, facts, architecture, image, templates: false }, &mut copy)
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
    let next = disk::new_name(store.host);
    record.next = Some(next.clone());
    store.write(record)?;
    disk::make(store, architecture, &record.id, &next, record.disk_gib)?;
    if let (Some(qmp), Some(top)) = (qmp, frozen.first()) {
        let file = json!({ "driver": "file", "filename": disk::path(&next) });
        let node = json!({ "driver": "qcow2", "node-name": next, "file": file, "backing": null });
        qmp.run_with("blockdev-add", node)?;
        qmp.run_with("blockdev-snapshot", json!({ "node": top, "overlay": next }))?;
    }
    put_on_top(store, record, next)?;
    Ok(frozen)
}

fn put_on_top(store: Store<'_>, record: &mut Record, layer: String) -> Result<()> {
    record.layers.insert(0, layer);
    record.next = None;
    store.write(record)
}

/// Brings to its end what a copy that was killed began.
pub(crate) fn settle(store: Store<'_>, record: &mut Record, qmp: Option<&mut Qmp<'_>>) -> Result<()> {
    let Some(next) = record.next.clone() else { return Ok(()) };
    let is_written = match qmp {
        Some(qmp) => writes_to(&qmp.run("query-block")?, &next),
        None => disk::is_there(store.host, &next),
    };
    if is_written {
        return put_on_top(store, record, next);
    }
    record.next = None;
    store.write(record)?;
    drop(store.host.files().remove(ROOT, &disk::path(&next), false));
    Ok(())
}

/// Whether a disk of the machine is this layer and what is below it.
fn writes_to(blocks: &Value, layer: &str) -> bool {
    let is = |it: &Value| it["inserted"]["node-name"] == layer;
    blocks.as_array().is_some_and(|it| it.iter().any(is))
}

#[cfg(test)]
mod tests;
