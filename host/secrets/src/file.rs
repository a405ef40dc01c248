//! Values in files.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::error::{Error, Result};
use crate::value::{READ_AT_MOST, buffer, written};

/// Something about a reference that works, and that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Other users of this machine can read the file.
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions, as `chmod` writes them.
        mode: u32,
    },
}

impl Warning {
    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::ReadableByOthers { path, .. } => {
                format!("run `chmod 600 {}`", shell_words::quote(&path.to_string_lossy()))
            }
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadableByOthers { path, mode } => {
                write!(f, "other users can read the secret in {} (mode {mode:04o})", path.display())
            }
        }
    }
}

/// Reads a value. It blocks for as long as the disk does, and for nothing else.
///
/// # Errors
/// `NotAFile`, `Io`, and what is wrong with the value.
pub(crate) fn read(path: &Path, subject: &str) -> Result<SecretString> {
    let failed = |doing| move |source| Error::Io { doing, subject: subject.to_owned(), source };
    let check = |metadata: Metadata| match kind(&metadata) {
        None => Ok(()),
        Some(kind) => Err(Error::NotAFile { subject: subject.to_owned(), kind }),
    };
    // Looked at before it is opened, as opening alone makes some devices do something; and again after, as another may
    // be there by then.
    check(std::fs::metadata(path).map_err(failed("find"))?)?;
    let file = open(path).map_err(failed("open"))?;
    check(file.metadata().map_err(failed("read"))?)?;
    let mut bytes = buffer();
    file.take(READ_AT_MOST).read_to_end(&mut bytes).map_err(failed("read"))?;
    written(&bytes, subject)
}

/// Whether others can read it. Nothing where there is no such file, or no such permissions.
pub(crate) fn warning(path: &Path) -> Option<Warning> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
        let mode = metadata.permissions().mode() & 0o7777;
        (mode & 0o044 != 0).then(|| Warning::ReadableByOthers { path: path.to_path_buf(), mode })
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Opens without waiting: a pipe would have it wait for a writer.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// What it is, when it is no file.
fn kind(metadata: &Metadata) -> Option<&'static str> {
    if metadata.is_file() {
        return None;
    }
    if metadata.is_dir() {
        return Some("a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return Some("a pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    Some("a device")
}
