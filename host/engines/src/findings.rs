//! What the last deep check found, kept beside the ledger.
//!
//! Reading every byte of an engine takes seconds, and installing must not take them each time. So a check that found all
//! well writes down when each file was last changed (`stamps.json`): as long as sizes and times are those, nothing has to be read
//! again. A time alone damages nothing, because a store that was copied has new ones; it only means that the files are read.
//! A check that found something leaves `damaged`, and whoever looks for the engine sees that.
//!
//! Both are notes: where they cannot be written, checks take longer and are right all the same.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::ledger::{FileRecord, Ledger, TREE, to_json};
use crate::lock_file::Locked;

const STAMPS: &str = "stamps.json";
const DAMAGED: &str = "damaged";

/// When each file was last changed, in nanoseconds since 1970, in the order of the ledger's list.
pub(crate) struct Stamps(Vec<u64>);

impl Stamps {
    /// Of the files as they are. None when one is not there, or not as its record says as far as that is seen without
    /// reading it.
    pub(crate) fn of(folder: &Path, files: &[FileRecord]) -> Option<Self> {
        let tree = folder.join(TREE);
        let stamp = |file: &FileRecord| {
            let data = fs::symlink_metadata(file.path.below(&tree)).ok()?;
            let right = data.is_file() && data.len() == file.size && (!file.executable || is_executable(&data));
            let changed = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            right.then_some(u64::try_from(changed.as_nanos()).ok()?)
        };
        files.iter().map(stamp).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// Writes down that every file was right when it had these times.
pub(crate) fn write_whole(folder: &Path, stamps: Option<Stamps>) {
    if let Some(bytes) = stamps.and_then(|stamps| to_json(&stamps.0).ok()) {
        let _ = fs::write(folder.join(STAMPS), bytes);
    }
    let _ = fs::remove_file(folder.join(DAMAGED));
}

/// Whether no file was changed since all of them were right, as far as sizes and times tell.
pub(crate) fn untouched(folder: &Path, ledger: &Ledger, locked: Locked<'_>) -> bool {
    let Ok(files) = ledger.read_files(folder, locked) else { return false };
    let known = fs::read(folder.join(STAMPS)).ok().and_then(|bytes| serde_json::from_slice::<Vec<u64>>(&bytes).ok());
    known.is_some() && Stamps::of(folder, &files).map(|stamps| stamps.0) == known
}

/// Writes down that a check found so many files wrong.
pub(crate) fn write_damaged(folder: &Path, problems: usize) {
    let _ = fs::write(folder.join(DAMAGED), problems.to_string());
    let _ = fs::remove_file(folder.join(STAMPS));
}

/// What a check found that was not mended since, for people.
pub(crate) fn damaged(folder: &Path) -> Option<String> {
    match fs::read_to_string(folder.join(DAMAGED)) {
        Ok(problems) => Some(match problems.trim().parse::<usize>() {
            Ok(1) => "a check found 1 file that is not what was installed".to_owned(),
            Ok(many) if many > 0 => format!("a check found {many} files that are not what was installed"),
            _ => "a check found its list of files changed".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some("a check found something wrong with it".to_owned()),
    }
}

#[cfg(unix)]
pub(crate) fn is_executable(data: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    data.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
pub(crate) fn is_executable(_data: &fs::Metadata) -> bool {
    true
}
