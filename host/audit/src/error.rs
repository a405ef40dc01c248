//! What goes wrong with the audit.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the audit's lock for too long.
    #[error("another pcoder has held the audit's lock `{}` for {} s", path.display(), waited.as_secs())]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A newer pcoder wrote the audit. It was not changed.
    #[error("`{}` was written by a newer pcoder (format {found}; this one knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u64,
        /// The version that is understood.
        known: u64,
    },
    /// What should be recorded cannot be a record.
    #[error("this cannot be recorded: {reason}")]
    Record {
        /// Why.
        reason: String,
    },
    /// The head to compare with is no hash.
    #[error("a head is 64 hexadecimal digits, as `hash` in a record")]
    Head,
    /// The collector's address cannot be used. It is not shown, because it may hold a password.
    #[error("the collector's endpoint cannot be used: {reason}")]
    Endpoint {
        /// Why.
        reason: String,
    },
    /// The collector did not take what was sent.
    #[error("the collector did not take the audit: {reason}")]
    Export {
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    /// The file that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::Busy { path, .. } | Self::Newer { path, .. } => Some(path),
            Self::Record { .. } | Self::Head | Self::Endpoint { .. } | Self::Export { .. } => None,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space on that disk; what was recorded before is whole"
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "make the disk writable, or set `PCODER_HOME` to a folder on another one"
                }
                io::ErrorKind::Unsupported => {
                    "its file system has no locks: set `PCODER_HOME` to a folder on another one"
                }
                io::ErrorKind::PermissionDenied => "check who owns it and its permissions",
                _ => "look at what is at that path, and whether its disk works; then try again",
            },
            Self::Busy { .. } => "end the other pcoder, which seems to be stopped",
            Self::Newer { .. } => "use the newer pcoder; nothing was changed in the file",
            Self::Record { .. } => "this is a defect of pcoder: please report it",
            Self::Head => "take it from `head` in an earlier report",
            Self::Endpoint { .. } => "give the collector's base address, as `http://localhost:4318`",
            Self::Export { .. } => "check that a collector listens there for OTLP over HTTP; the file has every record",
        }
        .to_owned()
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
