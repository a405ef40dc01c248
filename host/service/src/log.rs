//! A service's log: what its program wrote to standard error, in two files that do not grow.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// A file that is larger becomes the older one of two.
const LARGEST: u64 = 1 << 20;

/// The log of a service that runs.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("1")
}

impl Log {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    /// Writes some of it. A disk that is full is no reason for the service to end.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.size >= LARGEST {
            // It was moved already when it could not be opened anew the last time.
            drop(fs::rename(&self.path, older(&self.path)));
            match OpenOptions::new().append(true).create_new(true).open(&self.path) {
                Ok(file) => (self.file, self.size) = (file, 0),
                Err(_) => return,
            }
        }
        if self.file.write_all(bytes).is_ok() {
            self.size += bytes.len() as u64;
        }
    }
}

/// The end of a log, at most `most` bytes of it. Nothing where there is none.
pub(crate) fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = end_of(path, most)?;
    let missing = most.saturating_sub(bytes.len() as u64);
    if missing > 0 {
        let mut before = end_of(&older(path), missing)?;
        before.append(&mut bytes);
        bytes = before;
    }
    Ok(bytes)
}

fn end_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_written_without_end_does_not_grow_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        assert_eq!(tail(&path, 10).expect("read"), b"");
        let mut log = Log::open(path.clone()).expect("opened");
        let line = [b'x'; 1 << 16];
        for _ in 0..100 {
            log.write(&line);
        }
        log.write(b"the end");
        let size: u64 =
            fs::read_dir(folder.path()).expect("a folder").map(|it| it.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 3 * LARGEST, "{size}");
        let end = tail(&path, 8).expect("read");
        assert_eq!(end, b"xthe end");
        // The older of the two is read too.
        assert_eq!(tail(&path, LARGEST + 1000).expect("read").len() as u64, LARGEST + 1000);
    }
}
