//! Every error, as people read it: a snapshot of all of them.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::Error;

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    UnknownEngine UnknownVersion UnsupportedPlatform NotInstalled Damaged Offline Fetch WrongFile Registry
    Certificate Integrity Archive DiskFull Cancelled Stopped NotAnExport WrongExport ForeignExport Locked Io Invalid Smoke
}

fn errors() -> Vec<Error> {
    let (engine, version) = (|| "claude".to_owned(), || "2.1.0".to_owned());
    let (subject, package) = (|| "claude 2.1.0".to_owned(), || "@toys/claude-linux-x64@2.1.0".to_owned());
    let install = || "`pcoder engine install claude`".to_owned();
    let path = || PathBuf::from("/home/ada/pcoder/engines/claude");
    let export = || PathBuf::from("/media/stick/claude-2.1.0-linux-x64.pcoder-engine");
    let registry =
        |status: Option<u16>, detail: &str| Error::Registry { package: package(), detail: detail.to_owned(), status };
    let full = |needed, free| Error::DiskFull { path: path(), needed, free };
    let io = |action, kind: ErrorKind| Error::io(action, &path(), io::Error::from(kind));
    vec![
        Error::UnknownEngine { name: "emacs".to_owned(), known: vec![engine(), "codex".to_owned()] },
        Error::UnknownVersion { name: engine(), version: "9.9.9".to_owned(), known: vec![version()] },
        Error::UnsupportedPlatform {
            name: engine(),
            version: version(),
            platform: "windows-arm64".to_owned(),
            reason: "its makers do not publish it".to_owned(),
        },
        Error::NotInstalled { name: engine(), version: version(), install: install() },
        Error::Damaged {
            name: engine(),
            version: version(),
            detail: "`bin/claude` is missing".to_owned(),
            install: install(),
        },
        Error::Offline {
            package: package(),
            detail: "error sending request: dns error".to_owned(),
            tarball: "@toys/claude-linux-x64/-/claude-linux-x64-2.1.0.tgz".to_owned(),
        },
        Error::Fetch { url: "https://example.com/a.wasm".to_owned(), detail: "it answers 404 Not Found".to_owned() },
        Error::WrongFile {
            url: "https://example.com/root.img".to_owned(),
            detail: "4096 bytes are sent, 8192 were expected".to_owned(),
        },
        registry(Some(401), "it answers 401 Unauthorized: not allowed"),
        registry(Some(403), "it answers 403 Forbidden: not allowed"),
        registry(Some(404), "it does not have it (404)"),
        registry(Some(503), "it answers 503 Service Unavailable"),
        registry(None, "it redirects too often"),
        Error::Certificate { package: package(), detail: "invalid peer certificate: UnknownIssuer".to_owned() },
        Error::Integrity { package: package(), detail: "its sha512 is another one".to_owned() },
        Error::Archive { package: package(), detail: "`../x` leads out of it".to_owned() },
        full(Some(552_000_001), Some(12_000_000)),
        full(Some(552_000_001), None),
        full(None, Some(12_000)),
        full(None, None),
        Error::Cancelled { subject: subject() },
        Error::Stopped { doing: "exporting", subject: subject() },
        Error::NotAnExport { path: export(), detail: "it has format 3, this pcoder reads 1".to_owned() },
        Error::WrongExport { path: export(), subject: subject(), detail: "it has 3 files, not 4".to_owned() },
        Error::ForeignExport {
            path: export(),
            subject: subject(),
            platform: "linux-x64".to_owned(),
            wanted: "macos-arm64".to_owned(),
        },
        Error::Locked { subject: subject(), holder: "pcoder pid 4711 (installing claude 2.1.0, 40 %)".to_owned() },
        io("create", ErrorKind::PermissionDenied),
        io("create", ErrorKind::ReadOnlyFilesystem),
        io("read", ErrorKind::IsADirectory),
        Error::Invalid {
            subject: "registry".to_owned(),
            detail: "it is not an http or https address".to_owned(),
            hint: "write an address such as `https://HOST/PATH/`".to_owned(),
        },
        Error::internal("the writer stopped without a reason"),
        Error::Smoke {
            subject: subject(),
            detail: "it cannot be started (Exec format error)".to_owned(),
            hint: "it was built for another processor or system".to_owned(),
        },
    ]
}

/// With the causes, which this crate's callers show behind the message.
fn shown(error: &Error) -> String {
    let cause = error.source().map(|it| format!(": {it}")).unwrap_or_default();
    let hint = error.hint().map(|it| format!("\nhint: {it}")).unwrap_or_default();
    let (name, code, subject) = (variant(error), error.code(), error.subject());
    format!("{name} ({code})\nerror: {error}{cause}\n  in {subject}{hint}\n")
}
