//! Documents: records in files, with a version.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};
use toml_edit::DocumentMut;

use crate::diagnostic::of_toml;
use crate::error::{At as _, Error, Result};
use crate::lock::PATIENCE;
use crate::{Diagnostic, Lock, write_atomic};

/// A record that a TOML file holds, under a field `version`. Its serde derives should deny unknown fields: what is not
/// understood must not be taken for what is.
pub trait Document: Serialize + DeserializeOwned + Default {
    /// The version that is written, from 1. One that is missing in a file counts as 1.
    const VERSION: i64;

    /// Lines in front of a file that is written: what it is, for whoever opens it. Each begins with `#`.
    const HEADER: &'static str;

    /// Brings a table of the version before up to the next one. Called once a version, from the file's up to ours.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn migrate(from: i64, table: Table) -> Result<Table, String> {
        let _ = from;
        Ok(table)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// What is wrong, and with which field.
    fn check(&self) -> Result<(), Wrong> {
        Ok(())
    }
}

/// What is wrong with a document whose fields are right one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    field: Vec<String>,
    message: String,
}

impl Wrong {
    /// In words, about a field, which is named by the tables that it is in and its own key.
    pub fn field(keys: &[&str], message: impl Into<String>) -> Self {
        Self { field: keys.iter().map(|&it| it.to_owned()).collect(), message: message.into() }
    }

    /// In words, about no field in particular.
    pub fn whole(message: impl Into<String>) -> Self {
        Self::field(&[], message)
    }

    /// The words.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// One document's file and its lock.
#[derive(Clone, Debug)]
pub struct File<T> {
    path: PathBuf,
    lock: PathBuf,
    _holds: PhantomData<fn() -> T>,
}

impl<T: Document> File<T> {
    /// The document at `path`, whose changes are made under a lock in the folder `locks`.
    pub fn new(path: impl Into<PathBuf>, locks: &Path) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lock = locks.join(format!("{name}.lock"));
        Self { path, lock, _holds: PhantomData }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it. A file that is not there is the default. Nothing is written, also when it is of an older version.
    ///
    /// # Errors
    /// `Invalid`, `Newer`, `Io`.
    pub fn read(&self) -> Result<T> {
        Ok(self.load()?.map(|loaded| loaded.document).unwrap_or_default())
    }

    /// Reads, changes and writes it, alone. Nothing is written when `change` fails or changes nothing. What an older
    /// version held is kept in `NAME.v1.bak` before the new one takes its place.
    ///
    /// # Errors
    /// Those of reading, writing and the lock, and those of `change`.
    pub fn update<R, E: From<Error>>(&self, change: impl FnOnce(&mut T) -> Result<R, E>) -> Result<R, E> {
        let _lock = Lock::take(&self.lock, PATIENCE)?;
        let loaded = self.load()?;
        let (mut document, old) = match loaded {
            Some(Loaded { document, text, version }) => (document, Some((text, version))),
            None => (T::default(), None),
        };
        let result = change(&mut document)?;
        let text = self.render(&document)?;
        match &old {
            Some((before, version)) if *version == T::VERSION && *before == text => return Ok(result),
            None if self.render(&T::default())? == text => return Ok(result),
            Some((before, version)) if *version < T::VERSION => {
                write_atomic(&self.backup(*version), before.as_bytes())?;
            }
            _ => {}
        }
        write_atomic(&self.path, text.as_bytes())?;
        Ok(result)
    }

    /// Changes its text, alone, so that a person's comments and order stay. Nothing is written when what comes out is not
    /// a document any more, or is what was there.
    ///
    /// # Errors
    /// As [`File::update`]; `Invalid` when the change itself would break it.
    pub fn edit<E: From<Error>>(&self, change: impl FnOnce(&mut DocumentMut) -> Result<(), E>) -> Result<T, E> {
        let _lock = Lock::take(&self.lock, PATIENCE)?;
        let old = self.load()?;
        let before = match &old {
            // What has to be migrated has no text of ours to keep.
            Some(loaded) if loaded.version < T::VERSION => self.render(&loaded.document)?,
            Some(loaded) => loaded.text.clone(),
            None => format!("{}\nversion = {}\n", T::HEADER.trim_end(), T::VERSION),
        };
        let mut text: DocumentMut = before.parse().map_err(|error: toml_edit::TomlError| {
            let at = error.span().map_or(0, |span| span.start);
            Error::Invalid(Diagnostic::at(&self.path, &before, at, error.message()))
        })?;
        change(&mut text)?;
        let after = text.to_string();
        let (document, _) = from_text::<T>(&self.path, &after)?;
        match &old {
            Some(loaded) if loaded.text == after => return Ok(document),
            Some(loaded) if loaded.version < T::VERSION => {
                write_atomic(&self.backup(loaded.version), loaded.text.as_bytes())?;
            }
            _ => {}
        }
        write_atomic(&self.path, after.as_bytes())?;
        Ok(document)
    }

