//! What is wrong with a file that a person wrote, so that they find it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// One thing that is wrong with a text: the first one, so that the same file is always told the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1. 0 where it is the whole that is wrong, and no line of it.
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

impl Diagnostic {
    /// Something wrong with a field, the first that the message names (`` `key` ``, `` `secrets.KEY` ``), at its line; with the
    /// whole where there is no such line.
    pub fn of_field(path: &Path, text: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let name = message.split('`').nth(1).and_then(|name| name.rsplit('.').next()).unwrap_or_default();
        let is_field = |line: &str| {
            let header = line.trim_end().strip_suffix(']').is_some_and(|it| it.ends_with(name));
            header || line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let mut begin = 0;
        for line in text.split_inclusive('\n').filter(|_| !name.is_empty()) {
            let indent = line.len() - line.trim_start().len();
            if is_field(line.trim_start()) {
                return Self::at(path, text, begin + indent, message);
            }
            begin += line.len();
        }
        Self::whole(path, message)
    }

    /// Something wrong with what a text says, and with no place in it.
    pub fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line: 0, column: 0, message: message.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.message);
        }
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
    fn a_field_is_found_where_it_is_written() {
        let text = "tool = \"claude\"\n\n[secrets]\n  KEY = \"x\"\n[tool.claude]\n";
        let shown = |message: &str| Diagnostic::of_field(Path::new("/x"), text, message).to_string();
        assert_eq!(shown("`tool` is wrong"), "line 1, column 1: `tool` is wrong");
        assert_eq!(shown("`secrets.KEY` is wrong"), "line 4, column 3: `secrets.KEY` is wrong");
        assert_eq!(shown("the key of `claude` is wrong"), "line 5, column 1: the key of `claude` is wrong");
        assert_eq!(shown("`model` is missing"), "`model` is missing");
        assert_eq!(shown("nothing is right"), "nothing is right");
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
