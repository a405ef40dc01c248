//! Every error, as people read it: a snapshot of all of them.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    Name Running NotRunning NotStarted Supervisor Busy LongPath Newer Io State
}

fn errors() -> Vec<Error> {
    let name = || "vm-brave-otter".to_owned();
    let path = || PathBuf::from("/home/ada/pcoder/services/vm-brave-otter/service.json");
    vec![
        Error::Name { name: "../x".to_owned() },
        Error::Running { name: name() },
        Error::NotRunning { name: name() },
        Error::NotStarted { program: "/opt/qemu/qemu-system-x86_64".into(), message: "No such file".to_owned() },
        Error::Supervisor { name: name(), what: "ended before it said anything".to_owned() },
        Error::Busy { name: name(), waited: Duration::from_secs(30) },
        Error::LongPath { path: path(), most: 107 },
        Error::Newer { path: path(), found: 2, known: 1 },
        Error::io("write", &path(), io::Error::from(ErrorKind::StorageFull)),
        Error::io("read", &path(), io::Error::from(ErrorKind::PermissionDenied)),
        Error::State(pcoder_state::Error::NoLocks { path: path() }),
    ]
}

fn shown(error: &Error) -> String {
    format!("{}\nerror: {error}\n  in {}\nhint: {}\n", variant(error), error.subject(), error.hint())
}
