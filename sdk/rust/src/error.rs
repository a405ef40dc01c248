//! One error, in one shape everywhere.

pub use crate::types::Error;

/// What an operation gives: its value, or the contract's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The codes of [`Error::code`]. The list may grow: treat one that you do not know as [`code::INTERNAL`].
pub mod code {
    /// A grant is missing.
    pub const DENIED: &str = "denied";
    /// This backend cannot do that; nothing was changed.
    pub const UNSUPPORTED: &str = "unsupported";
    /// An argument cannot be right.
    pub const INVALID: &str = "invalid";
    /// The subject is not there.
    pub const NOT_FOUND: &str = "not-found";
    /// The subject is there already.
    pub const ALREADY_EXISTS: &str = "already-exists";
    /// The subject's state is against it.
    pub const CONFLICT: &str = "conflict";
    /// A login or a key is missing or was refused.
    pub const UNAUTHENTICATED: &str = "unauthenticated";
    /// Try again after `retry_after_ms`.
    pub const RATE_LIMITED: &str = "rate-limited";
    /// The other side is down or not ready; trying again may help.
    pub const UNAVAILABLE: &str = "unavailable";
    /// The other side could not be reached at all.
    pub const NETWORK: &str = "network";
    /// A deadline passed.
    pub const TIMEOUT: &str = "timeout";
    /// The user stopped it.
    pub const CANCELLED: &str = "cancelled";
    /// A limit of this plugin's grant was reached.
    pub const LIMIT: &str = "limit";
    /// A file or a stream failed.
    pub const IO: &str = "io";
    /// A program could not be started or ended with a failure.
    pub const PROCESS: &str = "process";
    /// Bytes are not what they should be.
    pub const INTEGRITY: &str = "integrity";
    /// The other side failed.
    pub const SERVER: &str = "server";
    /// A defect, here or in the plugin.
    pub const INTERNAL: &str = "internal";
}

impl Error {
    /// An error with one of the [`code`]s. The message is one line for people and never holds a secret.
    pub fn new(code: &str, operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            operation: operation.into(),
            subject: None,
            attempt: None,
            retry_after_ms: None,
            hint: None,
        }
    }

    /// This backend cannot do `operation`; nothing was changed.
    pub fn unsupported(operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code::UNSUPPORTED, operation, message)
    }

    /// An argument of `operation` cannot be right.
    pub fn invalid(operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code::INVALID, operation, message)
    }

    /// Says what it was done to: a path, an address, a name.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Says what the user can do about it: one line, commands in backticks.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says how long the other side asks to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Says which try failed, from 1.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// Says that `operation` is what failed from the caller's point of view, keeping everything else.
    #[must_use]
    pub fn during(mut self, operation: impl Into<String>) -> Self {
        self.operation = operation.into();
        self
    }

    /// Whether the same call, made later, may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code.as_str(),
            code::RATE_LIMITED | code::UNAVAILABLE | code::NETWORK | code::TIMEOUT | code::SERVER
        )
    }

    /// One line for people: what was being done, to what, and what went wrong.
    pub fn line(&self) -> String {
        match &self.subject {
            Some(subject) => format!("{} ({subject}): {}", self.operation, self.message),
            None => format!("{}: {}", self.operation, self.message),
        }
    }
}
