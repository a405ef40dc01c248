//! Whole files and folders: hashed without reading what is not there, put into place, taken away.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use pcoder_engines::Progress;
use pcoder_state::Lock;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::error::{At as _, Error, Result};

/// Bytes that are read at a time.
pub(crate) const PIECE: usize = 1 << 20;

/// How often a waiting process looks for a lock again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A digest under way, and who is told of it.
pub(crate) struct Meter<'a> {
    hash: Sha256,
    done: u64,
    total: u64,
    subject: &'a str,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
}

static ZEROES: [u8; PIECE] = [0; PIECE];

impl<'a> Meter<'a> {
    pub(crate) fn new(subject: &'a str, total: u64, progress: &'a dyn Progress, cancel: &'a CancellationToken) -> Self {
        Self { hash: Sha256::new(), done: 0, total, subject, progress, cancel }
    }

    /// Takes the next bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled { subject: self.subject.to_owned() });
        }
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        self.progress.bytes(self.done, self.total);
        Ok(())
    }

    /// Takes so many zeroes.
    pub(crate) fn zeroes(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let piece = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            self.bytes(ZEROES.get(..piece).unwrap_or_default())?;
            left -= piece as u64;
        }
        Ok(())
    }

    /// How many bytes there were.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// The sha256 of them.
    pub(crate) fn digest(self) -> String {
        hexadecimal(&self.hash.finalize())
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives a file's pieces in order: bytes, or a number of zeroes where it has a hole.
pub(crate) fn read_pieces(path: &Path, mut take: impl FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
    let mut file = File::open(path).at("open", path)?;
    let size = file.metadata().at("read", path)?.len();
    let (mut done, mut buffer) = (0, vec![0; PIECE]);
    while done < size {
        let (data, end) = extent(&file, done, size);
        if data > done {
            take(Piece::Hole(data - done))?;
            done = data;
        }
        file.seek(SeekFrom::Start(done)).at("read", path)?;
        while done < end {
            let count = usize::try_from(end - done).map_or(PIECE, |it| it.min(PIECE));
            let piece = buffer.get_mut(..count).unwrap_or_default();
            file.read_exact(piece).at("read", path)?;
            take(Piece::Bytes(piece))?;
            done += count as u64;
        }
    }
    Ok(())
}

/// A piece of a file.
pub(crate) enum Piece<'a> {
    Bytes(&'a [u8]),
    Hole(u64),
}

/// Where the next data of a file begins, from `from` on, and where it ends. A disk is nearly all holes: to read them
/// takes a minute, and the memory of everything else that this machine had read.
#[cfg(target_os = "linux")]
fn extent(file: &File, from: u64, size: u64) -> (u64, u64) {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(from)) {
        Ok(data) => (data.min(size), seek(file, SeekFrom::Hole(data)).unwrap_or(size).min(size)),
        // There is none.
        Err(rustix::io::Errno::NXIO) => (size, size),
        // The file system knows no holes.
        Err(_) => (from, size),
    }
}

#[cfg(not(target_os = "linux"))]
fn extent(_: &File, from: u64, size: u64) -> (u64, u64) {
    (from, size)
}

/// The sha256 of a file.
pub(crate) fn hash(path: &Path, mut meter: Meter<'_>) -> Result<String> {
    read_pieces(path, |piece| match piece {
        Piece::Bytes(bytes) => meter.bytes(bytes),
        Piece::Hole(count) => meter.zeroes(count),
    })?;
    Ok(meter.digest())
}

/// Bytes that a file takes on its disk, where the system says.
pub(crate) fn taken(data: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        (data.blocks() * 512).min(data.len())
    }
    #[cfg(not(unix))]
    data.len()
}

/// Says that there is too little room before it is found out the hard way.
pub(crate) fn expect_room(folder: &Path, needed: u64) -> Result<()> {
    match pcoder_engines::free_space(folder) {
        Some(free) if free < needed => {
            Err(Error::DiskFull { path: folder.to_path_buf(), needed: Some(needed), free: Some(free) })
        }
        _ => Ok(()),
    }
}

/// Gives a whole folder its name. What has the name already goes away; should this be killed in between, the name is
/// free and the next time brings it again.
pub(crate) fn publish(staged: &Path, place: &Path, aside: &Path) -> Result<()> {
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).at("create", parent)?;
    remove_tree(aside)?;
    if place.symlink_metadata().is_ok() {
        pcoder_engines::rename_folder(place, aside).at("move away", place)?;
    }
    pcoder_engines::rename_folder(staged, place).at("move into place", place)?;
    flush_folder(parent)?;
    remove_tree(aside)
}

/// Takes a folder away that may be gone already.
pub(crate) fn remove_tree(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", folder, error)),
        _ => Ok(()),
    }
}

/// Takes a file away that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Flushes a folder's own entries. Windows has no such thing.
pub(crate) fn flush_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).at("flush", folder)?;
    }
    Ok(())
}

/// Waits for a lock, and says so.
pub(crate) async fn locked(
    path: &Path,
    subject: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Lock> {
    let mut said = false;
    loop {
        if let Some(lock) = Lock::try_take(path)? {
            return Ok(lock);
        }
        if !said {
            progress.phase(pcoder_engines::Phase::Waiting);
            progress.message("another pcoder is busy with it; waiting");
            said = true;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = cancel.cancelled() => return Err(Error::Cancelled { subject: subject.to_owned() }),
        }
    }
}

/// Work that blocks, on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Io {
        doing: "do",
        path: std::path::PathBuf::from("pcoder"),
        source: io::Error::other(error),
    })?
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn holes_are_hashed_as_the_zeroes_that_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"begin").unwrap();
        file.seek(SeekFrom::Start(3 << 20)).unwrap();
        file.write_all(b"middle").unwrap();
        file.set_len((5 << 20) + 7).unwrap();
        let cancel = CancellationToken::new();
        let meter = |cancel| Meter::new("x", 1, &pcoder_engines::Silent, cancel);
        let digest = hash(&path, meter(&cancel)).unwrap();
        assert_eq!(digest, hexadecimal(&Sha256::digest(fs::read(&path).unwrap())));
        cancel.cancel();
        assert!(matches!(hash(&path, meter(&cancel)), Err(Error::Cancelled { .. })));
    }

    #[test]
    fn a_folder_takes_the_place_of_another_one_whole() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (name, text) in [("new", "2"), ("place", "1"), ("aside", "0")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join(text), text).unwrap();
        }
        publish(&at("new"), &at("place"), &at("aside")).unwrap();
        assert!(at("place").join("2").exists() && !at("place").join("1").exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
