//! One installer at a time, and none while the engine runs.
//!
//! An operating-system lock on `locks/NAME@VERSION@PLATFORM.lock`: exclusive to install or remove, shared to run. It ends
//! with its process, however that ends. The file lies outside the version's folder (Windows cannot rename a folder with
//! an open file in it) and is never deleted (a deleted lock file is a lock that two can hold). What the holder is doing stands
//! in a file beside it, because Windows lets nobody read a locked file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::{At, Error, Result};
use crate::progress::{Phase, Progress};

/// How often a waiting process looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a holder says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Status {
    pid: u32,
    doing: String,
    #[serde(default)]
    percent: Option<u8>,
}

/// An exclusive lock. Dropping it, or dying, releases it.
#[derive(Debug)]
pub(crate) struct InstallLock {
    file: File,
    status: PathBuf,
    last: Option<u8>,
}

/// A shared lock: as long as it lives, the engine is neither removed nor replaced.
#[derive(Debug)]
pub struct Hold {
    file: File,
}

fn open(locks: &Path, key: &str) -> Result<(File, PathBuf)> {
    fs::create_dir_all(locks).at("create", locks)?;
    let path = locks.join(format!("{key}.lock"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)?;
    Ok((file, path))
}

fn status_path(locks: &Path, key: &str) -> PathBuf {
    locks.join(format!("{key}.status"))
}

/// Who holds it, in words.
fn holder(locks: &Path, key: &str) -> String {
    let status = fs::read(status_path(locks, key)).ok().and_then(|bytes| serde_json::from_slice::<Status>(&bytes).ok());
    match status {
        Some(Status { pid, doing, percent: Some(percent) }) => format!("pcoder pid {pid} ({doing}, {percent} %)"),
        Some(Status { pid, doing, percent: None }) => format!("pcoder pid {pid} ({doing})"),
        None => "another pcoder that uses it".to_owned(),
    }
}

impl InstallLock {
    /// Takes the lock if nobody has it.
    pub(crate) fn try_take(locks: &Path, key: &str, doing: &str) -> Result<Option<Self>> {
        let (file, path) = open(locks, key)?;
        match file.try_lock() {
            Ok(()) => {
                let mut lock = Self { file, status: status_path(locks, key), last: None };
                lock.write(doing, None);
                Ok(Some(lock))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }

    /// Takes the lock, or says who has it.
    pub(crate) fn take_now(locks: &Path, key: &str, subject: &str, doing: &str) -> Result<Self> {
        Self::try_take(locks, key, doing)?
            .ok_or_else(|| Error::Locked { subject: subject.to_owned(), holder: holder(locks, key) })
    }

    /// Waits for the lock, and says for whom. Ends early when `done` says that there is nothing left to do. `doing` is a
    /// verb, as in `installing`.
    pub(crate) async fn wait<T>(
        locks: &Path,
        key: &str,
        (doing, subject): (&str, &str),
        progress: &dyn Progress,
        cancel: &CancellationToken,
        done: impl Fn() -> Result<Option<T>>,
    ) -> Result<Waited<T>> {
        let mut said = String::new();
        loop {
            if let Some(lock) = Self::try_take(locks, key, &format!("{doing} {subject}"))? {
                return Ok(Waited::Lock(lock));
            }
            let message = format!("waiting for {}", holder(locks, key));
            if said.is_empty() {
                progress.phase(Phase::Waiting);
            }
            if said != message {
                progress.message(&message);
                said = message;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = cancel.cancelled() => return Err(Error::Cancelled { subject: subject.to_owned() }),
            }
            if let Some(done) = done()? {
                return Ok(Waited::Done(done));
            }
        }
    }

    /// Tells those who wait how far it is.
    pub(crate) fn percent(&mut self, doing: &str, percent: u8) {
        if self.last != Some(percent) {
            self.last = Some(percent);
            self.write(doing, Some(percent));
        }
    }

    /// A status that cannot be written is no reason to fail: it is for people who wait.
    fn write(&mut self, doing: &str, percent: Option<u8>) {
        let status = Status { pid: std::process::id(), doing: doing.to_owned(), percent };
        let new = self.status.with_extension("status-new");
        if let Ok(bytes) = serde_json::to_vec(&status)
            && fs::write(&new, bytes).is_ok()
        {
            let _ = fs::rename(&new, &self.status);
        }
    }
}

// Released by name and not only by closing: a process that another thread starts at this moment has a copy of the file until
// it becomes another program, and the copy would hold the lock as long.
impl Drop for InstallLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.status);
        let _ = fs::remove_file(self.status.with_extension("status-new"));
        let _ = self.file.unlock();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// What waiting for a lock ended with.
pub(crate) enum Waited<T> {
    /// The lock is ours.
    Lock(InstallLock),
    /// Another did it.
    Done(T),
}

impl Hold {
    /// Takes a shared lock, or says who has the exclusive one.
    pub(crate) fn take(locks: &Path, key: &str, subject: &str) -> Result<Self> {
        let (file, path) = open(locks, key)?;
        match file.try_lock_shared() {
            Ok(()) => {
                // An installer that died left it; there is none while this lock is shared.
                let _ = fs::remove_file(status_path(locks, key));
                Ok(Self { file })
            }
            Err(TryLockError::WouldBlock) => {
                Err(Error::Locked { subject: subject.to_owned(), holder: holder(locks, key) })
            }
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }
}
