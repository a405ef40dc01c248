//! What is remembered between syncs: the base, and which files on this host need not be read again.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::listing::Seen;
use crate::path::TreePath;
use crate::tree::{Base, Sum};

const MAGIC: &[u8] = b"pcoder-sync\0";
const VERSION: u8 = 2;
const SUM_LENGTH: usize = 32;

/// How long a change may stay unseen because the file system's clock is coarse, in seconds: FAT has two.
pub(crate) const COARSE: i64 = 2;

/// A lock that was given back may be held on for a moment by a process that was just started and has not yet closed
/// what it inherited.
const PATIENCE: Duration = Duration::from_secs(1);

/// What changes when a file's content does, most of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
    pub(crate) ctime: (i64, i64),
    pub(crate) inode: u64,
}

/// A file's content at a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) stamp: Stamp,
    pub(crate) sum: Sum,
}

/// What is remembered of one folder and its copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) base: Base,
    pub(crate) files: BTreeMap<TreePath, Known>,
    /// When the scan began that found `files`, in seconds since 1970.
    pub(crate) scanned: i64,
    /// What was last seen of the instance, where it can tell quickly.
    pub(crate) instance: Option<Seen>,
}

/// What version 1 remembered.
#[derive(Deserialize)]
struct First {
    base: Base,
    files: BTreeMap<TreePath, Known>,
    scanned: i64,
}

impl From<First> for Memory {
    fn from(First { base, files, scanned }: First) -> Self {
        Self { base, files, scanned, instance: None }
    }
}

/// Whether a file changed at this time, in seconds and nanoseconds, has another time when it changes after `now`, in
/// seconds. Else it was changed so shortly before that a later change may look the same, which git calls racy.
pub(crate) fn settled(time: (i64, i64), now: i64) -> bool {
    time.0.saturating_add(COARSE) < now
}

impl Memory {
    /// The content of a file that looks as it did at the last scan. None when a later change may look the same.
    pub(crate) fn content(&self, path: &TreePath, stamp: &Stamp) -> Option<Sum> {
        let known = self.files.get(path)?;
        let settled = |time| settled(time, self.scanned);
        (known.stamp == *stamp && settled(stamp.mtime) && settled(stamp.ctime)).then_some(known.sum)
    }

    /// Reads it. None when there is none, or it is damaged.
    ///
    /// # Errors
    /// `Newer`, `Io`.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let Some([version, rest @ ..]) = bytes.strip_prefix(MAGIC) else { return Ok(damaged(path)) };
        if *version > VERSION {
            return Err(Error::Newer { path: path.to_path_buf(), found: *version, known: VERSION });
        }
        let Some((content, sum)) = rest.split_last_chunk::<SUM_LENGTH>() else { return Ok(damaged(path)) };
        if Sum::of(content) != Sum(*sum) {
            return Ok(damaged(path));
        }
        let memory = if *version == 1 {
            postcard::from_bytes::<First>(content).map(Self::from)
        } else {
            postcard::from_bytes(content)
        };
        Ok(memory.ok().or_else(|| damaged(path)))
    }

    /// # Errors
    /// `State`, `Broken`.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let content = postcard::to_stdvec(self).map_err(|error| Error::Broken { message: error.to_string() })?;
        let bytes = [MAGIC, &[VERSION], content.as_slice(), &Sum::of(&content).0].concat();
        Ok(pcoder_state::write_atomic(path, &bytes)?)
    }
}

fn damaged(path: &Path) -> Option<Memory> {
    tracing::warn!(path = %path.display(), "the record of the last sync is damaged; it is made anew");
    None
}

/// Keeps others from the same memory.
///
/// # Errors
/// `Busy`, `State`.
pub(crate) fn lock(state: &Path) -> Result<pcoder_state::Lock> {
    let mut name = state.file_name().unwrap_or_default().to_os_string();
    name.push(".lock");
    let path = state.with_file_name(name);
    pcoder_state::Lock::take(&path, PATIENCE).map_err(|error| match error {
        pcoder_state::Error::Busy { path, .. } => Error::Busy { path },
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Entry, Kind};

    fn memory() -> Memory {
        let path = TreePath::new(b"a/\xff").expect("a path");
        let kind = Kind::File { size: 1, sum: Sum::of(b"x") };
        let stamp = Stamp { size: 1, mtime: (100, 5), ctime: (101, 6), inode: 7 };
        Memory {
            base: [(path.clone(), Entry { kind, mode: 0o640, mtime: -1 })].into(),
            files: [(path, Known { stamp, sum: Sum::of(b"x") })].into(),
            scanned: 104,
            instance: None,
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        assert_eq!(Memory::load(&path).expect("nothing there"), None);
        memory().save(&path).expect("written");
        assert_eq!(Memory::load(&path).expect("read"), Some(memory()));
    }

    #[test]
    fn what_the_first_version_wrote_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let memory = memory();
        let content = postcard::to_stdvec(&(&memory.base, &memory.files, memory.scanned)).expect("bytes");
        let bytes = [MAGIC, &[1], content.as_slice(), &Sum::of(&content).0].concat();
        std::fs::write(&path, bytes).expect("written");
        assert_eq!(Memory::load(&path).expect("read"), Some(memory));
    }

    #[test]
    fn damage_anywhere_is_as_if_there_were_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        memory().save(&path).expect("written");
        let whole = std::fs::read(&path).expect("a file");
        let version = MAGIC.len();
        for at in (0..whole.len()).filter(|it| *it != version) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(Memory::load(&path).expect("damaged"), None, "at {at}");
            std::fs::write(&path, &whole[..at]).expect("written");
            assert_eq!(Memory::load(&path).expect("cut off"), None, "at {at}");
        }
        let mut bytes = whole;
        bytes[version] = VERSION + 1;
        std::fs::write(&path, &bytes).expect("written");
        assert!(matches!(Memory::load(&path), Err(Error::Newer { found: 3, known: 2, .. })));
    }

    #[test]
    fn a_file_changed_about_when_it_was_scanned_is_read_again() {
        let (path, known) = memory().files.pop_first().expect("a file");
        let with = |scanned| Memory { scanned, ..memory() }.content(&path, &known.stamp);
        assert_eq!(with(104), Some(Sum::of(b"x")));
        assert_eq!(with(103), None, "its status changed less than two seconds before the scan");
        assert_eq!(with(90), None, "the clock went back");
        let stamps = [
            Stamp { size: 2, ..known.stamp },
            Stamp { mtime: (100, 6), ..known.stamp },
            Stamp { ctime: (101, 7), ..known.stamp },
            Stamp { inode: 8, ..known.stamp },
        ];
        for stamp in stamps {
            assert_eq!(memory().content(&path, &stamp), None);
        }
    }
}
