//! Archives of QEMU: unpacked below one folder, regular files and folders and nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;

use flate2::read::GzDecoder;
use pcoder_engines::{Phase, Progress, SafePath};
use tokio_util::sync::CancellationToken;

use crate::error::{At as _, Error, Result};
use crate::files::PIECE;
use crate::manifest::Archive;

/// More than any QEMU for two processors has, with its firmware.
const MOST_BYTES: u64 = 2 << 30;
const MOST_FILES: usize = 20_000;

/// Unpacks an archive whose digest was compared into an empty folder. What may be executed there becomes executable.
pub(crate) fn unpack(
    path: &Path,
    kind: Archive,
    into: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    progress.phase(Phase::Unpacking);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = File::open(path).at("open", path)?;
    let total = file.metadata().at("read", path)?.len();
    let mut unpacking = Unpacking { name: &name, into, bytes: 0, files: 0, total, progress, cancel };
    match kind {
        Archive::TarGz => unpacking.tar(GzDecoder::new(BufReader::new(file))),
        Archive::Zip => unpacking.zip(BufReader::new(file)),
    }
}

struct Unpacking<'a> {
    name: &'a str,
    into: &'a Path,
    bytes: u64,
    files: usize,
    total: u64,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
}

impl Unpacking<'_> {
    fn refused(&self, detail: impl Into<String>) -> Error {
        Error::Archive { file: self.name.to_owned(), detail: detail.into() }
    }

    fn tar(&mut self, from: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(from);
        let damaged = |error: io::Error| Error::Archive {
            file: self.name.to_owned(),
            detail: format!("it cannot be read: {error}"),
        };
        let entries = archive.entries().map_err(damaged)?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.refused(format!("it cannot be read: {error}")))?;
            let path = entry.path_bytes().into_owned();
            let kind = entry.header().entry_type();
            let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
            if kind.is_dir() {
                self.folder(&path)?;
            } else if kind.is_file() || kind.is_contiguous() {
                self.file(&path, executable, &mut entry)?;
            } else if !kind.is_pax_global_extensions() {
                return Err(self.refused(format!("`{}` is neither a file nor a folder", shown(&path))));
            }
        }
        Ok(())
    }

    fn zip(&mut self, from: impl Read + io::Seek) -> Result<()> {
        let unreadable = |error: zip::result::ZipError| Error::Archive {
            file: self.name.to_owned(),
            detail: format!("it cannot be read: {error}"),
        };
        let mut archive = zip::ZipArchive::new(from).map_err(unreadable)?;
        for index in 0..archive.len() {
            let mut entry =
                archive.by_index(index).map_err(|error| self.refused(format!("it cannot be read: {error}")))?;
            let path = entry.name_raw().to_vec();
            let mode = entry.unix_mode().unwrap_or(0);
            if entry.is_dir() {
                self.folder(&path)?;
            } else if entry.is_symlink() {
                return Err(self.refused(format!("`{}` is neither a file nor a folder", shown(&path))));
            } else {
                self.file(&path, mode & 0o111 != 0, &mut entry)?;
            }
        }
        Ok(())
    }

    fn safe(&self, path: &[u8]) -> Result<Option<SafePath>> {
        // `tar` begins with `./` when it packs a folder.
        let plain = path.strip_prefix(b"./").unwrap_or(path);
        let plain = plain.strip_suffix(b"/").unwrap_or(plain);
        if plain.is_empty() || plain == b"." {
            return Ok(None);
        }
        let path = SafePath::parse(plain);
        path.map(Some).map_err(|_| self.refused(format!("`{}` is no path below a folder", shown(plain))))
    }

    fn folder(&mut self, path: &[u8]) -> Result<()> {
        let Some(path) = self.safe(path)? else { return Ok(()) };
        self.count()?;
        let folder = path.below(self.into);
        fs::create_dir_all(&folder).at("create", &folder)
    }

    fn count(&mut self) -> Result<()> {
        self.files += 1;
        if self.files > MOST_FILES {
            return Err(self.refused(format!("it has more than {MOST_FILES} files")));
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], executable: bool, from: &mut impl Read) -> Result<()> {
        let Some(safe) = self.safe(path)? else { return Err(self.refused("a file in it has no name")) };
        self.count()?;
        let to = safe.below(self.into);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        // Two of one name would be one, and on some systems names differ in more than they do here.
        let mut file = match File::create_new(&to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.refused(format!("it has `{safe}` twice")));
            }
            file => file.at("create", &to)?,
        };
        let mut buffer = vec![0; PIECE];
        loop {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled { subject: self.name.to_owned() });
            }
            let count =
                from.read(&mut buffer).map_err(|error| self.refused(format!("`{safe}` cannot be read: {error}")))?;
            if count == 0 {
                break;
            }
            self.bytes += count as u64;
            if self.bytes > MOST_BYTES {
                return Err(self.refused(format!("it unpacks to more than {} MiB", MOST_BYTES >> 20)));
            }
            file.write_all(buffer.get(..count).unwrap_or_default()).at("write", &to)?;
            self.progress.bytes(self.bytes, self.total.max(self.bytes));
        }
        set_mode(&file, &to, executable)?;
        file.sync_all().at("flush", &to)
    }
}

#[cfg(unix)]
fn set_mode(file: &File, path: &Path, executable: bool) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = if executable { 0o755 } else { 0o644 };
    match file.set_permissions(fs::Permissions::from_mode(mode)) {
        // exFAT knows no modes and Linux refuses to pretend: there everything can be started, or nothing.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.at("change the mode of", path),
    }
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: &Path, _: bool) -> Result<()> {
    Ok(())
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().take(200).collect()
}
