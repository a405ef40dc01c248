use std::fmt;

use crate::shell;
use crate::types::{Command, CommandSpec, WriteOptions};

/// One call that a plugin made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The interface and the function, in the contract's words: `target.write-file-atomic`.
    pub operation: &'static str,
    /// What it was done to: a path, a program, an address.
    pub subject: String,
    /// The command, where there is one.
    pub spec: Option<CommandSpec>,
    /// What was written or fed.
    pub content: Option<Vec<u8>>,
    /// How a file was to be written.
    pub options: Option<WriteOptions>,
}

impl Call {
    pub(crate) fn new(operation: &'static str, subject: impl Into<String>) -> Self {
        Self { operation, subject: subject.into(), ..Self::default() }
    }

    pub(crate) fn spec(mut self, spec: &CommandSpec) -> Self {
        self.subject = match &spec.command {
            Command::Argv(argv) => shell::join(std::iter::once(&argv.program).chain(&argv.args)),
            Command::Shell(script) => format!("sh -c {}", shell::quote(script)),
        };
        self.spec = Some(spec.clone());
        self
    }

    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.content = Some(content.to_vec());
        self
    }

    pub(crate) fn options(mut self, options: WriteOptions) -> Self {
        self.options = Some(options);
        self
    }
}

/// One line: `target.write-file-atomic ~/.claude/x mode 600 parents 12 bytes`.
impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.operation, self.subject)?;
        if let Some(options) = &self.options {
            if let Some(mode) = options.mode {
                write!(formatter, " mode {mode:o}")?;
            }
            if options.create_parents {
                formatter.write_str(" parents")?;
            }
        }
        match &self.content {
            Some(content) if !content.is_empty() => write!(formatter, " {} bytes", content.len()),
            _ => Ok(()),
        }
    }
}
