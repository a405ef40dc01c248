//! Every error, as people read it: a snapshot of all of them.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::{Error, RemoteError, Side};

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    Io State Newer Busy Pattern Unreachable Failed Tools Garbled TooMany OutputLimit Changing Broken
}

fn errors() -> Vec<Error> {
    let path = || PathBuf::from("/home/ada/project");
    let io = |kind: ErrorKind| Error::io("open", &path(), io::Error::from(kind));
    vec![
        io(ErrorKind::NotFound),
        io(ErrorKind::PermissionDenied),
        io(ErrorKind::StorageFull),
        io(ErrorKind::NotADirectory),
        Error::State(pcoder_state::Error::NoLocks { path: PathBuf::from("/mnt/share/pcoder/sync/one.lock") }),
        Error::Newer { path: PathBuf::from("/home/ada/pcoder/sync/one"), found: 2, known: 1 },
        Error::Busy { path: PathBuf::from("/home/ada/pcoder/sync/one.lock") },
        Error::Pattern { path: Some(path().join(".pcoderignore")), message: "unclosed alternate group".to_owned() },
        Error::Pattern { path: None, message: "unclosed alternate group".to_owned() },
        Error::Unreachable(RemoteError::new("the connection was closed")),
        Error::Failed { doing: "write files", code: 2, message: "tar: a: No space left on device".to_owned() },
        Error::Tools { tools: vec!["find".to_owned(), "tar".to_owned()] },
        Error::garbled("an archive has `../x`, not asked for"),
        Error::TooMany { side: Side::Host, found: 200_001, limit: 200_000 },
        Error::TooMany { side: Side::Instance, found: 1_000_000, limit: 200_000 },
        Error::OutputLimit { limit: 1_000_000 },
        Error::Changing,
        Error::Broken { message: "a task was cancelled".to_owned() },
    ]
}

fn shown(error: &Error) -> String {
    let place = error.path().map(|it| format!("  in {}\n", it.display())).unwrap_or_default();
    format!("{} ({})\nerror: {error}\n{place}hint: {}\n", variant(error), error.code(), error.hint())
}
