//! Appending.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::error::{At as _, Result};
use crate::files::{self, HeadFile, HeadFound, beside, legacy_path, private, rotated_path};
use crate::line::{self, Head, Place};
use crate::lock::LockFile;
use crate::tail::{Found, Tail, look};

/// When a file is full, and how many full ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file is rotated before it would grow beyond this many bytes.
    pub max_bytes: u64,
    /// How many rotated files are kept; the oldest are deleted.
    pub keep: usize,
}

impl Default for Rotation {
    /// 16 files of 16 MiB and the current one: some 650,000 records.
    fn default() -> Self {
        Self { max_bytes: 16 << 20, keep: 16 }
    }
}

/// An audit log. Threads share it, and processes share its files.
///
/// A record that was appended outlives the process at once, and the machine's power from a rotation, [`Log::close`] or
/// dropping on: only these wait for the disk. Nothing that was written is ever changed.
#[derive(Debug)]
pub struct Log {
    file: PathBuf,
    lock: PathBuf,
    rotation: Rotation,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lock: Option<LockFile>,
    current: Option<Current>,
    /// The last record that this process knows of. Files that end before it were cut.
    last: Option<Place>,
    line: Vec<u8>,
    /// Something was written that the disk was not told to keep.
    dirty: bool,
}

/// The current file as it was after our last look or append.
struct Current {
    file: File,
    head: HeadFile,
    /// The device and the inode, where the system has them.
    identity: Option<(u64, u64)>,
    tail: Tail,
}

impl Log {
    /// The log whose current file is `file`, as `…/audit.jsonl`, with its lock in a file of its own. Nothing is created
    /// or read before the first record.
    pub fn open(file: impl Into<PathBuf>, lock: impl Into<PathBuf>, rotation: Rotation) -> Self {
        Self { file: file.into(), lock: lock.into(), rotation, state: Mutex::default() }
    }

    /// Appends one record, an object of JSON without the fields `schema_version`, `seq`, `prev`, `after_torn` and
    /// `hash`, and says what its number and its hash are.
    ///
    /// # Errors
    /// `Io`, also where the disk is full; `Busy` when another process held the lock for 5 s; `Newer`; `Record`. The
    /// chain is whole after each of them, and the next record may succeed.
    pub fn append(&self, record: &impl Serialize) -> Result<Head> {
        let body = line::body(record)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, rotated) = self.append_locked(&mut state, &body)?;
        drop(state);
        if let Some(rotated) = rotated {
            // Outside of every lock: the others need not wait for the disk.
            rotated.sync_data().at("flush", &self.file)?;
        }
        Ok(place.head())
    }

    fn append_locked(&self, state: &mut State, body: &[u8]) -> Result<(Place, Option<File>)> {
        let State { lock, current, last, line, dirty } = state;
        let lock = match lock {
            Some(lock) => lock,
            None => lock.insert(LockFile::open(&self.lock)?),
        };
        let _held = lock.hold()?;
        // What is taken out here comes back only when all went well; else the next append looks at the file again.
        let mut now = match current.take() {
            Some(current) if self.is_unchanged(&current, *last) => current,
            _ => self.look_again(last)?,
        };
        let before = last.unwrap_or(Place::START);
        line.clear();
        if !now.tail.ended {
            line.push(b'\n');
        }
        let place = line::write(line, before, now.tail.torn, body)?;
        let mut rotated = None;
        if now.tail.len > 0 && now.tail.len + line.len() as u64 > self.rotation.max_bytes {
            rotated = self.rotate(&mut now, before)?;
            if rotated.is_some() && line.first() == Some(&b'\n') {
                line.remove(0);
            }
        }
        now.file.write_all(line).at("append to", &self.file)?;
        *dirty = true;
        *last = Some(place);
        now.tail.len += line.len() as u64;
        now.tail.first_seq.get_or_insert(place.seq);
        (now.tail.last, now.tail.torn, now.tail.ended) = (Some(place), false, true);
        // The record is written. A head that is behind is seen as that, and the next append corrects it.
        if let Err(error) = now.head.write(place) {
            tracing::warn!(%error, "the audit's head cannot be written");
        }
        *current = Some(now);
        Ok((place, rotated))
    }

    /// Whether nobody else has written since, or rotated.
    fn is_unchanged(&self, current: &Current, last: Option<Place>) -> bool {
        let Ok(now) = std::fs::metadata(&self.file) else { return false };
        if now.len() != current.tail.len {
            return false;
        }
        match current.identity {
            Some(identity) => identity_of(&now) == Some(identity),
            // Only one file ends with our last record.
            None => last.is_some_and(|last| ends_with(&self.file, last).unwrap_or(false)),
        }
    }

    /// Opens the current file, makes it when there is none, and finds out what the next record follows.
    fn look_again(&self, last: &mut Option<Place>) -> Result<Current> {
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder).at("make the folder of", &self.file)?;
        }
        let (file, tail) = match self.open_existing()? {
            Some(it) => it,
            None => {
                // First the head: a log without one was tampered with.
                HeadFile::open(&self.file)?;
                self.create()?
            }
        };
        let (head, found) = HeadFile::open(&self.file)?;
        let head_says = if let HeadFound::Place(place) = found { Some(place) } else { None };
        // Where the file ends before what was known, records were cut off, and the gap in the numbers says so for ever.
        let known = [tail.last, head_says, *last].into_iter().flatten().max_by_key(|it| it.seq);
        *last = known;
        let identity = identity_of(&file.metadata().at("read", &self.file)?);
        Ok(Current { file, head, identity, tail })
    }

    fn open_existing(&self) -> Result<Option<(File, Tail)>> {
        let file = match OpenOptions::new().read(true).append(true).open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("open", &self.file),
        };
        match look(&file, &self.file)? {
            Found::Ours(tail) => Ok(Some((file, tail))),
            Found::Legacy => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let path = legacy_path(&self.file, u64::try_from(now).unwrap_or(u64::MAX));
                std::fs::rename(&self.file, path).at("rename", &self.file)?;
                Ok(None)
            }
        }
    }

    fn create(&self) -> Result<(File, Tail)> {
        let mut options = OpenOptions::new();
        let file = private(options.read(true).append(true).create_new(true)).open(&self.file).at("make", &self.file)?;
        Ok((file, Tail { last: None, torn: false, ended: true, len: 0, first_seq: None }))
    }

    /// Gives the file its number, begins a new one and deletes the oldest. Where it cannot be renamed, it goes on to be
    /// used, and the next append tries again.
    fn rotate(&self, now: &mut Current, before: Place) -> Result<Option<File>> {
        let first_seq = now.tail.first_seq.unwrap_or(before.seq);
        if let Err(error) = std::fs::rename(&self.file, rotated_path(&self.file, first_seq)) {
            tracing::warn!(%error, "the audit cannot be rotated");
            return Ok(None);
        }
        let (file, tail) = self.create()?;
        // What is torn stays behind in the old file, and the first record of the new one says so.
        let torn = now.tail.torn;
        now.identity = identity_of(&file.metadata().at("read", &self.file)?);
        now.tail = Tail { torn, ..tail };
        let old = std::mem::replace(&mut now.file, file);
        let rotated = beside(&self.file)?.rotated;
        for path in rotated.iter().take(rotated.len().saturating_sub(self.rotation.keep)) {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(%error, file = files::name(path), "an old audit cannot be deleted");
            }
        }
        Ok(Some(old))
    }

    /// Waits until the disk has what was appended.
    ///
    /// # Errors
    /// `Io`.
    pub fn close(self) -> Result<()> {
        self.flush()
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.dirty)
            && let Some(current) = &state.current
        {
            current.file.sync_data().at("flush", &self.file)?;
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the audit cannot be flushed");
        }
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("tail", &self.tail).finish_non_exhaustive()
    }
}

