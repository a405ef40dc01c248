//! One error, in one shape everywhere.

pub use crate::types::Error;

/// What an operation gives: its value, or the contract's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Declares the codes and the list of them, so that no code is missing in the list.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        $($(#[$doc])* pub const $name: &str = $text;)+

        /// Every code.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

/// The codes of [`Error::code`]. The list may grow: treat one that you do not know as [`code::INTERNAL`].
pub mod code {
    codes! {
        /// A grant is missing.
        DENIED = "denied";
        /// This backend cannot do that; nothing was changed.
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
        /// Try again after `retry_after_ms`.
        RATE_LIMITED = "rate-limited";
        /// The other side is down or not ready; trying again may help.
        UNAVAILABLE = "unavailable";
        /// The other side could not be reached at all.
        NETWORK = "network";
        /// A deadline passed.
        TIMEOUT = "timeout";
        /// The user stopped it.
        CANCELLED = "cancelled";
        /// A limit of this plugin's grant was reached.
        LIMIT = "limit";
        /// A file or a stream failed.
        IO = "io";
        /// A program could not be started or ended with a failure.
        PROCESS = "process";
        /// Bytes are not what they should be.
        INTEGRITY = "integrity";
        /// The other side failed.
        SERVER = "server";
        /// A defect, here or in the plugin.
        INTERNAL = "internal";
    }
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
