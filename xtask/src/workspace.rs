//! Where things are, and files with their names in the errors.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Failure;

/// The repository's root: that of whoever runs this. Cargo gives one program to all copies of a repository that build in
/// the same folder.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

/// The contract that the plugins are built against.
pub(crate) fn contract() -> PathBuf {
    root().join("wit").join("pcoder-plugin@0.1.0")
}

/// Names a path in an I/O error.
pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| format!("{}: {error}", path.display())
}

/// The entries of a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        paths.push(entry.map_err(at(folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Writes a file unless it is already so: later build steps go by its time. Says whether it was written.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool, Failure> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, bytes).map_err(at(&temporary))?;
    fs::rename(&temporary, path).map_err(at(path))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_file_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("xtask-write-{}", std::process::id()));
        let path = folder.join("a").join("b.wasm");
        assert_eq!(write_if_changed(&path, b"one"), Ok(true));
        assert_eq!(write_if_changed(&path, b"one"), Ok(false));
        assert_eq!(write_if_changed(&path, b"two"), Ok(true));
        assert_eq!(entries(&folder.join("a")), Ok(vec![path]));
        fs::remove_dir_all(&folder).expect("the test's own folder");
    }
}
