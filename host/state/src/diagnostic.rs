//! What is wrong with a file that a person wrote, so that they find it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// One thing that is wrong with a text: the first one, so that the same file is always told the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl Diagnostic {
    /// Something wrong at a byte of `text`.
    pub fn at(path: &Path, text: &str, byte: usize, message: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_begins = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            path: path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: before[line_begins..].chars().count() + 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Reads TOML into a record, or says where it is wrong and what was expected.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Diagnostic> {
    toml::from_str(text).map_err(|error| of_toml(path, text, &error))
}

pub(crate) fn of_toml(path: &Path, text: &str, error: &toml::de::Error) -> Diagnostic {
    // Their messages may go over several lines; what people read is one.
    let message = error.message().split('\n').map(str::trim).filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", ");
    Diagnostic::at(path, text, error.span().map_or(0, |span| span.start), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only read")]
        count: u32,
    }

    fn wrong(text: &str) -> String {
        parse::<Sample>(Path::new("/x/sample.toml"), text).expect_err("wrong").to_string()
    }

    #[test]
    fn it_says_line_column_and_what_was_expected() {
        assert_eq!(wrong("# é\ncount = \"three\"\n"), "line 2, column 9: invalid type: string \"three\", expected u32");
        assert_eq!(wrong("count = 1\nother = 2\n"), "line 2, column 1: unknown field `other`, expected `count`");
        assert_eq!(wrong("# only\n"), "line 1, column 1: missing field `count`");
        assert_eq!(wrong("count = [\n"), "line 1, column 10: unclosed array, expected `]`");
    }

    #[test]
    fn a_column_counts_characters() {
        let path = Path::new("/x/sample.toml");
        let text = "é = é";
        assert_eq!(Diagnostic::at(path, text, text.len(), "end").column, 6);
        assert_eq!(Diagnostic::at(path, text, 999, "beyond").line, 1);
    }
}
