//! A seed: the small disk that tells a guest who it is. guest/README.md says what may be on it.

use std::io::{Cursor, Write as _};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use crate::Failure;

/// Bytes of the disk. The smallest that every reader of FAT takes for a floppy's.
const SIZE: usize = 1_440 * 1024;

/// A disk with these files, labelled as NoCloud wants it. The same files make the same disk.
pub(super) fn seed(files: &[(&str, &str)]) -> Result<Vec<u8>, Failure> {
    let mut disk = vec![0; SIZE];
    let failed = |error: std::io::Error| format!("the seed cannot be made: {error}");
    let options = FormatVolumeOptions::new().volume_label(*b"CIDATA     ").volume_id(0x0C1D_A7A0);
    fatfs::format_volume(Cursor::new(&mut disk), options).map_err(failed)?;
    let system = FileSystem::new(Cursor::new(&mut disk), FsOptions::new()).map_err(failed)?;
    for (name, text) in files {
        let mut file = system.root_dir().create_file(name).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.flush().map_err(failed)?;
    }
    system.unmount().map_err(failed)?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_seed_is_a_labelled_disk_with_its_files() {
        let files = [("meta-data", "instance-id: a\n"), ("authorized_keys", "ssh-ed25519 AAAA\n"), ("environment", "")];
        let mut disk = seed(&files).expect("a disk");
        assert_eq!(disk, seed(&files).expect("the same"));
        let system = FileSystem::new(Cursor::new(&mut disk), FsOptions::new()).expect("a file system");
        assert_eq!(system.volume_label(), "CIDATA");
        let mut names: Vec<String> =
            system.root_dir().iter().map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["authorized_keys", "environment", "meta-data"]);
        let mut text = String::new();
        system.root_dir().open_file("meta-data").expect("it is there").read_to_string(&mut text).expect("text");
        assert_eq!(text, "instance-id: a\n");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(seed(&[("environment", &"x".repeat(SIZE))]).expect_err("too long").contains("seed"));
    }
}
