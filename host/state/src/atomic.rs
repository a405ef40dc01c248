//! Writing whole files.

use std::io::Write as _;
use std::path::Path;

use crate::error::{At as _, Result};

/// Writes a file so that a reader, and whoever comes after a crash, finds the old content or the new one: beside it,
/// flushed to the disk, then renamed. The folder is made when it is missing. On Unix only its owner can read the file.
///
/// # Errors
/// `Io`, and then the old file is as it was.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).at("make the folder of", path)?;
    // Its name begins with a dot, so that one that a crash has left is no document to anybody who lists the folder.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).at("write", path)?;
    file.write_all(content).at("write", path)?;
    file.as_file().sync_all().at("write", path)?;
    file.persist(path).map_err(|error| error.error).at("replace", path)?;
    // A rename lasts when its folder does. Not every system lets a folder be flushed, and then it is as good as it gets.
    if let Ok(folder) = std::fs::File::open(folder) {
        drop(folder.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new folder").join("a.toml");
        write_atomic(&path, b"one").expect("written");
        write_atomic(&path, b"two").expect("written");
        assert_eq!(std::fs::read(&path).expect("a file"), b"two");
        assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.toml");
        write_atomic(&path, b"one").expect("written");
        assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn where_it_cannot_be_written_the_old_one_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.toml");
        std::fs::create_dir(&path).expect("a folder in the way");
        std::fs::write(path.join("inside"), "kept").expect("a file");
        let error = write_atomic(&path, b"one").expect_err("a folder is in the way");
        assert_eq!(error.path(), path);
        assert_eq!(std::fs::read_to_string(path.join("inside")).expect("a file"), "kept");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary file is left");
    }
}
