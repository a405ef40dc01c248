//! What stops a sync.

use std::io;
use std::path::{Path, PathBuf};

use crate::remote::RemoteError;
use crate::report::Side;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Either side may be done in part, each file whole; the next sync goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused something on this host.
    #[error("cannot {doing} it: {source}")]
    Io {
        /// What was done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record of the last sync cannot be read or written.
    #[error(transparent)]
    State(#[from] pcoder_state::Error),
    /// A newer pcoder wrote the record of the last sync.
    #[error("the record of the last sync was written by a newer pcoder (format {found}; this one knows {known})")]
    Newer {
        /// The record.
        path: PathBuf,
        /// The version in it.
        found: u8,
        /// The version that is understood.
        known: u8,
    },
    /// Another sync of the same folder is going on.
    #[error("another sync of this folder is going on")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// A pattern of what to ignore cannot be understood.
    #[error("a pattern of what to ignore is wrong: {message}")]
    Pattern {
        /// The file that it is in; none when the caller gave it.
        path: Option<PathBuf>,
        /// What is wrong with it.
        message: String,
    },
    /// The instance could not be reached.
    #[error("the instance cannot be reached: {0}")]
    Unreachable(#[source] RemoteError),
    /// A script failed on the instance.
    #[error("cannot {doing} on the instance (exit code {code}): {message}")]
    Failed {
        /// What was done.
        doing: &'static str,
        /// The script's exit code.
        code: i32,
        /// The last line that it wrote to standard error.
        message: String,
    },
    /// The instance lacks programs.
    #[error("the instance lacks {}, or has them in a form that cannot do what is needed", tools.join(", "))]
    Tools {
        /// Their names.
        tools: Vec<String>,
    },
    /// What came from the instance is not what was asked for. Nothing of it was taken.
    #[error("what came from the instance cannot be trusted: {message}")]
    Garbled {
        /// What is wrong with it.
        message: String,
    },
    /// More files than are allowed.
    #[error("there are {found} files and folders {side}, and more than {limit} are not synced")]
    TooMany {
        /// Where.
        side: Side,
        /// How many; on this host, how many until it was given up.
        found: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// More output than the instance's connection can bring.
    #[error("the description of the instance's folder is longer than the {limit} bytes that it can send at once")]
    OutputLimit {
        /// Bytes.
        limit: u64,
    },
    /// The instance's files changed again and again while they were written.
    #[error("the instance's files keep changing while they are compared")]
    Changing,
    /// Something inside of this crate ended before its time.
    #[error("the sync broke off: {message}")]
    Broken {
        /// What is known of it.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    pub(crate) fn garbled(message: impl Into<String>) -> Self {
        Self::Garbled { message: message.into() }
    }

    /// What kind of error it is, in a word that does not change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::State(_) | Self::Newer { .. } => "state",
            Self::Busy { .. } => "busy",
            Self::Pattern { .. } => "invalid",
            Self::Unreachable(_) => "unreachable",
            Self::Failed { .. } => "remote-failed",
            Self::Tools { .. } => "unsupported",
            Self::Garbled { .. } => "garbled",
            Self::TooMany { .. } | Self::OutputLimit { .. } => "limit",
            Self::Changing => "changing",
            Self::Broken { .. } => "internal",
        }
    }

    /// The file or folder on this host that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::Newer { path, .. } | Self::Busy { path } => Some(path),
            Self::State(error) => Some(error.path()),
            Self::Pattern { path, .. } => path.as_deref(),
            _ => None,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space on that disk, then sync again".to_owned()
                }
                io::ErrorKind::PermissionDenied => "check who owns it and its permissions, then sync again".to_owned(),
                io::ErrorKind::NotFound => "check the path; a project's folder is not made by a sync".to_owned(),
                _ => "look at what is at that path, then sync again".to_owned(),
            },
            Self::State(error) => error.hint(),
            Self::Newer { .. } => "use the newer pcoder; nothing was changed".to_owned(),
            Self::Busy { .. } => "wait until it has ended".to_owned(),
            Self::Pattern { .. } => "correct the pattern; it has the syntax of `.gitignore`".to_owned(),
            Self::Unreachable(_) => "check that the instance runs, then sync again; what was done stays".to_owned(),
            Self::Failed { .. } => {
                "check the space and the permissions of the instance's folder, then sync again".to_owned()
            }
            Self::Tools { tools } => format!(
                "install {} on the instance: GNU findutils, coreutils and tar, or busybox, have them",
                tools.join(", ")
            ),
            Self::Garbled { .. } => "sync again; if it stays, do not trust that instance".to_owned(),
            Self::TooMany { .. } | Self::OutputLimit { .. } => {
                "name folders that need not be synced in `.pcoderignore`".to_owned()
            }
            Self::Changing => "stop what writes there, or name its files in `.pcoderignore`".to_owned(),
            Self::Broken { .. } => "sync again; what was done stays".to_owned(),
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
