//! What is wrong with a file that a person wrote, so that they find it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml_edit::{Table, TableLike};

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

    /// Something wrong with a field, at its key or at the header of its table; with the whole where the text has none.
    pub(crate) fn of_field(path: &Path, text: &str, keys: &[String], message: impl Into<String>) -> Self {
        match toml_edit::Document::parse(text).ok().and_then(|it| place(it.as_table(), keys)) {
            Some(byte) => Self::at(path, text, byte, message),
            None => Self::whole(path, message),
        }
    }

    /// Something wrong with what a text says, and with no place in it.
    pub fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line: 0, column: 0, message: message.into() }
    }
}

/// The byte at which a field begins.
fn place(table: &dyn TableLike, keys: &[String]) -> Option<usize> {
    let (first, deeper) = keys.split_first()?;
    let (key, item) = table.get_key_value(first)?;
    if !deeper.is_empty() {
        return place(item.as_table_like()?, deeper);
    }
    let span = item.as_table().and_then(Table::span).or_else(|| key.span());
    span.map(|span| span.start)
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
        let text = "tool = \"claude\"\n\n[secrets]\n  KEY = \"x\"\n\"A B\" = 1\n[tools.claude]\n[tools]\nmyclaude = { a = 1 }\n";
        let shown = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|&it| it.to_owned()).collect();
            Diagnostic::of_field(Path::new("/x"), text, &keys, "wrong").to_string()
        };
        assert_eq!(shown(&["tool"]), "line 1, column 1: wrong");
        assert_eq!(shown(&["secrets", "KEY"]), "line 4, column 3: wrong");
        assert_eq!(shown(&["secrets", "A B"]), "line 5, column 1: wrong");
        assert_eq!(shown(&["tools", "claude"]), "line 6, column 1: wrong");
        assert_eq!(shown(&["tools", "myclaude", "a"]), "line 8, column 14: wrong");
        assert_eq!(shown(&["secrets", "tool"]), "wrong", "of another table");
        assert_eq!(shown(&[]), "wrong");
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
