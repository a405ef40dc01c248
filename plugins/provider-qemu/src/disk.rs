//! Layers: disks over the image's. QEMU makes the first one of a size, and the others are copies of it.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Result, ServiceSpec, WriteOptions, code};
use serde_json::{Value, json};

use crate::machine::{self, Architecture};
use crate::qmp::Qmp;
use crate::store::{ROOT, Store, folder, maker};

pub(crate) const FOLDER: &str = "layers";

/// How long QEMU may take to write the 200 KiB of an empty disk.
const MADE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// A name that no layer has. QEMU's names of disks have at most 31 characters.
pub(crate) fn new_name(host: ProviderHost<'_>) -> String {
    format!("l{:016x}", host.random().bits())
}

/// Whether a text is a layer's name.
pub(crate) fn is_layer(text: &str) -> bool {
    text.strip_prefix('l').is_some_and(|it| it.len() == 16 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

pub(crate) fn file(layer: &str) -> String {
    format!("{layer}.qcow2")
}

/// Where a layer is, below the root `state`.
pub(crate) fn path(layer: &str) -> String {
    format!("{FOLDER}/{layer}.qcow2")
}

pub(crate) fn is_there(host: ProviderHost<'_>, layer: &str) -> bool {
    host.files().stat(ROOT, &path(layer)).is_ok()
}

/// Makes a layer of this size: it is whole, or not there. `id` is the instance for which that is done.
pub(crate) fn make(store: Store<'_>, architecture: Architecture, id: &str, layer: &str, gib: u64) -> Result<()> {
    let blank = blank(store, architecture, id, gib)?;
    let files = store.host.files();
    let made = files
        .create_directory(ROOT, FOLDER, None)
        .and_then(|()| files.write_atomic(ROOT, &path(layer), &blank, WriteOptions::plain()));
    made.map_err(|error| error.during(store.operation))
}

/// Whether nothing was written to a layer of this size that QEMU does not have open: whatever is written makes it longer.
pub(crate) fn is_empty(store: Store<'_>, layer: &str, gib: u64) -> bool {
    let size = |path: &str| store.host.files().stat(ROOT, path).ok().map(|it| it.size);
    let blank = size(&kept(gib));
    blank.is_some() && size(&path(layer)) == blank
}

/// Where the empty disk of a size is kept.
fn kept(gib: u64) -> String {
    format!("blank-{gib}gib.qcow2")
}

/// An empty disk of this size.
fn blank(store: Store<'_>, architecture: Architecture, id: &str, gib: u64) -> Result<Vec<u8>> {
    let files = store.host.files();
    let kept = kept(gib);
    match files.read(ROOT, &kept) {
        Ok(blank) if is_blank(&blank, gib) => return Ok(blank),
        Ok(_) => {}
        Err(error) if error.code == code::NOT_FOUND => {}
        Err(error) => return Err(error.during(store.operation)),
    }
    let path = format!("{}/blank.qcow2", folder(id));
    let service = maker(id);
    files.write(ROOT, &path, b"", WriteOptions::plain())?;
    store.end(&service, Duration::ZERO)?;
    let spec =
        ServiceSpec { program: architecture.program.to_owned(), args: machine::maker(&path), folder: ".".to_owned() };
    start(store, &service, &spec)?;
    let made = format(store, &service, gib);
    let log = store.host.services().log_tail(&service, 2000).unwrap_or_default();
    store.end(&service, Duration::ZERO)?;
    let failed = |why: &str| {
        let said = pcoder_sdk::text::tail(&log, 1, 300);
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        Error::new(code::PROCESS, store.operation, format!("QEMU could not make a disk: {why}{said}"))
    };
    made.map_err(|error| match error.code.as_str() {
        code::CANCELLED | code::DENIED => error,
        _ => failed(&error.message),
    })?;
    let blank = files.read(ROOT, &path)?;
    if !is_blank(&blank, gib) {
        return Err(failed("it is none of that size"));
    }
    files.rename(ROOT, &path, &kept)?;
    Ok(blank)
}

/// Has QEMU write the disk. It has to end before the file is anybody else's.
fn format(store: Store<'_>, service: &str, gib: u64) -> Result<()> {
    let clock = store.host.clock();
    let mut qmp = Qmp::open(store.host, store.operation, service, MADE)?;
    qmp.negotiate()?;
    let options = json!({ "driver": "qcow2", "file": "blank", "size": gib << 30 });
    qmp.run_with("blockdev-create", json!({ "job-id": "blank", "options": options }))?;
    let started = clock.monotonic();
    loop {
        let jobs = qmp.run("query-jobs")?;
        let ours = |it: &&Value| it["id"] == "blank";
        let job = jobs.as_array().and_then(|it| it.iter().find(ours)).cloned().unwrap_or_default();
        if job["status"] == "concluded" {
            if let Some(why) = job["error"].as_str() {
                return Err(Error::new(code::PROCESS, store.operation, pcoder_sdk::text::tail(why.as_bytes(), 1, 300)));
            }
            break;
        }
        if clock.monotonic().saturating_sub(started) > MADE {
            return Err(Error::new(code::TIMEOUT, store.operation, format!("it took more than {} s", MADE.as_secs())));
        }
        qmp.wait(LOOK);
    }
    qmp.run("quit")?;
    match qmp.ends_within(MADE) {
        true => Ok(()),
        false => Err(Error::new(code::TIMEOUT, store.operation, "QEMU does not end")),
    }
}

/// Whether that is a disk in QEMU's format of this size.
fn is_blank(disk: &[u8], gib: u64) -> bool {
    let size = disk.get(24..32).and_then(|it| it.try_into().ok()).map(u64::from_be_bytes);
    disk.starts_with(b"QFI\xfb") && size == Some(gib << 30)
}

/// Starts a QEMU. That there is none is told in a way that helps.
pub(crate) fn start(store: Store<'_>, service: &str, spec: &ServiceSpec) -> Result<()> {
    store.host.services().start(service, spec).map(drop).map_err(|error| match error.code.as_str() {
        code::NOT_FOUND => {
            let message = format!("`{}` is not on this machine", spec.program);
            Error::new(code::NOT_FOUND, store.operation, message)
                .subject(&spec.program)
                .hint("`pcoder runtime bootstrap` says how to get QEMU; `pcoder doctor` shows what is missing")
        }
        _ => error.during(store.operation),
    })
}
