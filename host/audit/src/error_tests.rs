//! Every error, as people read it: a snapshot of all of them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    Io Busy Newer Record Head Endpoint Export
}

fn errors() -> Vec<Error> {
    let path = || PathBuf::from("/home/ada/pcoder/audit.jsonl");
    let io = |doing, kind: ErrorKind| Error::io(doing, &path(), io::Error::from(kind));
    vec![
        io("append to", ErrorKind::StorageFull),
        io("append to", ErrorKind::QuotaExceeded),
        io("open", ErrorKind::ReadOnlyFilesystem),
        io("lock", ErrorKind::Unsupported),
        io("open", ErrorKind::PermissionDenied),
        io("read", ErrorKind::IsADirectory),
        Error::Busy { path: PathBuf::from("/home/ada/pcoder/locks/audit"), waited: Duration::from_secs(30) },
        Error::Newer { path: path(), found: 2, known: 1 },
        Error::Record { reason: "it is no object".to_owned() },
        Error::Head,
        Error::Endpoint { reason: "it begins with neither `http://` nor `https://`".to_owned() },
        Error::Export { reason: "it answered 401 Unauthorized".to_owned() },
    ]
}

fn shown(error: &Error) -> String {
    let path = error.path().map(Path::display).map(|it| format!("\n  in {it}")).unwrap_or_default();
    format!("{}\nerror: {error}{path}\nhint: {}\n", variant(error), error.hint())
}
