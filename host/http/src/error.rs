//! What goes wrong while a client is made. What goes wrong with a request is its caller's to say.

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A setting that no client can be made with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} cannot be used: {detail}")]
#[non_exhaustive]
pub struct Error {
    /// What of it, as in `the https proxy`.
    pub subject: &'static str,
    /// Why not, without the proxy's address.
    pub detail: String,
}

impl Error {
    pub(crate) fn new(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, detail: detail.into() }
    }

    /// What the user can do.
    pub fn hint(&self) -> &'static str {
        "check the proxy and the certificates where they are set"
    }
}
