//! Where a value comes from, as people write it.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// How long a name of a source may be to be shown when it is unknown. What is longer may be a part of a key.
const LONGEST_SHOWN: usize = 16;

/// The kinds of places that values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// `env:NAME`: an environment variable.
    Env,
    /// `file:PATH`: what is in a file, without the line end at its end.
    File,
    /// `keyring:NAME`: an entry of the system's keyring.
    Keyring,
    /// `command:LINE`: what a program writes to its standard output, without the line end at its end.
    Command,
    /// `value:TEXT`: the text itself, which is no secret.
    Value,
}

impl Source {
    const ALL: [Self; 5] = [Self::Env, Self::File, Self::Keyring, Self::Command, Self::Value];

    /// What stands before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::Keyring => "keyring",
            Self::Command => "command",
            Self::Value => "value",
        }
    }

    /// How a reference to it is written.
    pub const fn form(self) -> &'static str {
        match self {
            Self::Env => "env:NAME",
            Self::File => "file:PATH",
            Self::Keyring => "keyring:NAME",
            Self::Command => "command:LINE",
            Self::Value => "value:TEXT",
        }
    }

    /// What is wrong with what follows the colon.
    fn problem(self, rest: &str) -> Option<&'static str> {
        if rest.is_empty() {
            return Some("is missing");
        }
        if rest.contains('\0') {
            return Some("holds a NUL byte");
        }
        match self {
            Self::Env => {
                let begins = rest.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_');
                let name = begins && rest.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
                (!name).then_some("is no name of an environment variable: letters, digits and `_`")
            }
            Self::Keyring => {
                rest.contains(char::is_control).then_some("is no name of an entry: it holds a control character")
            }
            Self::Command => match words(rest) {
                Err(()) => Some("has a quote that is not closed"),
                Ok(None) => Some("names no program"),
                // In a shell this would set a variable, perhaps to a secret; here it would be shown as the program.
                Ok(Some((program, _))) if program.contains('=') => {
                    Some("sets a variable before the program, which only a shell would do")
                }
                Ok(Some(_)) => None,
            },
            Self::File | Self::Value => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Splits a command's line as POSIX does, into the program and its arguments.
pub(crate) fn words(line: &str) -> std::result::Result<Option<(String, Vec<String>)>, ()> {
    let mut words = shell_words::split(line).map_err(|_| ())?.into_iter();
    Ok(words.next().filter(|program| !program.is_empty()).map(|program| (program, words.collect())))
}

/// Where a value comes from. Its text is shown and stored, and is exactly what was written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    source: Source,
    rest: String,
}

impl Reference {
    /// The kind of place.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether the value must not be shown: all but [`Source::Value`].
    pub fn is_secret(&self) -> bool {
        self.source != Source::Value
    }

    /// What may be shown of it in errors and logs: the reference, but only the program of a command, as its arguments
    /// may hold what is secret, and not the text of a value.
    pub fn subject(&self) -> String {
        match self.source {
            Source::Command => match words(&self.rest) {
                Ok(Some((program, arguments))) if arguments.is_empty() => format!("command:{program}"),
                Ok(Some((program, _))) => format!("command:{program} …"),
                _ => "command:…".to_owned(),
            },
            Source::Value => "value:…".to_owned(),
            Source::Env | Source::File | Source::Keyring => self.to_string(),
        }
    }

    /// What stands after the colon.
    pub(crate) fn rest(&self) -> &str {
        &self.rest
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// # Errors
    /// `NoReference`, `UnknownSource`, `Malformed`. None of them holds the text.
    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once(':').ok_or(Error::NoReference)?;
        let Some(source) = Source::ALL.into_iter().find(|it| it.name() == name) else {
            let shown =
                !name.is_empty() && name.len() <= LONGEST_SHOWN && name.bytes().all(|it| it.is_ascii_alphabetic());
            return Err(if shown { Error::UnknownSource { name: name.to_owned() } } else { Error::NoReference });
        };
        match source.problem(rest) {
            None => Ok(Self { source, rest: rest.to_owned() }),
            Some(problem) => Err(Error::Malformed { origin: source, problem }),
        }
    }
}

/// The whole text, as it was written. For errors and logs there is [`Reference::subject`].
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.rest)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reference").field(&self.subject()).finish()
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_str(Written)
    }
}

/// Takes a text. It does not say what else there was, as serde does: a number may be a secret too.
struct Written;

impl Visitor<'_> for Written {
    type Value = Reference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reference to a secret, such as \"env:NAME\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Reference, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> std::result::Result<Reference, E> {
        Err(E::custom(Error::NoReference))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> std::result::Result<Reference, E> {
        Err(E::custom(Error::NoReference))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> std::result::Result<Reference, E> {
        Err(E::custom(Error::NoReference))
    }
}
