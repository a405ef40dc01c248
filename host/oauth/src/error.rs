//! What goes wrong with a login.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which server or file. No variant holds a token, a code, or what a server wrote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was pasted is no code.
    #[error("what was pasted is not a login code: {detail}")]
    Pasted {
        /// Why not.
        detail: &'static str,
    },
    /// The code belongs to another login than the one that was begun. It may be somebody else's, so it is not used.
    #[error("the code belongs to another login: its state is not the one that was sent")]
    WrongState,
    /// The authorisation server sent the user back without a code.
    #[error("the login was not granted{}", in_brackets(code))]
    Denied {
        /// The OAuth error code.
        code: Option<String>,
    },
    /// Nobody came to the loopback port.
    #[error("no answer from the browser within {} s", waited.as_secs())]
    NotInTime {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The loopback port cannot be opened.
    #[error("cannot listen on 127.0.0.1 port {port}: {source}")]
    Listen {
        /// The port; 0 is any.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// A description of a service, or of how to reach it, that cannot be used.
    #[error("{subject} cannot be used: {detail}")]
    Config {
        /// What of it.
        subject: &'static str,
        /// Why not.
        detail: String,
    },
    /// The refresh token or the code is not valid any more (`invalid_grant`).
    #[error("{server} does not accept this login any more (invalid_grant)")]
    LoginExpired {
        /// Host, and port where it is not the usual one.
        server: String,
    },
    /// There is no refresh token.
    #[error("the login has no refresh token")]
    NoRefreshToken,
    /// Too many requests (429).
    #[error("{server} answers 429: too many requests")]
    RateLimited {
        /// Host, and port where it is not the usual one.
        server: String,
        /// How long it asks to wait.
        after: Option<Duration>,
    },
    /// The server answers an error: 4xx, 5xx, or a redirect, which is never followed.
    #[error("{server} answers {status}{}", in_brackets(code))]
    Refused {
        /// Host, and port where it is not the usual one.
        server: String,
        /// The HTTP status.
        status: u16,
        /// The OAuth error code: letters and underscores.
        code: Option<String>,
        /// How long it asks to wait.
        after: Option<Duration>,
    },
    /// An answer that is not what RFC 6749 says.
    #[error("{server} gives an answer that cannot be used: {detail}")]
    Answer {
        /// Host, and port where it is not the usual one.
        server: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// No whole answer in time.
    #[error("{server} gives no answer within {} s", deadline.as_secs())]
    Timeout {
        /// Host, and port where it is not the usual one.
        server: String,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// No connection, or one that broke.
    #[error("cannot reach {server}: {detail}")]
    Network {
        /// Host, and port where it is not the usual one.
        server: String,
        /// What the system said.
        detail: String,
    },
    /// The credentials file cannot be understood. It was not changed.
    #[error("the credentials in it cannot be understood: {detail}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong, without its content.
        detail: String,
    },
    /// The credentials file cannot be read.
    #[error("cannot {doing} it: {source}")]
    Io {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server gave new tokens, the old ones are void, and the new ones could not be written.
    #[error("the login was refreshed, and the new one could not be saved: {source}")]
    NotSaved {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: pcoder_state::Error,
    },
    /// Other programs changed the login twice while it was refreshed.
    #[error("other programs keep changing the login")]
    Unsettled {
        /// The file.
        path: PathBuf,
    },
    /// The lock, or the file under it.
    #[error(transparent)]
    State(#[from] pcoder_state::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The runtime ended in the middle.
    #[error("the program ended before the login was refreshed")]
    Interrupted,
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    /// The file that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Credentials { path, .. }
            | Self::Io { path, .. }
            | Self::NotSaved { path, .. }
            | Self::Unsettled { path } => Some(path),
            Self::State(error) => Some(error.path()),
            _ => None,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Pasted { .. } => "paste the whole code that the page shows, as `code#state`",
            Self::WrongState => "begin the login again, and paste the code of that page",
            Self::Denied { .. } => "begin the login again, and allow it in the browser",
            Self::NotInTime { .. } => "begin the login again, or use the way where a code is pasted",
            Self::Listen { .. } => "use the way where a code is pasted",
            Self::Config { .. } => "correct it where it is set",
            Self::LoginExpired { .. } | Self::NoRefreshToken => "log in again",
            Self::RateLimited { after: Some(after), .. } | Self::Refused { after: Some(after), .. } => {
                // A date that has passed asks for no wait.
                return format!("try again in {} s", after.as_secs().max(1));
            }
            Self::RateLimited { after: None, .. } => "try again in some minutes",
            Self::Refused { status: 500.., .. } | Self::Timeout { .. } => "try again later",
            Self::Refused { .. } | Self::Answer { .. } => "check the service's URL, or log in again",
            Self::Network { .. } => "check the network, the proxy and the certificates, and try again",
            Self::Credentials { .. } => "move the file away and log in again; nothing was changed in it",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => "check who owns it and its permissions",
                _ => "look at what is at that path, and whether its disk works; then try again",
            },
            Self::NotSaved { .. } => "make the file writable and log in again",
            Self::State(error) => return error.hint(),
            Self::Random(_) | Self::Interrupted | Self::Unsettled { .. } => "try again",
        };
        hint.to_owned()
    }
}

fn in_brackets(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default()
}
