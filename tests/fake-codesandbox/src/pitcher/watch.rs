//! Changes of files: `fs/watch`, `fs/unwatch` and `fs/watchEvent`; and `fs/download`.

use std::collections::{BTreeSet, HashMap};
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rmpv::Value;
use serde::Deserialize;
use serde_json::json;

use super::Caller;
use super::fs::at;
use super::wire::{PitcherError, Request, code, value};
use crate::cloud::word;

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
pub(super) struct Watches(Mutex<HashMap<String, (u64, RecommendedWatcher)>>);

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
    let place = at(caller, &path, true)?;
    std::fs::metadata(&place.path)?;
    let on_instance = Path::new(&caller.access.workspace).join(&path);
    let id = word(10);
    let (sandbox, watch_id, top) = (caller.sandbox.clone(), id.clone(), place.path.clone());
    let excludes = excludes.unwrap_or_default();
    let tell = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let kind = match event.kind {
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => "add",
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => "remove",
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => "change",
            _ => return,
        };
        let shown = |path: &PathBuf| {
            let below = path.strip_prefix(&top).ok()?;
            let path = if below.as_os_str().is_empty() { on_instance.clone() } else { on_instance.join(below) };
            let excluded = excludes.iter().any(|exclude| {
                let word = exclude.trim_matches(['*', '/']);
                !word.is_empty() && below.components().any(|part| part.as_os_str().to_str() == Some(word))
            });
            (!excluded).then(|| path.to_string_lossy().into_owned())
        };
        let paths: Vec<_> = event.paths.iter().filter_map(shown).collect();
        if !paths.is_empty() {
            let params = json!({"watchId": watch_id, "events": [{"paths": paths, "type": kind}]});
            sandbox.agent.notify_some(&BTreeSet::from([number]), "fs/watchEvent", &value(params));
        }
    };
    let failed = |error: notify::Error| PitcherError::new(code::RAWFS, error.to_string());
    let mut watcher = notify::recommended_watcher(tell).map_err(failed)?;
    let mode = if recursive.unwrap_or(false) { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
    watcher.watch(&place.path, mode).map_err(failed)?;
    let watches = &caller.sandbox.agent.watches;
    watches.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), (number, watcher));
    Ok(value(json!({"watchId": id})))
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
        let excluded = below.components().any(|part| {
            excludes.iter().any(|exclude| Some(exclude.trim_matches(['*', '/'])) == part.as_os_str().to_str())
        });
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
