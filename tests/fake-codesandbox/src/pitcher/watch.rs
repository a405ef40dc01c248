//! Changes of files: `fs/watch`, `fs/unwatch` and `fs/watchEvent`; and `fs/download`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rmpv::Value;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Caller;
use super::fs::at;
use super::wire::{PitcherError, Request, code, value};
use crate::cloud::word;

/// How often is looked for changes. What comes and goes in between is not seen.
const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
struct Watch {
    path: String,
    recursive: Option<bool>,
    excludes: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Unwatch {
    #[serde(rename = "watchId")]
    watch: String,
}

/// What is watched, by id, with the connection that asked.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<HashMap<String, (u64, DropGuard)>>);

impl Watches {
    pub(super) fn forget(&self, connection: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (number, _)| *number != connection);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Answers the methods of watching, or none where it is another.
pub(super) fn answer(caller: &Caller, request: &Request) -> Option<Result<Value, PitcherError>> {
    match request.method.as_str() {
        "fs/watch" => Some(watch(caller, request)),
        "fs/unwatch" => Some(unwatch(caller, request)),
        "fs/download" => Some(download(caller, request)),
        _ => None,
    }
}

fn watch(caller: &Caller, request: &Request) -> Result<Value, PitcherError> {
    let Watch { path, recursive, excludes } = request.params()?;
    let number =
        caller.connection.ok_or_else(|| PitcherError::new(code::FEATURE_UNAVAILABLE, "Watching needs a connection"))?;
    let top = at(caller, &path, true)?.path;
    std::fs::metadata(&top)?;
    let on_instance = Path::new(&caller.access.workspace).join(&path);
    let look = Look { top, recursive: recursive.unwrap_or(false), excludes: excludes.unwrap_or_default() };
    let (id, end) = (word(10), CancellationToken::new());
    let watches = &caller.sandbox.agent.watches;
    watches.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), (number, end.clone().drop_guard()));
    let (sandbox, watch) = (caller.sandbox.clone(), id.clone());
    let mut before = look.files();
    tokio::spawn(async move {
        while tokio::time::timeout(INTERVAL, end.cancelled()).await.is_err() {
            let again = look.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || again.files()).await else { return };
            let events: Vec<_> = changes(&before, &now)
                .map(|(below, kind)| {
                    // A file that is watched itself has nothing below it.
                    let path = if below.as_os_str().is_empty() { on_instance.clone() } else { on_instance.join(below) };
                    json!({"paths": [path.to_string_lossy()], "type": kind})
                })
                .collect();
            if !events.is_empty() {
                let params = value(json!({"watchId": watch, "events": events}));
                sandbox.agent.notify_some(&BTreeSet::from([number]), "fs/watchEvent", &params);
            }
            before = now;
        }
    });
    Ok(value(json!({"watchId": id})))
}

/// What is watched.
#[derive(Clone)]
struct Look {
    top: PathBuf,
    recursive: bool,
    excludes: Vec<String>,
}

/// What is known of files, by path below the top: when and to what size they changed, and their inode.
type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64, u64)>;

impl Look {
    fn files(&self) -> Files {
        let depth = if self.recursive { usize::MAX } else { 1 };
        let walk = walkdir::WalkDir::new(&self.top).min_depth(usize::from(self.top.is_dir())).max_depth(depth);
        let all = walk.into_iter().filter_entry(|entry| !excluded(&self.excludes, entry.file_name()));
        // What goes while it is looked at is not there.
        let all = all.filter_map(Result::ok).filter_map(|entry| {
            let data = entry.metadata().ok()?;
            let below = entry.path().strip_prefix(&self.top).ok()?.to_owned();
            // A folder changes with what is in it, which is told by itself.
            let (modified, size) = if data.is_dir() { (None, 0) } else { (data.modified().ok(), data.len()) };
            Some((below, (modified, size, data.ino())))
        });
        all.collect()
    }
}

fn excluded(excludes: &[String], name: &OsStr) -> bool {
    excludes.iter().any(|exclude| Some(exclude.trim_matches(['*', '/'])) == name.to_str())
}

fn changes<'a>(before: &'a Files, now: &'a Files) -> impl Iterator<Item = (&'a PathBuf, &'static str)> {
    let gone = before.keys().filter(|path| !now.contains_key(*path)).map(|path| (path, "remove"));
    let come = now.iter().filter_map(|(path, data)| match before.get(path) {
        None => Some((path, "add")),
        Some(was) => (was != data).then_some((path, "change")),
    });
    gone.chain(come)
}

fn unwatch(caller: &Caller, request: &Request) -> Result<Value, PitcherError> {
    let Unwatch { watch } = request.params()?;
    let watches = &caller.sandbox.agent.watches;
    let removed = watches.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&watch);
    removed.ok_or_else(|| PitcherError::new(code::INVALID_ID, "Unknown watch"))?;
    Ok(Value::Map(Vec::new()))
}

/// Packs a folder, to be fetched from the address in the answer for five minutes.
fn download(caller: &Caller, request: &Request) -> Result<Value, PitcherError> {
    let Watch { path, excludes, .. } = request.params()?;
    let top = at(caller, &path, true)?.path;
    std::fs::metadata(&top)?;
    let excludes = excludes.unwrap_or_else(|| vec!["**/node_modules/**".to_owned()]);
    let failed = |error: zip::result::ZipError| PitcherError::new(code::RAWFS, error.to_string());
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for entry in walkdir::WalkDir::new(&top).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::from)?;
        let below = entry.path().strip_prefix(&top).unwrap_or(Path::new(""));
        let excluded = below.components().any(|part| excluded(&excludes, part.as_os_str()));
        let name = if top.is_file() { entry.file_name().to_string_lossy() } else { below.to_string_lossy() };
        if entry.file_type().is_file() && !excluded {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).map_err(failed)?;
            archive.write_all(&std::fs::read(entry.path())?)?;
        }
    }
    let bytes = archive.finish().map_err(failed)?.into_inner();
    let id = word(24);
    caller.cloud.downloads.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), (Instant::now(), bytes));
    Ok(value(json!({"downloadUrl": format!("http://{}/__download/{id}", caller.cloud.agents)})))
}