#[cfg(unix)]
fn identity_of(metadata: &std::fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity_of(_: &std::fs::Metadata) -> Option<(u64, u64)> {
    None
}

/// Whether the file's last line is that of `last`.
fn ends_with(path: &Path, last: Place) -> io::Result<bool> {
    let expected = format!("\"hash\":\"{}\"}}\n", last.hash);
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-i64::try_from(expected.len()).unwrap_or(i64::MAX)))?;
    let mut end = Vec::new();
    file.take(256).read_to_end(&mut end)?;
    Ok(end == expected.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path, max_bytes: u64) -> Log {
        Log::open(folder.join("audit.jsonl"), folder.join("audit.lock"), Rotation { max_bytes, keep: 100 })
    }

    /// As on a system that has no inodes.
    fn forget_identity(log: &Log) {
        if let Some(current) = &mut log.state.lock().expect("the state").current {
            current.identity = None;
        }
    }

    #[test]
    fn without_inodes_others_and_their_rotation_are_noticed_by_the_last_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = [log(folder.path(), 1_000), log(folder.path(), 1_000)];
        let mut turn = 0_usize;
        for runs in [1, 3, 2, 1, 1, 5, 4, 1] {
            turn += 1;
            for number in 0..runs {
                let log = &logs[turn % 2];
                log.append(&serde_json::json!({ "number": number })).expect("appended");
                forget_identity(log);
            }
        }
        let report = crate::verify(&folder.path().join("audit.jsonl")).expect("verified");
        assert_eq!((report.records, report.problems), (18, vec![]));
        assert!(report.files.len() > 3);
    }

    #[test]
    fn a_log_that_writes_alone_does_not_look_at_the_file_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(folder.path(), 1 << 20);
        for _ in 0..3 {
            log.append(&serde_json::json!({})).expect("appended");
            let state = log.state.lock().expect("the state");
            assert!(log.is_unchanged(state.current.as_ref().expect("open"), state.last));
        }
        let other = Log::open(folder.path().join("audit.jsonl"), folder.path().join("audit.lock"), Rotation::default());
        other.append(&serde_json::json!({})).expect("appended");
        let state = log.state.lock().expect("the state");
        assert!(!log.is_unchanged(state.current.as_ref().expect("open"), state.last));
    }
}
