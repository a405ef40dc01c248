//! What goes wrong with files that last.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Diagnostic;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file's text is wrong: it says where and what was expected. It was not changed.
    #[error("{0}")]
    Invalid(Diagnostic),
    /// A newer pcoder wrote it. It was not changed.
    #[error("it was written by a newer pcoder (format {found}; this one knows up to {known})")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: i64,
        /// The newest version that is understood.
        known: i64,
    },
    /// The system refused.
    #[error("cannot {doing} it: {source}")]
    Io {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the lock for too long.
    #[error("another pcoder is changing it, and has not ended within {} s", waited.as_secs())]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file system has no locks.
    #[error("its file system has no locks, so two processes could damage it")]
    NoLocks {
        /// The lock's file.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    /// The file that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Invalid(diagnostic) => &diagnostic.path,
            Self::Newer { path, .. } | Self::Io { path, .. } | Self::Busy { path, .. } | Self::NoLocks { path } => path,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Invalid(Diagnostic { line: 0, .. }) => "correct the file; nothing was changed in it".to_owned(),
            Self::Invalid(_) => "correct that line; nothing was changed in the file".to_owned(),
            Self::Newer { .. } => "use the newer pcoder; nothing was changed in the file".to_owned(),
            Self::Busy { .. } => "wait for the other pcoder, or end it".to_owned(),
            Self::NoLocks { .. } => "set `PCODER_HOME` to a folder on another file system".to_owned(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space on that disk and try again; the file is as it was".to_owned()
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "make the disk writable, or set `PCODER_HOME` to a folder on another one".to_owned()
                }
                io::ErrorKind::PermissionDenied => "check who owns it and its permissions".to_owned(),
                _ => "look at what is at that path, and whether its disk works; then try again".to_owned(),
            },
        }
    }
}

/// Names the file in an I/O error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::io(doing, path, error))
    }
}
