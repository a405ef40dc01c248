//! What is done with whole folders: publish, make executable, flush, delete.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result};
#[cfg(unix)]
use crate::findings::is_executable;
use crate::ledger::FileRecord;

/// A virus scanner may hold a fresh program for a long time (10 s were not enough for some: uv#17679).
const RENAME_PATIENCE: Duration = Duration::from_secs(30);

/// Renames a folder. On Windows it is tried again, for at most 30 s, while something has a file in it open.
///
/// # Errors
/// The system's.
pub fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match fs::rename(from, to) {
            Err(error)
                if cfg!(windows)
                    && error.kind() == io::ErrorKind::PermissionDenied
                    && start.elapsed() < RENAME_PATIENCE =>
            {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            result => return result,
        }
    }
}

/// The same with this crate's error.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    rename_folder(from, to).at("move into place", to)
}

/// Deletes a folder, in two steps: a half-deleted engine must not look like one.
pub(crate) fn trash(folder: &Path, trash: &Path, key: &str) -> Result<()> {
    if matches!(fs::symlink_metadata(folder), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    fs::create_dir_all(trash).at("create", trash)?;
    let aside = tempfile::Builder::new().prefix(&format!("{key}.")).tempdir_in(trash).at("create", trash)?;
    rename(folder, &aside.path().join("engine"))?;
    remove_tree(aside.path())
}

/// Deletes a folder that may be gone already.
pub(crate) fn remove_tree(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", folder, error)),
        _ => Ok(()),
    }
}

/// Files that may be run become so, once they are known to be right.
#[cfg(unix)]
pub(crate) fn set_modes(tree: &Path, files: &[FileRecord]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for file in files {
        let path = file.path.below(tree);
        let mode = if file.executable { 0o755 } else { 0o644 };
        match fs::set_permissions(&path, fs::Permissions::from_mode(mode)) {
            // exFAT knows no modes and Linux refuses to pretend. What counts is whether it can be started.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let data = fs::symlink_metadata(&path).at("read", &path)?;
                if file.executable && !is_executable(&data) {
                    return Err(Error::io("change the mode of", &path, error));
                }
            }
            result => result.at("change the mode of", &path)?,
        }
    }
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn set_modes(_tree: &Path, _files: &[FileRecord]) -> Result<()> {
    Ok(())
}

/// Up to here a small file's flush is left to the system.
const FLUSH_FROM: u64 = 256 * 1024;

/// Flushes what was unpacked, before its folder gets the name that says that it is whole.
///
/// Measured: 0.1 s for a 377 MB program on a virtual machine's disk, beside 1.4 s for the rest. An adapter's four thousand small files
/// would take longer than their download, one by one, so they are left to the system's own few seconds; after a power
/// cut within those, the quick check finds missing and shortened ones, and `verify` all.
pub(crate) fn flush(tree: &Path, files: &[FileRecord]) -> Result<()> {
    for file in files.iter().filter(|file| file.size >= FLUSH_FROM) {
        let path = file.path.below(tree);
        // Windows flushes only what is open for writing.
        let open = File::options().read(true).write(cfg!(windows)).open(&path);
        open.and_then(|file| file.sync_all()).at("flush", &path)?;
    }
    Ok(())
}

/// Flushes a folder's own entries. Windows has no such thing.
pub(crate) fn flush_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).at("flush", folder)?;
    }
    Ok(())
}
