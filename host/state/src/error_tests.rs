//! Every error, as people read it: a snapshot of all of them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Diagnostic, Error};

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    Invalid Newer Io Busy NoLocks
}

fn errors() -> Vec<Error> {
    let path = || PathBuf::from("/home/ada/pcoder/settings.toml");
    let io = |doing, kind: ErrorKind| Error::io(doing, &path(), io::Error::from(kind));
    let text = "tool = \"claude\"\ncolour = 1\n";
    vec![
        Error::Invalid(Diagnostic::at(&path(), text, 16, "unknown field `colour`, expected `tool`")),
        Error::Invalid(Diagnostic::whole(&path(), "nothing in it is right")),
        Error::Newer { path: path(), found: 3, known: 2 },
        io("write", ErrorKind::StorageFull),
        io("write", ErrorKind::QuotaExceeded),
        io("replace", ErrorKind::ReadOnlyFilesystem),
        io("read", ErrorKind::PermissionDenied),
        io("read", ErrorKind::IsADirectory),
        Error::Busy { path: PathBuf::from("/home/ada/pcoder/locks/settings"), waited: Duration::from_secs(10) },
        Error::NoLocks { path: PathBuf::from("/mnt/share/pcoder/locks/settings") },
    ]
}

fn shown(error: &Error) -> String {
    let path: &Path = error.path();
    format!("{}\nerror: {error}\n  in {}\nhint: {}\n", variant(error), path.display(), error.hint())
}
