//! Files: `fs/*`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rmpv::Value;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use serde_json::json;

use super::Caller;
use super::wire::{PitcherError, Request, code, field, value};
use crate::paths::{Place, resolve};

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EISDIR: i32 = 21;
const EROFS: i32 = 30;

type Answer = Result<Value, PitcherError>;

#[derive(Deserialize)]
struct One {
    path: String,
    recursive: Option<bool>,
}

#[derive(Deserialize)]
struct Two {
    from: String,
    to: String,
    recursive: Option<bool>,
    overwrite: Option<bool>,
}

#[derive(Deserialize)]
struct Write {
    path: String,
    content: ByteBuf,
    create: Option<bool>,
    overwrite: Option<bool>,
}

#[derive(Deserialize)]
struct Search {
    text: String,
}

/// Answers a method of files that blocks, or none where it is another.
pub(super) fn answer(caller: &Caller, request: &Request) -> Option<Answer> {
    Some(match request.method.as_str() {
        "fs/readFile" => read(caller, request),
        "fs/writeFile" => write(caller, request),
        "fs/mkdir" => make(caller, request),
        "fs/readdir" => list(caller, request),
        "fs/stat" => stat(caller, request),
        "fs/remove" => remove(caller, request),
        "fs/rename" => rename(caller, request),
        "fs/copy" => copy(caller, request),
        "fs/pathSearch" => path_search(caller, request),
        "fs/search" => search(caller, request),
        _ => return None,
    })
}

pub(super) fn at(caller: &Caller, path: &str, follow: bool) -> Result<Place, PitcherError> {
    if path.contains('\0') {
        return Err(PitcherError::new(code::INVALID_PATH, "Invalid path"));
    }
    Ok(resolve(&caller.sandbox.machine, &caller.access.workspace, path, follow)?)
}

/// A place that may be changed.
fn writable(caller: &Caller, path: &str, follow: bool) -> Result<Place, PitcherError> {
    if !caller.access.write {
        return Err(PitcherError::new(code::NO_ACCESS, "No write access"));
    }
    let place = at(caller, path, follow)?;
    if place.own { Ok(place) } else { Err(PitcherError::errno(EROFS)) }
}

fn nothing() -> Answer {
    Ok(Value::Map(Vec::new()))
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn read(caller: &Caller, request: &Request) -> Answer {
    let One { path, .. } = request.params()?;
    let content = fs::read(at(caller, &path, true)?.path)?;
    Ok(Value::Map(vec![field("content", Value::Binary(content))]))
}

fn write(caller: &Caller, request: &Request) -> Answer {
    let Write { path, content, create, overwrite } = request.params()?;
    let path = writable(caller, &path, true)?.path;
    match exists(&path) {
        true if !overwrite.unwrap_or(true) => return Err(PitcherError::errno(EEXIST)),
        false if !create.unwrap_or(true) => return Err(PitcherError::errno(ENOENT)),
        _ => {}
    }
    OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(&content)?;
    nothing()
}

fn make(caller: &Caller, request: &Request) -> Answer {
    let One { path, recursive } = request.params()?;
    let path = writable(caller, &path, true)?.path;
    if recursive.unwrap_or(false) {
        fs::create_dir_all(path)?
    } else {
        fs::create_dir(path)?
    }
    nothing()
}

fn list(caller: &Caller, request: &Request) -> Answer {
    let One { path, .. } = request.params()?;
    let place = at(caller, &path, true)?;
    let mut entries = Vec::new();
    for entry in fs::read_dir(&place.path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let symlink = entry.file_type()?.is_symlink();
        // What a link leads to counts, and a link to nothing is a file.
        let target = at(caller, &format!("{}/{name}", path.trim_end_matches('/')), true)?;
        let folder = if symlink { target.path.is_dir() } else { entry.file_type()?.is_dir() };
        entries.push((name, folder, symlink));
    }
    entries.sort();
    let entry = |(name, folder, symlink)| json!({"name": name, "type": u8::from(folder), "isSymlink": symlink});
    Ok(value(json!({"entries": entries.into_iter().map(entry).collect::<Vec<_>>()})))
}

fn stat(caller: &Caller, request: &Request) -> Answer {
    let One { path, .. } = request.params()?;
    let symlink = fs::symlink_metadata(at(caller, &path, false)?.path)?.is_symlink();
    let data = fs::metadata(at(caller, &path, true)?.path)?;
    let time = |seconds: i64, nanos: i64| seconds * 1000 + nanos / 1_000_000;
    Ok(value(json!({
        "type": u8::from(data.is_dir()),
        "isSymlink": symlink,
        "size": data.len(),
        "mtime": time(data.mtime(), data.mtime_nsec()),
        "ctime": time(data.ctime(), data.ctime_nsec()),
        "atime": time(data.atime(), data.atime_nsec()),
    })))
}

fn remove(caller: &Caller, request: &Request) -> Answer {
    let One { path, recursive } = request.params()?;
    let path = writable(caller, &path, false)?.path;
    remove_path(&path, recursive.unwrap_or(false))?;
    nothing()
}

fn remove_path(path: &Path, recursive: bool) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true if recursive => fs::remove_dir_all(path),
        true => fs::remove_dir(path),
        false => fs::remove_file(path),
    }
}

