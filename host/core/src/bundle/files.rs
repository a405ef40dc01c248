//! Files as they are written into a portable folder: new, flushed, hashed on the way.
//!
//! Nothing changes a mode afterwards: exFAT, which sticks have, knows none, and Linux refuses to pretend.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::Path;

use pcoder_engines::{Progress, SafePath};
use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::manifest::BundledFile;

const OPERATION: &str = "bundle.export";
const BUFFER: usize = 1 << 20;

/// The error for what an export's user stopped.
pub(super) fn stopped() -> Error {
    Error::new(code::CANCELLED, OPERATION, "the export was stopped; nothing of it is left")
}

pub(super) fn io_error(path: &Path, error: &io::Error) -> Error {
    Error::io(OPERATION, path.display().to_string(), error)
}

/// Puts files into one folder.
pub(super) struct Writer<'a> {
    root: &'a Path,
    cancel: &'a CancellationToken,
    progress: &'a dyn Progress,
    done: u64,
    files: Vec<BundledFile>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(root: &'a Path, cancel: &'a CancellationToken, progress: &'a dyn Progress) -> Self {
        Self { root, cancel, progress, done: 0, files: Vec::new() }
    }

    /// Writes a file that the list will name.
    pub(super) fn put(&mut self, path: &str, content: impl Read, executable: bool) -> Result<(), Error> {
        let safe = SafePath::parse(path.as_bytes())
            .map_err(|error| Error::new(code::INTERNAL, OPERATION, error.to_string()).subject(path))?;
        let (size, sha256) = self.write(path, content, executable)?;
        self.files.push(BundledFile { path: safe, size, sha256, executable });
        Ok(())
    }

    /// Writes a file that the list will not name: one in `state`. Only its owner can read it.
    pub(super) fn put_state(&mut self, path: &str, content: impl Read) -> Result<String, Error> {
        let target = self.root.join(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        self.fill(&target, &options, content).map(|(_, sha256)| sha256)
    }

    /// The bytes so far, and the list.
    pub(super) fn finish(self) -> (u64, Vec<BundledFile>) {
        (self.done, self.files)
    }

    fn write(&mut self, path: &str, content: impl Read, executable: bool) -> Result<(u64, String), Error> {
        let target = self.root.join(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if executable { 0o777 } else { 0o666 });
        #[cfg(not(unix))]
        let _ = executable;
        self.fill(&target, &options, content)
    }

    fn fill(&mut self, target: &Path, options: &OpenOptions, mut content: impl Read) -> Result<(u64, String), Error> {
        let failed = |error: io::Error| io_error(target, &error);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|error| io_error(folder, &error))?;
        }
        let mut file = options.open(target).map_err(failed)?;
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.cancel.is_cancelled() {
                return Err(stopped());
            }
            let read = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            let piece = buffer.get(..read).unwrap_or_default();
            hash.update(piece);
            file.write_all(piece).map_err(failed)?;
            size += read as u64;
            self.done += read as u64;
            self.progress.bytes(self.done, 0);
        }
        file.sync_all().map_err(failed)?;
        Ok((size, hex(&hash.finalize())))
    }
}

/// The size and the sha256 of a file.
pub(super) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hex(&hash.finalize()))),
            Ok(read) => {
                size += read as u64;
                hash.update(buffer.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Copies a folder of the user's own files, modes included. What is neither a file, a folder nor a link (a socket, say)
/// belongs to a program that ran and is left out. Whoever stops it finds out at the next file.
pub(super) fn copy_tree(from: &Path, to: &Path, cancel: &CancellationToken) -> Result<(), Error> {
    let data = fs::symlink_metadata(from).map_err(|error| io_error(from, &error))?;
    if cancel.is_cancelled() {
        return Err(stopped());
    }
    if data.is_dir() {
        make_folder(to, &data).map_err(|error| io_error(to, &error))?;
        for entry in fs::read_dir(from).map_err(|error| io_error(from, &error))? {
            let entry = entry.map_err(|error| io_error(from, &error))?;
            copy_tree(&entry.path(), &to.join(entry.file_name()), cancel)?;
        }
    } else if data.is_symlink() {
        copy_link(from, to).map_err(|error| io_error(to, &error))?;
    } else if data.is_file() {
        copy_file(from, to, &data).map_err(|error| io_error(to, &error))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, data: &fs::Metadata) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, std::os::unix::fs::MetadataExt::mode(data) & 0o777);
    #[cfg(not(unix))]
    let _ = data;
    let mut target = options.open(to)?;
    io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_all()
}

#[cfg(unix)]
fn make_folder(path: &Path, data: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    // Whatever it was, its owner must be able to fill it.
    fs::DirBuilder::new().mode(data.mode() & 0o777 | 0o700).create(path)
}

#[cfg(not(unix))]
fn make_folder(path: &Path, _data: &fs::Metadata) -> io::Result<()> {
    fs::create_dir(path)
}

#[cfg(unix)]
fn copy_link(from: &Path, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(fs::read_link(from)?, to)
}

/// Windows gives links to few, so that none of ours or of the engines is there.
#[cfg(not(unix))]
fn copy_link(_from: &Path, _to: &Path) -> io::Result<()> {
    Ok(())
}

/// The bytes of a folder's files.
pub(super) fn tree_size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| tree_size(&entry.path())).sum()
        }
        Ok(data) => data.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use pcoder_engines::Silent;

    use super::*;

    #[test]
    fn what_is_put_is_listed_with_its_digest_and_what_is_in_state_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let cancel = CancellationToken::new();
        let mut writer = Writer::new(folder.path(), &cancel, &Silent);
        writer.put("bin/x/run", &b"abc"[..], true).expect("written");
        writer.put("text", &b""[..], false).expect("written");
        let sha256 = writer.put_state("state/a", &b"abc"[..]).expect("written");
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(writer.put("text", &b"again"[..], false).is_err(), "nothing is written over");
        let (done, files) = writer.finish();
        assert_eq!(done, 6);
        assert_eq!(files.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["bin/x/run", "text"]);
        assert_eq!(files[0].sha256, sha256);
        assert_eq!(digest(&folder.path().join("bin/x/run")).expect("read"), (3, sha256));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |name: &str| folder.path().join(name).metadata().expect("a file").permissions().mode();
            assert!(mode("bin/x/run") & 0o111 != 0 && mode("text") & 0o111 == 0);
            assert_eq!(mode("state/a") & 0o777, 0o600);
        }
    }

    #[test]
    fn what_was_stopped_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let cancel = CancellationToken::new();
        cancel.cancel();
        let error = Writer::new(folder.path(), &cancel, &Silent).put("a", &b"abc"[..], false).expect_err("stopped");
        assert_eq!(error.code, code::CANCELLED);
    }

    #[cfg(unix)]
    #[test]
    fn a_users_files_are_copied_with_their_modes_and_links_and_without_sockets() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep")).expect("a folder");
        fs::write(from.join("deep/login"), "secret").expect("a file");
        fs::set_permissions(from.join("deep/login"), fs::Permissions::from_mode(0o600)).expect("a mode");
        std::os::unix::fs::symlink("deep/login", from.join("link")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(from.join("s")).expect("a socket");
        copy_tree(&from, &to, &CancellationToken::new()).expect("copied");
        assert_eq!(fs::metadata(to.join("deep/login")).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_link(to.join("link")).expect("a link"), Path::new("deep/login"));
        assert!(!to.join("s").exists());
        assert_eq!(tree_size(&to), 6 + "deep/login".len() as u64);
    }
}
