//! What a disk was when it was made. Reading all of one takes a second, which a boot must not take each time: while length
//! and time are those of the stamp, it is taken for whole, and otherwise it is read and compared.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::DiskEngine;
use super::image::MTIME;
use crate::error::{At, Error, Result};
use crate::ledger::to_json;

const FORMAT: u32 = 1;
const BUFFER: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    format: u32,
    pub(super) engines: Vec<DiskEngine>,
    pub(super) size: u64,
    /// Of the whole file.
    blake3: String,
    /// In nanoseconds since 1970.
    modified: u64,
}

impl Stamp {
    /// Of a disk that was just written. Its time becomes one that every file system can keep, so that a folder that is
    /// carried about is not read again.
    pub(super) fn of(mut file: &File, engines: Vec<DiskEngine>) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let blake3 = digest(file, &CancellationToken::new())?;
        file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(MTIME.into())))?;
        let data = file.metadata()?;
        Ok(Self { format: FORMAT, engines, size: data.len(), blake3, modified: since_1970(data.modified()?) })
    }

    /// None where there is none that can be read: it is a note, and the disk is made again.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let stamp: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (stamp.format == FORMAT).then_some(stamp)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(path);
        let mut new = tempfile::NamedTempFile::new_in(folder).at("create", folder)?;
        io::Write::write_all(&mut new, &to_json(self)?).at("write", new.path())?;
        new.as_file().sync_all().at("flush", new.path())?;
        new.persist(path).map(drop).map_err(|error| error.error).at("move into place", path)
    }

    /// Whether length and time are those that it had.
    pub(super) fn fits(&self, file: &Path) -> bool {
        let Ok(data) = fs::symlink_metadata(file) else { return false };
        data.is_file() && data.len() == self.size && data.modified().is_ok_and(|it| since_1970(it) == self.modified)
    }

    /// The stamp of the same bytes with another time. None where they are others.
    pub(super) fn again(&self, path: &Path, cancel: &CancellationToken) -> Result<Option<Self>> {
        let data = match fs::symlink_metadata(path) {
            Ok(data) if data.is_file() && data.len() == self.size => data,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path, error)),
        };
        let file = File::open(path).at("open", path)?;
        if digest(&file, cancel).at("read", path)? != self.blake3 {
            return Ok(None);
        }
        let modified = since_1970(data.modified().at("read", path)?);
        Ok(Some(Self { modified, ..self.clone() }))
    }
}

/// Cancelled, it is nobody's.
fn digest(mut file: &File, cancel: &CancellationToken) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    while !cancel.is_cancelled() {
        match file.read(&mut buffer) {
            Ok(read) => match buffer.get(..read) {
                Some([]) | None => return Ok(hasher.finalize().to_hex().to_string()),
                Some(bytes) => hasher.update(bytes),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
    Ok(String::new())
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