fn rename(caller: &Caller, request: &Request) -> Answer {
    let Two { from, to, overwrite, .. } = request.params()?;
    let (from, to) = (writable(caller, &from, false)?.path, writable(caller, &to, false)?.path);
    fs::symlink_metadata(&from)?;
    if exists(&to) && !overwrite.unwrap_or(false) {
        return Err(PitcherError::errno(EEXIST));
    }
    fs::rename(from, to)?;
    nothing()
}

fn copy(caller: &Caller, request: &Request) -> Answer {
    let Two { from, to, recursive, overwrite } = request.params()?;
    let (from, to) = (at(caller, &from, true)?.path, writable(caller, &to, true)?.path);
    let folder = fs::metadata(&from)?.is_dir();
    if folder && !recursive.unwrap_or(false) {
        return Err(PitcherError::errno(EISDIR));
    }
    if exists(&to) && !overwrite.unwrap_or(false) {
        return Err(PitcherError::errno(EEXIST));
    }
    if folder {
        copy_folder(&from, &to)?
    } else {
        fs::copy(from, to).map(drop)?
    }
    nothing()
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(Path::new("")));
        if entry.file_type().is_dir() {
            fs::create_dir_all(target)?;
        } else if entry.file_type().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn path_search(caller: &Caller, request: &Request) -> Answer {
    let Search { text } = request.params()?;
    let top = at(caller, ".", true)?.path;
    let mut matches = Vec::new();
    for entry in walkdir::WalkDir::new(&top).sort_by_file_name().into_iter().filter_map(Result::ok) {
        let path = entry.path().strip_prefix(&top).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        if let Some(start) = path.find(&text)
            && !text.is_empty()
        {
            let submatch = json!({"match": {"text": text}, "start": start, "end": start + text.len()});
            matches.push(json!({"path": path, "submatches": [submatch]}));
        }
    }
    Ok(value(json!({"matches": matches})))
}

/// Looks for a text in the workspace's files. (Patterns are not looked for.)
fn search(caller: &Caller, request: &Request) -> Answer {
    let Search { text } = request.params()?;
    let top = at(caller, ".", true)?.path;
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(&top).sort_by_file_name().into_iter().filter_map(Result::ok) {
        if text.is_empty() || !entry.file_type().is_file() {
            continue;
        }
        // What is no text has no lines.
        let Ok(content) = fs::read_to_string(entry.path()) else { continue };
        let path = entry.path().strip_prefix(&top).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let mut offset = 0;
        for (index, line) in content.split_inclusive('\n').enumerate() {
            let hits = line.match_indices(&text);
            let hits: Vec<_> = hits
                .map(|(start, _)| json!({"match": {"text": text}, "start": start, "end": start + text.len()}))
                .collect();
            if !hits.is_empty() {
                found.push(json!({"fileId": path, "lines": {"text": line}, "lineNumber": index + 1,
                    "absoluteOffset": offset, "submatches": hits}));
            }
            offset += line.len();
        }
    }
    Ok(value(found))
}
