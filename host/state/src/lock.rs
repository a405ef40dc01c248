//! One process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{At as _, Error, Result};

/// How often a waiting process looks again, where the system cannot be told to wait with a deadline.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long a change of one small file may take. Whoever holds the lock for longer was stopped in the middle.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An exclusive lock of the operating system on a file of its own. Dropping it, or dying, releases it. The file is never
/// deleted: a deleted lock file is a lock that two can hold.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock on `path`, waiting for at most `patience`.
    ///
    /// # Errors
    /// `Busy` when another process kept it, `NoLocks` where the file system has none, `Io`.
    pub fn take(path: &Path, patience: Duration) -> Result<Self> {
        let file = open(path)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if started.elapsed() < patience => std::thread::sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Busy { path: path.to_path_buf(), waited: patience });
                }
                Err(TryLockError::Error(error)) => return Err(refused(path, error)),
            }
        }
    }

    /// Takes the lock when nobody has it.
    ///
    /// # Errors
    /// As [`Lock::take`], without `Busy`.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(refused(path, error)),
        }
    }
}

/// Whether the file system of a file that is there has locks. Nothing is written: a shared lock on a file that is open for
/// reading is taken and given back. Where the file cannot be opened the answer is yes, and whoever locks hears the reason.
pub fn has_locks(existing: &Path) -> bool {
    let Ok(file) = File::open(existing) else { return true };
    match file.try_lock_shared() {
        // Both say that there are locks.
        Ok(()) | Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(_)) => false,
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).at("make the folder of", path)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at("open", path)
}

fn refused(path: &Path, error: std::io::Error) -> Error {
    // ENOLCK and ENOTSUP have no kind of their own in every version of the standard library.
    let no_locks = matches!(error.kind(), ErrorKind::Unsupported) || error.raw_os_error().is_some_and(is_no_lock);
    if no_locks { Error::NoLocks { path: path.to_path_buf() } } else { Error::io("lock", path, error) }
}

#[cfg(target_os = "linux")]
fn is_no_lock(code: i32) -> bool {
    const ENOLCK: i32 = 37;
    const ENOSYS: i32 = 38;
    const EOPNOTSUPP: i32 = 95;
    matches!(code, ENOLCK | ENOSYS | EOPNOTSUPP)
}

#[cfg(not(target_os = "linux"))]
fn is_no_lock(code: i32) -> bool {
    // ENOLCK of macOS; ERROR_INVALID_FUNCTION of Windows, which its network file systems answer.
    matches!((cfg!(windows), code), (false, 77) | (true, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_asked_for_locks_without_writing_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.lock");
        assert!(has_locks(&path), "not there");
        let held = Lock::take(&path, PATIENCE).expect("free");
        assert!(has_locks(&path), "held");
        drop(held);
        assert!(has_locks(&path), "free");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        // The kernel's own files cannot be locked; where they can, there is nothing to see.
        let refusing = Path::new("/proc/self/fd");
        assert!(
            !refusing.exists()
                || File::open(refusing).is_ok_and(|it| it.try_lock_shared().is_ok()) == has_locks(refusing)
        );
    }

    #[test]
    fn one_holds_it_and_the_next_one_after_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("locks").join("a.lock");
        let first = Lock::take(&path, PATIENCE).expect("free");
        assert!(Lock::try_take(&path).expect("asked").is_none());
        let error = Lock::take(&path, Duration::ZERO).expect_err("held");
        assert!(matches!(error, Error::Busy { .. }) && error.hint().contains("wait"));
        drop(first);
        assert!(Lock::try_take(&path).expect("asked").is_some());
    }
}
