//! The files beside each other: the current one, rotated ones, those of the old format, and the head.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{At as _, Result};
use crate::line::{Hex, Place, VERSION};

/// Files that this user alone reads.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `audit` of `audit.jsonl`.
fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where the current file goes when it is full.
pub(crate) fn rotated_path(file: &Path, first_seq: u64) -> PathBuf {
    let stem = stem(file);
    let plain = file.with_file_name(format!("{stem}-{first_seq:012}.jsonl"));
    // One is there already only when somebody put it there. It is not overwritten.
    let others = (2..).map(|n| file.with_file_name(format!("{stem}-{first_seq:012}.{n}.jsonl")));
    std::iter::once(plain).chain(others).find(|it| !it.exists()).unwrap_or_else(|| file.to_path_buf())
}

/// Where a file of the old format goes.
pub(crate) fn legacy_path(file: &Path, now_ms: u64) -> PathBuf {
    let stem = stem(file);
    (now_ms..)
        .map(|ms| file.with_file_name(format!("{stem}-legacy-{ms}.jsonl")))
        .find(|it| !it.exists())
        .unwrap_or_else(|| file.to_path_buf())
}

/// What is beside the current file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// In the chain's order.
    pub(crate) rotated: Vec<PathBuf>,
    /// From the oldest.
    pub(crate) legacy: Vec<PathBuf>,
}

/// Lists them. A folder that is not there has none.
pub(crate) fn beside(file: &Path) -> Result<Beside> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Beside::default()),
        Err(error) => return Err(error).at("list", folder),
    };
    let (begin, begin_legacy) = (format!("{}-", stem(file)), format!("{}-legacy-", stem(file)));
    let (mut rotated, mut legacy) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.at("list", folder)?.path();
        let name = name(&path);
        let Some(name) = name.strip_suffix(".jsonl") else { continue };
        if let Some(ms) = name.strip_prefix(&begin_legacy).and_then(|it| it.parse::<u64>().ok()) {
            legacy.push((ms, path));
        } else if let Some(order) = name.strip_prefix(&begin).and_then(order) {
            rotated.push((order, path));
        }
    }
    rotated.sort();
    legacy.sort();
    Ok(Beside {
        rotated: rotated.into_iter().map(|(_, path)| path).collect(),
        legacy: legacy.into_iter().map(|(_, path)| path).collect(),
    })
}

/// `000000000123` or `000000000123.2`.
fn order(text: &str) -> Option<(u64, u64)> {
    let (seq, again) = text.split_once('.').unwrap_or((text, "1"));
    let digits = seq.len() >= 12 && seq.bytes().chain(again.bytes()).all(|it| it.is_ascii_digit());
    if digits { Some((seq.parse().ok()?, again.parse().ok()?)) } else { None }
}

/// The current file, open, and those before it, as they were at one moment. A rotation in between is noticed.
pub(crate) fn snapshot(file: &Path) -> Result<(Beside, Option<File>)> {
    loop {
        let before = beside(file)?;
        let current = match File::open(file) {
            Ok(current) => Some(current),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("open", file),
        };
        if beside(file)? == before {
            return Ok((before, current));
        }
    }
}

/// `audit.head`: the number and the hash of the last record, rewritten in place at each append.
///
/// It always has the same length, so that one write replaces all of it.
pub(crate) struct HeadFile {
    file: File,
    path: PathBuf,
}

/// What `audit.head` says.
pub(crate) enum HeadFound {
    Missing,
    Unreadable,
    Place(Place),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    schema_version: u64,
    seq: u64,
    hash: String,
}

pub(crate) fn head_path(file: &Path) -> PathBuf {
    file.with_extension("head")
}

impl HeadFile {
    /// Opens it, or makes one that says that there is no record yet.
    pub(crate) fn open(file: &Path) -> Result<(Self, HeadFound)> {
        let path = head_path(file);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = private(&mut options).open(&path).at("open", &path)?;
        let mut head = Self { file, path };
        let found = match read_text(&mut head.file).at("read", &head.path)? {
            text if text.is_empty() => {
                head.write(Place::START).at("write", &head.path)?;
                HeadFound::Missing
            }
            text => parse_head(&text),
        };
        Ok((head, found))
    }

    pub(crate) fn write(&mut self, place: Place) -> io::Result<()> {
        let line = format!("{{\"schema_version\":{VERSION},\"hash\":\"{}\",\"seq\":{:>20}}}\n", place.hash, place.seq);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(line.as_bytes())
    }
}

/// Reads `audit.head` while others may write it.
pub(crate) fn read_head(file: &Path) -> Result<HeadFound> {
    let path = head_path(file);
    let mut head = match File::open(&path) {
        Ok(head) => head,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HeadFound::Missing),
        Err(error) => return Err(error).at("open", &path),
    };
    // A reader may see half of a write. Two that are equal are no half.
    let mut text = read_text(&mut head).at("read", &path)?;
    loop {
        let again = read_text(&mut head).at("read", &path)?;
        if again == text {
            return Ok(if text.is_empty() { HeadFound::Missing } else { parse_head(&text) });
        }
        text = again;
    }
}

fn read_text(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(4096).read_to_end(&mut text)?;
    Ok(text)
}

fn parse_head(text: &[u8]) -> HeadFound {
    let found = serde_json::from_slice::<HeadLine>(text).ok().and_then(|line| {
        let hash = Hex::parse(line.hash.as_bytes())?;
        let known = line.schema_version == VERSION && line.seq < 1 << 53;
        known.then_some(Place { seq: line.seq, hash })
    });
    found.map_or(HeadFound::Unreadable, HeadFound::Place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("audit.jsonl");
        for name in [
            "audit-1000000000000.jsonl",
            "audit-000000000009.jsonl",
            "audit-000000000009.2.jsonl",
            "audit-000000000010.jsonl",
            "audit-legacy-5.jsonl",
            "audit-legacy-40.jsonl",
            "audit-notes.jsonl",
            "audit-1.jsonl",
            "audit.head",
        ] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let beside = beside(&file).expect("listed");
        let names = |paths: &[PathBuf]| paths.iter().map(|it| name(it)).collect::<Vec<_>>();
        assert_eq!(
            names(&beside.rotated),
            [
                "audit-000000000009.jsonl",
                "audit-000000000009.2.jsonl",
                "audit-000000000010.jsonl",
                "audit-1000000000000.jsonl"
            ]
        );
        assert_eq!(names(&beside.legacy), ["audit-legacy-5.jsonl", "audit-legacy-40.jsonl"]);
        assert_eq!(name(&rotated_path(&file, 9)), "audit-000000000009.3.jsonl");
    }
}
