//! Programs, looked up by name: one rule for what a plugin was granted and for what fetches a secret.
//!
//! Why not the crate `which`: on Windows it takes the endings from the process's own `PATHEXT`, and nothing here may
//! read the environment. With these endings it finds batch files, whose arguments `cmd.exe` reads a second time, so
//! that a granted grammar of arguments would say little, and scripts that cannot be started at all. Folders that are
//! not absolute it takes for ones below the working folder or the home. To tell it otherwise is longer than this.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What may stand behind the name. A Windows program is meant by its name without the ending, too.
const ENDINGS: &[&str] = if cfg!(windows) { &[".exe", ""] } else { &[""] };

/// The first executable file of that name in the folders of a `PATH`. A folder in it that is not absolute is passed
/// over, as it would be another one everywhere.
///
/// Names with separators are the caller's to judge: they are looked for below each folder.
pub fn program(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|folder| folder.is_absolute())
        .flat_map(|folder| ENDINGS.iter().map(move |ending| folder.join(format!("{name}{ending}"))))
        .find(|candidate| is_executable(candidate))
}

/// Whether that is a file which can be started: on Unix its mode says so.
#[cfg(unix)]
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// Whether that is a file which can be started, as far as that can be seen.
#[cfg(not(unix))]
pub fn is_executable(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests;