    fn backup(&self, version: i64) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".v{version}.bak"));
        self.path.with_file_name(name)
    }

    fn render(&self, document: &T) -> Result<String> {
        let unwritable = |message: String| {
            Error::io("write", &self.path, std::io::Error::new(std::io::ErrorKind::InvalidData, message))
        };
        document.check().map_err(|wrong| unwritable(wrong.message))?;
        let mut table = Table::try_from(document).map_err(|error| unwritable(error.to_string()))?;
        table.insert("version".into(), Value::Integer(T::VERSION));
        let body = toml::to_string_pretty(&table).map_err(|error| unwritable(error.to_string()))?;
        Ok(format!("{}\n{body}", T::HEADER.trim_end()))
    }

    fn load(&self) -> Result<Option<Loaded<T>>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("read", &self.path),
        };
        let text = text(&self.path, bytes)?;
        let (document, version) = from_text(&self.path, &text)?;
        Ok(Some(Loaded { document, text, version }))
    }
}

/// The text that a file holds.
///
/// # Errors
/// [`Error::Invalid`] at the first byte that is none.
pub fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        Error::Invalid(Diagnostic::at(path, &text, valid, "not UTF-8, expected a text file"))
    })
}

struct Loaded<T> {
    document: T,
    text: String,
    version: i64,
}

fn from_text<T: Document>(path: &Path, text: &str) -> Result<(T, i64)> {
    let invalid = |diagnostic| Error::Invalid(diagnostic);
    let mut table: Table = toml::from_str(text).map_err(|error| invalid(of_toml(path, text, &error)))?;
    let at_version = text.find("version").unwrap_or(0);
    let version = match table.remove("version") {
        None => 1,
        Some(Value::Integer(version)) if version >= 1 => version,
        Some(other) => {
            let message = format!("`version` is {other}, expected a whole number from 1");
            return Err(invalid(Diagnostic::at(path, text, at_version, message)));
        }
    };
    if version > T::VERSION {
        return Err(Error::Newer { path: path.to_path_buf(), found: version, known: T::VERSION });
    }
    let document: T = if version == T::VERSION {
        // From the text itself, which knows the lines; without the field that is ours.
        parse_versioned(path, text)?
    } else {
        let mut table = table;
        for from in version..T::VERSION {
            table = T::migrate(from, table).map_err(|message| invalid(Diagnostic::whole(path, message)))?;
        }
        table.try_into().map_err(|error: toml::de::Error| {
            invalid(Diagnostic::at(path, text, 0, format!("of version {version}: {}", error.message())))
        })?
    };
    document.check().map_err(|wrong| invalid(Diagnostic::of_field(path, text, &wrong.field, wrong.message)))?;
    Ok((document, version))
}

