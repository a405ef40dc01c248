//! Every error, as people read it: a snapshot of all of them.
//!
//! How a program ended and what is said of a missing keyring differ from system to system: this is what Linux says.
#![cfg(target_os = "linux")]

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::{Error, Source};

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    NoReference UnknownSource Malformed NotSet Empty Nul NotText TooLong NoHome NotAFile Io NoProgram CommandFailed
    CommandSilent NoKeyring KeyringSilent KeyringLocked NoEntry Ambiguous Keyring
}

fn errors() -> Vec<Error> {
    let malformed = |origin, problem| Error::Malformed { origin, problem };
    let (env, file) = (|| "env:API_KEY".to_owned(), || "file:~/.keys/api".to_owned());
    let (keyring, command) = (|| "keyring:work".to_owned(), || "command:pass …".to_owned());
    let io = |doing, subject, kind: ErrorKind| Error::Io { doing, subject, source: io::Error::from(kind) };
    vec![
        Error::NoReference,
        Error::UnknownSource { name: "vault".to_owned() },
        malformed(Source::Env, "is no name of an environment variable: letters, digits and `_`"),
        malformed(Source::File, "is missing"),
        malformed(Source::Keyring, "is no name of an entry: it holds a control character"),
        malformed(Source::Command, "has a quote that is not closed"),
        malformed(Source::Value, "is missing"),
        Error::NotSet { subject: env() },
        Error::Empty { subject: env() },
        Error::Nul { subject: file() },
        Error::NotText { subject: file() },
        Error::TooLong { subject: command() },
        Error::NoHome { subject: file() },
        Error::NotAFile { subject: file(), kind: "a folder" },
        io("open", file(), ErrorKind::NotFound),
        io("open", file(), ErrorKind::PermissionDenied),
        io("start", command(), ErrorKind::NotFound),
        io("start", command(), ErrorKind::PermissionDenied),
        io("start a thread for", keyring(), ErrorKind::WouldBlock),
        Error::NoProgram { subject: command() },
        Error::CommandFailed { subject: command(), status: ExitStatus::from_raw(3 << 8) },
        Error::CommandFailed { subject: command(), status: ExitStatus::from_raw(9) },
        Error::CommandSilent { subject: command(), seconds: 30.0 },
        Error::NoKeyring { subject: keyring(), reason: "I/O error: No such file or directory (os error 2)".to_owned() },
        Error::KeyringSilent { subject: keyring(), seconds: 60.0 },
        Error::KeyringLocked { subject: keyring(), reason: "the prompt was dismissed".to_owned() },
        Error::NoEntry { subject: keyring() },
        Error::Ambiguous { subject: keyring() },
        Error::Keyring { subject: keyring(), reason: "the system's library for it failed".to_owned() },
    ]
}

fn shown(error: &Error) -> String {
    let subject = error.subject().map(|it| format!("\n  in {it}")).unwrap_or_default();
    format!("{}\nerror: {error}{subject}\nhint: {}\n", variant(error), error.hint())
}
