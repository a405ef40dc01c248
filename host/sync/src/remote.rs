//! The other side, as this crate sees it: something that runs scripts.

use async_trait::async_trait;

/// A POSIX machine that runs shell scripts.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Runs a script with the instance's POSIX shell, feeds it `input` and returns what it wrote. Bytes are exact both
    /// ways. A script that ran and failed is not an error.
    ///
    /// The script is text of at most a few kilobytes. One call is one or more requests to a cloud, so this crate makes few.
    ///
    /// # Errors
    /// When the script could not be run, or it is not known how it ended.
    async fn run(&self, script: &str, input: Vec<u8>) -> Result<Ran, RemoteError>;

    /// The most bytes that one call may write to its standard output.
    fn output_limit(&self) -> u64;
}

/// How a script ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// The instance could not be reached, or the call broke off.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RemoteError(Box<dyn std::error::Error + Send + Sync>);

impl RemoteError {
    /// From whatever the transport says.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// What the transport said.
    pub fn into_inner(self) -> Box<dyn std::error::Error + Send + Sync> {
        self.0
    }
}

/// Text as one word of a POSIX shell. It has no NUL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_shell_reads_a_quoted_word_as_it_was(text in "[^\0]{0,40}") {
            let output = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(&text))).output();
            proptest::prop_assert_eq!(output.expect("a shell").stdout, text.into_bytes());
        }
    }
}