/// The text's line of `version` is blanked, so that every other position stays what it is.
fn parse_versioned<T: Document>(path: &Path, text: &str) -> Result<T> {
    let mut plain = String::with_capacity(text.len());
    let mut in_table = false;
    for line in text.split_inclusive('\n') {
        let begin = line.trim_start();
        in_table |= begin.starts_with('[');
        let ours = !in_table && begin.strip_prefix("version").is_some_and(|rest| rest.trim_start().starts_with('='));
        if ours {
            plain.extend(line.chars().map(|it| if matches!(it, '\n' | '\r') { it } else { ' ' }));
        } else {
            plain.push_str(line);
        }
    }
    toml::from_str(&plain).map_err(|error| Error::Invalid(of_toml(path, &plain, &error)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pets {
        #[serde(default)]
        names: Vec<String>,
    }

    impl Document for Pets {
        const VERSION: i64 = 2;
        const HEADER: &'static str = "# Pets. Written by a test.";

        /// Version 1 had one pet.
        fn migrate(from: i64, mut table: Table) -> Result<Table, String> {
            assert_eq!(from, 1);
            let name = table.remove("name").ok_or("`name` is missing")?;
            table.insert("names".into(), Value::Array(vec![name]));
            Ok(table)
        }

        fn check(&self) -> Result<(), Wrong> {
            if self.names.iter().any(String::is_empty) { Err(Wrong::whole("a pet has no name")) } else { Ok(()) }
        }
    }

    fn place() -> (tempfile::TempDir, File<Pets>) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = File::new(folder.path().join("pets.toml"), &folder.path().join("locks"));
        (folder, file)
    }

    fn add(file: &File<Pets>, name: &str) -> Result<()> {
        file.update(|pets| {
            pets.names.push(name.to_owned());
            Ok(())
        })
    }

    #[test]
    fn a_file_that_is_not_there_is_the_default_and_reading_makes_none() {
        let (folder, file) = place();
        assert_eq!(file.read().expect("the default"), Pets::default());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_change_is_written_with_its_version_and_a_line_that_says_what_it_is() {
        let (_folder, file) = place();
        add(&file, "Rex").expect("written");
        let text = fs::read_to_string(file.path()).expect("a file");
        assert!(text.starts_with("# Pets. Written by a test.\n") && text.contains("version = 2"), "{text}");
        assert_eq!(file.read().expect("read").names, ["Rex"]);
    }

    #[test]
    fn what_changes_nothing_writes_nothing_and_a_change_that_fails_neither() {
        let (_folder, file) = place();
        add(&file, "Rex").expect("written");
        let before = fs::metadata(file.path()).and_then(|it| it.modified()).expect("a time");
        file.update(|_| Ok::<_, Error>(())).expect("nothing to do");
        let failed = file.update(|pets| {
            pets.names.clear();
            Err::<(), _>(Error::Busy { path: "x".into(), waited: PATIENCE })
        });
        assert!(failed.is_err());
        assert!(add(&file, "").is_err(), "what could not be read back is not written");
        assert_eq!(fs::metadata(file.path()).and_then(|it| it.modified()).expect("a time"), before);
        assert_eq!(file.read().expect("read").names, ["Rex"]);
    }

    #[test]
    fn an_older_file_is_read_at_once_and_kept_beside_the_new_one_when_that_is_written() {
        let (folder, file) = place();
        let old = "# mine\nname = \"Rex\"\n";
        fs::write(file.path(), old).expect("a file");
        assert_eq!(file.read().expect("migrated").names, ["Rex"]);
        assert_eq!(fs::read_to_string(file.path()).expect("a file"), old, "reading changes nothing");
        add(&file, "Tom").expect("written");
        assert_eq!(file.read().expect("read").names, ["Rex", "Tom"]);
        let kept = folder.path().join("pets.toml.v1.bak");
        assert_eq!(fs::read_to_string(kept).expect("the backup"), old);
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let (_folder, file) = place();
        let newer = "version = 3\nnicknames = [\"R\"]\n";
        fs::write(file.path(), newer).expect("a file");
        for error in [file.read().expect_err("newer"), add(&file, "Tom").expect_err("newer")] {
            assert!(matches!(error, Error::Newer { found: 3, known: 2, .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(file.path()).expect("a file"), newer);
    }

    #[test]
    fn a_broken_file_is_told_by_line_and_column_twice_the_same_and_left_alone() {
        let (_folder, file) = place();
        for (text, expected) in [
            ("version = 2\nnames = [\"Rex\"\n", "line 2, column 15: unclosed array, expected `]`"),
            ("version = 2\n\nnames = \"Rex\"\n", "line 3, column 9: invalid type: string \"Rex\", expected a sequence"),
            ("version = 2\nage = 3\n", "line 2, column 1: unknown field `age`, expected `names`"),
            ("version = \"two\"\n", "line 1, column 1: `version` is \"two\", expected a whole number from 1"),
            ("names = [", "line 1, column 10: unclosed array"),
            ("version = 2\nnames = [\"\"]\n", "a pet has no name"),
        ] {
            fs::write(file.path(), text).expect("a file");
            let first = file.read().expect_err("broken").to_string();
            assert!(first.starts_with(expected), "{first}");
            assert_eq!(add(&file, "Tom").expect_err("broken").to_string(), first);
            assert_eq!(fs::read_to_string(file.path()).expect("a file"), text);
        }
        fs::write(file.path(), b"names = [\"\xff\"]").expect("a file");
        assert_eq!(file.read().expect_err("broken").to_string(), "line 1, column 11: not UTF-8, expected a text file");
    }

    #[test]
    fn a_persons_comments_stay_and_a_change_that_breaks_it_is_not_written() {
        let (_folder, file) = place();
        let text = "# mine\nversion = 2\nnames = [\"Rex\"] # the first\n";
        fs::write(file.path(), text).expect("a file");
        let change = |value: &str| {
            let value: toml_edit::Value = value.parse().expect("a value");
            file.edit(move |text| {
                text["names"].as_array_mut().expect("a list").push(value);
                Ok::<_, Error>(())
            })
        };
        assert_eq!(change("\"Tom\"").expect("written").names, ["Rex", "Tom"]);
        let after = fs::read_to_string(file.path()).expect("a file");
        assert_eq!(after, "# mine\nversion = 2\nnames = [\"Rex\", \"Tom\"] # the first\n");
        change("3").expect_err("not a name");
        assert_eq!(fs::read_to_string(file.path()).expect("a file"), after);
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let (_folder, file) = place();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    for number in 0..10 {
                        add(file, &format!("{thread}-{number}")).expect("written");
                    }
                });
            }
        });
        assert_eq!(file.read().expect("read").names.len(), 80);
    }
}
