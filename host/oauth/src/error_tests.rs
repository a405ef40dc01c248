//! Every error, as people read it: a snapshot of all of them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    Pasted WrongState Denied NotInTime Listen Config LoginExpired NoRefreshToken RateLimited Refused Answer Timeout
    Network Credentials Io NotSaved Unsettled State Random Interrupted
}

fn errors() -> Vec<Error> {
    let path = || PathBuf::from("/home/ada/.claude/.credentials.json");
    let server = || "platform.claude.com".to_owned();
    let limited = |after| Error::RateLimited { server: server(), after };
    let refused = |status, code: Option<&str>, after| Error::Refused {
        server: server(),
        status,
        code: code.map(str::to_owned),
        after,
    };
    let locked = || pcoder_state::Error::Busy {
        path: PathBuf::from("/home/ada/.claude/.credentials.lock"),
        waited: Duration::from_secs(60),
    };
    vec![
        Error::Pasted { detail: "there is no code in it" },
        Error::WrongState,
        Error::Denied { code: None },
        Error::Denied { code: Some("access_denied".to_owned()) },
        Error::NotInTime { waited: Duration::from_secs(300) },
        Error::Listen { port: 54545, source: io::Error::from(ErrorKind::AddrInUse) },
        Error::Config { subject: "the token URL", detail: "it must be https, or http to this machine".to_owned() },
        Error::LoginExpired { server: server() },
        Error::NoRefreshToken,
        limited(Some(Duration::from_secs(90))),
        limited(Some(Duration::ZERO)),
        limited(None),
        refused(503, Some("overloaded_error"), Some(Duration::from_secs(30))),
        refused(503, None, Some(Duration::ZERO)),
        refused(500, None, None),
        refused(400, Some("invalid_client"), None),
        refused(302, None, None),
        Error::Answer { server: server(), detail: "it is not a JSON object" },
        Error::Timeout { server: "localhost:8443".to_owned(), deadline: Duration::from_secs(30) },
        Error::Network { server: server(), detail: "error sending request: dns error".to_owned() },
        Error::Credentials { path: path(), detail: "`claudeAiOauth` is not an object".to_owned() },
        Error::io("read", &path(), io::Error::from(ErrorKind::PermissionDenied)),
        Error::io("read", &path(), io::Error::from(ErrorKind::IsADirectory)),
        Error::NotSaved {
            path: path(),
            source: pcoder_state::Error::Io {
                doing: "write beside",
                path: path(),
                source: io::Error::from(ErrorKind::PermissionDenied),
            },
        },
        Error::Unsettled { path: path() },
        Error::State(locked()),
        Error::Random(getrandom::Error::UNSUPPORTED),
        Error::Interrupted,
    ]
}

fn shown(error: &Error) -> String {
    let path = error.path().map(Path::display).map(|it| format!("\n  in {it}")).unwrap_or_default();
    format!("{}\nerror: {error}{path}\nhint: {}\n", variant(error), error.hint())
}
