//! One process at a time, for microseconds.
//!
//! `pcoder_state::Lock` opens its file each time and looks again every 5 ms, which is right for documents. Here it
//! would cost more than the append itself, so the file stays open.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{At as _, Error, Result};

/// Whoever holds the lock for longer was stopped in the middle.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// The lock's file, open. It is never deleted: a deleted lock file is a lock that two can hold.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

/// The lock, held.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a File);

impl LockFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).at("make the folder of", path)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        Ok(Self { file: options.open(path).at("open", path)?, path: path.to_path_buf() })
    }

    pub(crate) fn hold(&self) -> Result<Held<'_>> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(Held(&self.file)),
                Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Busy { path: self.path.clone(), waited: PATIENCE });
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &self.path, error)),
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // If this fails, the lock ends with the file's handle.
        drop(self.0.unlock());
    }
}
