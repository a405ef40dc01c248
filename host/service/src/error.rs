//! What goes wrong with services.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which service or file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a name that a folder can have everywhere.
    #[error("a service's name is made of a-z, 0-9 and -, at most 64")]
    Name {
        /// What was given.
        name: String,
    },
    /// It is running already.
    #[error("it is running already")]
    Running {
        /// The service.
        name: String,
    },
    /// It is not running.
    #[error("it is not running")]
    NotRunning {
        /// The service.
        name: String,
    },
    /// The program could not be started.
    #[error("the program could not be started: {message}")]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// What the system said.
        message: String,
    },
    /// The supervisor did not do what was asked.
    #[error("its supervisor {what}")]
    Supervisor {
        /// The service.
        name: String,
        /// What it did instead.
        what: String,
    },
    /// Somebody else talks with it.
    #[error("another one has been talking with it for {} s", waited.as_secs())]
    Busy {
        /// The service.
        name: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The socket's path is longer than the system allows.
    #[error("the path of its socket has {} bytes, and the system allows {most}", path.as_os_str().len())]
    LongPath {
        /// The socket.
        path: PathBuf,
        /// How many there may be.
        most: usize,
    },
    /// A newer pcoder started it.
    #[error("a newer pcoder started it (format {found}; this one knows {known})")]
    Newer {
        /// The record.
        path: PathBuf,
        /// The version in it.
        found: u32,
        /// The version that is understood.
        known: u32,
    },
    /// The system refused.
    #[error("cannot {doing} it: {source}")]
    Io {
        /// What was done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that lasts could not be read or written.
    #[error(transparent)]
    State(#[from] pcoder_state::Error),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    /// What it is about: the service's name, or a file.
    pub fn subject(&self) -> String {
        match self {
            Self::Name { name }
            | Self::Running { name }
            | Self::NotRunning { name }
            | Self::Supervisor { name, .. }
            | Self::Busy { name, .. } => name.clone(),
            Self::NotStarted { program: path, .. }
            | Self::LongPath { path, .. }
            | Self::Newer { path, .. }
            | Self::Io { path, .. } => path.display().to_string(),
            Self::State(error) => error.path().display().to_string(),
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Name { .. } => "give it another name".to_owned(),
            Self::Running { .. } => "stop it first, or use the one that runs".to_owned(),
            Self::NotRunning { .. } => "start it; its log says how it ended".to_owned(),
            Self::NotStarted { .. } => {
                "check that it is installed, may be executed, and is built for this system".to_owned()
            }
            Self::Supervisor { .. } => "its log says more; stop it and start it again".to_owned(),
            Self::Busy { .. } => "wait for the other one, or end it".to_owned(),
            Self::LongPath { .. } => "set `XDG_RUNTIME_DIR` to a folder with a short path".to_owned(),
            Self::Newer { .. } => "use the newer pcoder".to_owned(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space on that disk and try again".to_owned()
            }
            Self::Io { .. } => "look at what is at that path, and who owns it; then try again".to_owned(),
            Self::State(error) => error.hint(),
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
