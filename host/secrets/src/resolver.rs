//! From references to values.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{MAIN_SEPARATOR, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::command::{self, COMMAND_DEADLINE, Plan};
use crate::error::{Error, Result};
use crate::file::{self, Warning};
use crate::keyring::{self, KEYRING_DEADLINE};
use crate::reference::{Reference, Source, words};
use crate::value;

/// What references are read with. Its environment may hold secrets, and is not in its `Debug`.
#[derive(Clone)]
pub struct Resolver {
    /// The environment, for `env:NAME` and for commands. Of a name that is there twice, the last counts.
    pub environment: Vec<(OsString, OsString)>,
    /// What `~/` at the beginning of a path stands for.
    pub home: Option<PathBuf>,
    /// The folder that relative paths begin at, and that commands run in.
    pub base: PathBuf,
    /// The folders that a command's program is looked up in, as in the variable `PATH`.
    pub path: Option<OsString>,
    /// How long a command has.
    pub command_deadline: Duration,
    /// How long the keyring has.
    pub keyring_deadline: Duration,
}

impl Resolver {
    /// A resolver with the usual deadlines: [`COMMAND_DEADLINE`] and [`KEYRING_DEADLINE`]. The `PATH` is the
    /// environment's.
    pub fn new(environment: Vec<(OsString, OsString)>, home: Option<PathBuf>, base: PathBuf) -> Self {
        let path = variable(&environment, "PATH").map(OsStr::to_owned);
        let (command_deadline, keyring_deadline) = (COMMAND_DEADLINE, KEYRING_DEADLINE);
        Self { environment, home, base, path, command_deadline, keyring_deadline }
    }

    /// The value that a reference stands for: a text that is not empty and has no NUL byte. From a file or a command it
    /// may have several lines.
    ///
    /// It needs a Tokio runtime with time and I/O. A dropped future leaves no command behind.
    ///
    /// # Errors
    /// Why there is no value. No error holds one.
    pub async fn resolve(&self, reference: &Reference) -> Result<SecretString> {
        let subject = reference.subject();
        match reference.source() {
            Source::Env => {
                let text = variable(&self.environment, reference.rest())
                    .ok_or_else(|| Error::NotSet { subject: subject.clone() })?;
                value::value(text.as_encoded_bytes(), &subject)
            }
            Source::File => {
                let path = self.place(reference.rest(), &subject)?;
                let about = subject.clone();
                match tokio::task::spawn_blocking(move || file::read(&path, &about)).await {
                    Ok(result) => result,
                    Err(error) => Err(Error::Io { doing: "read", subject, source: error.into() }),
                }
            }
            Source::Keyring => keyring::get(reference.rest(), &subject, self.keyring_deadline).await,
            Source::Command => command::run(self.plan(reference, &subject)?, &subject).await,
            Source::Value => value::value(reference.rest().as_bytes(), &subject),
        }
    }

    /// What the owner of a reference should know, even though it can be resolved. It looks at the file of a `file:PATH`,
    /// and at nothing else.
    pub fn warning(&self, reference: &Reference) -> Option<Warning> {
        if reference.source() != Source::File {
            return None;
        }
        file::warning(&self.place(reference.rest(), "").ok()?)
    }

    /// Where a path leads: `~/` to the home, a relative one to the base.
    fn place(&self, path: &str, subject: &str) -> Result<PathBuf> {
        match path.strip_prefix("~/") {
            Some(inside) => {
                let home = self.home.as_ref().ok_or_else(|| Error::NoHome { subject: subject.to_owned() })?;
                Ok(home.join(inside))
            }
            None => Ok(self.base.join(path)),
        }
    }

    fn plan(&self, reference: &Reference, subject: &str) -> Result<Plan<'_>> {
        let missing = || Error::NoProgram { subject: subject.to_owned() };
        let (program, arguments) = words(reference.rest()).ok().flatten().ok_or_else(missing)?;
        let program = if program.contains(['/', MAIN_SEPARATOR]) {
            self.place(&program, subject)?
        } else {
            pcoder_lookup::program(&program, self.path.as_deref()).ok_or_else(missing)?
        };
        let deadline = self.command_deadline;
        Ok(Plan { program, arguments, environment: &self.environment, folder: &self.base, deadline })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("home", &self.home).field("base", &self.base).finish_non_exhaustive()
    }
}

/// A variable's text. Names differ in case everywhere but on Windows.
fn variable<'a>(environment: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    let same = |it: &OsStr| if cfg!(windows) { it.eq_ignore_ascii_case(name) } else { it == name };
    environment.iter().rev().find(|(it, _)| same(it)).map(|(_, value)| value.as_os_str())
}
