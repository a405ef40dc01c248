//! One shape of error, the same in WIT, in Rust and on the terminal.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::bindings::host::pcoder::plugin::types as wit;

/// Declares the codes and the list of them, so that no code is missing in the list.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        $($(#[$doc])* pub const $name: &str = $text;)+

        /// Every code.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

/// The codes that `wit/pcoder-plugin@0.1.0/types.wit` lists. A plugin may answer with one that is not here.
pub mod code {
    codes! {
        /// A grant is missing.
        DENIED = "denied";
        /// This backend cannot do that.
        UNSUPPORTED = "unsupported";
        /// An argument cannot be right.
        INVALID = "invalid";
        /// The subject is not there.
        NOT_FOUND = "not-found";
        /// The subject is there already.
        ALREADY_EXISTS = "already-exists";
        /// The subject's state is against it.
        CONFLICT = "conflict";
        /// A login or a key is missing or was refused.
        UNAUTHENTICATED = "unauthenticated";
        /// Too many requests.
        RATE_LIMITED = "rate-limited";
        /// The other side is down or not ready.
        UNAVAILABLE = "unavailable";
        /// It could not be reached at all.
        NETWORK = "network";
        /// A deadline passed.
        TIMEOUT = "timeout";
        /// The user stopped it.
        CANCELLED = "cancelled";
        /// A limit of the plugin's grant was reached.
        LIMIT = "limit";
        /// A file or a stream failed.
        IO = "io";
        /// A program could not be started or failed.
        PROCESS = "process";
        /// Bytes are not what they should be.
        INTEGRITY = "integrity";
        /// The other side failed.
        SERVER = "server";
        /// A defect.
        INTERNAL = "internal";
    }
}

/// What went wrong, where, and what to do about it.
///
/// Never holds a secret. Boxed, so that results stay small.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Fields>);

/// The fields of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Fields {
    /// One of [`code`], or a plugin's own.
    pub code: Cow<'static, str>,
    /// One line for people.
    pub message: String,
    /// What was being done, as `provider.boot`.
    pub operation: Cow<'static, str>,
    /// What it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Which try failed, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How long the other side asks to wait, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What the user can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// An error of a program that outlives its call. Its own words stay; its code becomes one of the contract's.
    pub fn of_service(operation: &'static str, error: &pcoder_service::Error) -> Self {
        use pcoder_service::Error as Failure;
        let code = match error {
            Failure::Name { .. } => code::INVALID,
            Failure::Running { .. } | Failure::Busy { .. } => code::CONFLICT,
            Failure::NotRunning { .. } => code::NOT_FOUND,
            Failure::NotStarted { .. } | Failure::Supervisor { .. } => code::PROCESS,
            Failure::LongPath { .. } | Failure::Newer { .. } => code::UNSUPPORTED,
            _ => code::IO,
        };
        Self::new(code, operation, error.to_string()).subject(error.subject()).hint(error.hint())
    }

    /// An error with what every error has.
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        operation: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Fields {
            code: code.into(),
            message: message.into(),
            operation: operation.into(),
            subject: None,
            attempt: None,
            retry_after_ms: None,
            hint: None,
        }))
    }

    /// Names what it happened to.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.0.subject = Some(subject.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says how long to wait before the next try.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Whether the code is this one.
    pub fn is(&self, code: &str) -> bool {
        self.0.code == code
    }

    /// An I/O error, sorted into the code that fits.
    pub fn io(operation: impl Into<Cow<'static, str>>, subject: impl Into<String>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let code = match error.kind() {
            Kind::NotFound => code::NOT_FOUND,
            Kind::AlreadyExists => code::ALREADY_EXISTS,
            Kind::TimedOut => code::TIMEOUT,
            Kind::ConnectionRefused | Kind::ConnectionReset | Kind::HostUnreachable | Kind::NetworkUnreachable => {
                code::NETWORK
            }
            _ => code::IO,
        };
        let hint = match error.kind() {
            Kind::NotFound | Kind::NotADirectory | Kind::IsADirectory | Kind::InvalidFilename => "check the path",
            Kind::AlreadyExists => "move it away, or choose another name",
            Kind::PermissionDenied => "check who owns it and its permissions",
            Kind::StorageFull | Kind::QuotaExceeded => "free some space on that disk and try again",
            Kind::ReadOnlyFilesystem => "make the disk writable, or choose a place on another one",
            Kind::TimedOut
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable => "check the network and try again",
            _ => "try again; `pcoder doctor` looks for the usual causes",
        };
        // What systems call these says little where it stands alone.
        let words = match error.kind() {
            Kind::NotFound => "it is not there",
            Kind::AlreadyExists => "there is something of that name already",
            Kind::NotADirectory => "a part of its path is no folder",
            Kind::IsADirectory => "it is a folder",
            _ => "",
        };
        let message = match error.raw_os_error() {
            Some(number) if !words.is_empty() => format!("{words} (os error {number})"),
            None if !words.is_empty() && error.get_ref().is_none() => words.to_owned(),
            _ => error.to_string(),
        };
        Self::new(code, operation, message).subject(subject).hint(hint)
    }
}

impl std::ops::Deref for Error {
    type Target = Fields;
    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)?;
        if let Some(subject) = &self.subject {
            write!(f, " ({subject})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

impl Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl From<Error> for wit::Error {
    fn from(error: Error) -> Self {
        let fields = *error.0;
        Self {
            code: fields.code.into_owned(),
            message: fields.message,
            operation: fields.operation.into_owned(),
            subject: fields.subject,
            attempt: fields.attempt,
            retry_after_ms: fields.retry_after_ms,
            hint: fields.hint,
        }
    }
}

impl From<wit::Error> for Error {
    /// What a plugin says is shown on terminals: control characters are made visible, lengths bounded.
    fn from(error: wit::Error) -> Self {
        let clean = |text: String| crate::text::for_people(&text, 4096);
        Self(Box::new(Fields {
            code: Cow::Owned(crate::text::for_people(&error.code, 64)),
            message: clean(error.message),
            operation: Cow::Owned(crate::text::for_people(&error.operation, 128)),
            subject: error.subject.map(clean),
            attempt: error.attempt,
            retry_after_ms: error.retry_after_ms,
            hint: error.hint.map(clean),
        }))
    }
}
