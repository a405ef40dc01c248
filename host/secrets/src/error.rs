//! What goes wrong with secrets. Nothing in here is ever a value.

use std::io;
use std::process::ExitStatus;

use crate::keyring::SERVICE;
use crate::{MAX_LENGTH, Source};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The forms of a reference, for messages.
const FORMS: &str = "env:NAME, file:PATH, keyring:NAME or command:LINE";

/// What went wrong, and with which reference. A `subject` is as [`Reference::subject`](crate::Reference::subject) says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text says of no source. It is not kept: it may be the secret itself.
    #[error("this is no reference to a secret, expected {FORMS}; secrets are only taken by reference")]
    NoReference,
    /// The text names a source that there is not.
    #[error("unknown secret source `{name}`, expected {FORMS}")]
    UnknownSource {
        /// What stands before the first colon: a few letters.
        name: String,
    },
    /// What follows the source is wrong. It is not kept: it may be the secret itself.
    #[error("what follows `{origin}:` {problem}")]
    Malformed {
        /// The source.
        origin: Source,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The environment variable is not there.
    #[error("this environment variable is not set")]
    NotSet {
        /// The reference.
        subject: String,
    },
    /// There is nothing in it.
    #[error("it is empty")]
    Empty {
        /// The reference.
        subject: String,
    },
    /// It holds a byte that neither a variable nor a header can carry.
    #[error("it holds a NUL byte")]
    Nul {
        /// The reference.
        subject: String,
    },
    /// It is no text.
    #[error("it is not UTF-8 text")]
    NotText {
        /// The reference.
        subject: String,
    },
    /// It is longer than any secret.
    #[error("it is longer than {} KiB", MAX_LENGTH / 1024)]
    TooLong {
        /// The reference.
        subject: String,
    },
    /// The path begins with `~/`, and there is no home.
    #[error("the path is in the home folder, and it is not known which that is")]
    NoHome {
        /// The reference.
        subject: String,
    },
    /// A folder, a pipe, a socket or a device.
    #[error("it is {kind} and no file")]
    NotAFile {
        /// The reference.
        subject: String,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// The system refused.
    #[error("cannot {doing} it: {source}")]
    Io {
        /// What was done.
        doing: &'static str,
        /// The reference.
        subject: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program of a command is not there.
    #[error("there is no such program on the PATH")]
    NoProgram {
        /// The reference.
        subject: String,
    },
    /// The command did not succeed.
    #[error("the command failed ({status})")]
    CommandFailed {
        /// The reference.
        subject: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The command did not end in time. It was ended, with all that is in its process group.
    #[error("the command did not answer within {seconds} s")]
    CommandSilent {
        /// The reference.
        subject: String,
        /// How long it was waited for, in seconds.
        seconds: f64,
    },
    /// There is no keyring on this system, or nothing that speaks for it.
    #[error("the system's keyring cannot be reached: {reason}")]
    NoKeyring {
        /// The reference.
        subject: String,
        /// What the system said.
        reason: String,
    },
    /// The keyring did not answer in time.
    #[error("the system's keyring did not answer within {seconds} s")]
    KeyringSilent {
        /// The reference.
        subject: String,
        /// How long it was waited for, in seconds.
        seconds: f64,
    },
    /// The keyring is locked, or this program may not use it.
    #[error("the system's keyring does not open: {reason}")]
    KeyringLocked {
        /// The reference.
        subject: String,
        /// What the system said.
        reason: String,
    },
    /// The keyring has no such entry.
    #[error("the system's keyring has no such entry")]
    NoEntry {
        /// The reference.
        subject: String,
    },
    /// The keyring has more than one such entry.
    #[error("the system's keyring has more than one such entry")]
    Ambiguous {
        /// The reference.
        subject: String,
    },
    /// The keyring answered with an error.
    #[error("the system's keyring refused: {reason}")]
    Keyring {
        /// The reference.
        subject: String,
        /// What the system said.
        reason: String,
    },
}

impl Error {
    /// The reference that it is about, where there is one that can be shown.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::NoReference | Self::UnknownSource { .. } | Self::Malformed { .. } => None,
            Self::NotSet { subject }
            | Self::Empty { subject }
            | Self::Nul { subject }
            | Self::NotText { subject }
            | Self::TooLong { subject }
            | Self::NoHome { subject }
            | Self::NotAFile { subject, .. }
            | Self::Io { subject, .. }
            | Self::NoProgram { subject }
            | Self::CommandFailed { subject, .. }
            | Self::CommandSilent { subject, .. }
            | Self::NoKeyring { subject, .. }
            | Self::KeyringSilent { subject, .. }
            | Self::KeyringLocked { subject, .. }
            | Self::NoEntry { subject }
            | Self::Ambiguous { subject }
            | Self::Keyring { subject, .. } => Some(subject),
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::NoReference => {
                "put the secret into an environment variable, a file or the keyring, and write where it is, such as \
                 `env:NAME`. If it was in a file that others see, replace it"
                    .to_owned()
            }
            Self::UnknownSource { .. } => {
                "write where the secret is, such as `env:NAME`, or have a program fetch it: `command:LINE`".to_owned()
            }
            Self::Malformed { origin, .. } => format!("write `{}`", origin.form()),
            Self::NotSet { subject } => {
                format!("set the environment variable `{}`", subject.strip_prefix("env:").unwrap_or(subject))
            }
            Self::Empty { .. } => "store the secret there".to_owned(),
            Self::Nul { .. } | Self::NotText { .. } => "store the secret there again, as plain text".to_owned(),
            Self::TooLong { .. } => "check that it is the secret: none is that long".to_owned(),
            Self::NoHome { .. } => "write the whole path".to_owned(),
            Self::NotAFile { .. } => {
                "give the path of a file; what a program writes is taken with `command:LINE`".to_owned()
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "check the path; a relative one begins at the folder of the settings".into(),
                io::ErrorKind::PermissionDenied => "check who owns it and its permissions".to_owned(),
                _ => "try again; if it stays, take the secret from another place".to_owned(),
            },
            Self::NoProgram { .. } => "install it, or give its whole path; no shell is used, so a shell's own words \
                                       are not known (`command:sh -c '…'` starts one)"
                .to_owned(),
            Self::CommandFailed { .. } => {
                "run the command in a terminal to see why; what it prints is not shown here, as it may hold the secret"
                    .to_owned()
            }
            Self::CommandSilent { .. } => {
                "run the command in a terminal: it may ask for something, which it cannot do here".to_owned()
            }
            Self::NoKeyring { .. } if cfg!(all(unix, not(target_os = "macos"))) => {
                "start a Secret Service in your session (GNOME Keyring, KWallet, KeePassXC). On a machine without one, \
                 take the secret from `env:NAME`, `file:PATH` or `command:LINE`"
                    .to_owned()
            }
            Self::NoKeyring { .. } => {
                "take the secret from `env:NAME`, `file:PATH` or `command:LINE` instead".to_owned()
            }
            Self::KeyringSilent { .. } | Self::KeyringLocked { .. } => {
                "unlock the keyring and try again; it may be waiting for its password in a window".to_owned()
            }
            Self::NoEntry { subject } => format!(
                "store it in the keyring: service `{SERVICE}`, user `{}`",
                subject.strip_prefix("keyring:").unwrap_or(subject)
            ),
            Self::Ambiguous { .. } => "remove the others with the system's own program for its keyring".to_owned(),
            Self::Keyring { .. } => "look at the entry with the system's own program for its keyring".to_owned(),
        }
    }
}
