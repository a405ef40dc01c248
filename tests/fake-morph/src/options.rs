//! How the fake behaves.

use std::io;
use std::path::PathBuf;

/// How the elements of a command become what runs. See the facts: no source says it, everything hints at the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecReading {
    /// Joined by single spaces, unquoted, for the login shell: `bash -c LINE`.
    #[default]
    Joined,
    /// A program and its arguments. For clients that send only what means the same under both readings.
    Strict,
}

/// The form of the events of `exec/sse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SseFormat {
    /// `data: {"type":"stdout","content":…}`, and `data: [DONE]`: what the official clients read.
    #[default]
    Unnamed,
    /// `event: stdout` with plain text, and `event: exit`: what the documentation shows. A line end of `\r\n` arrives as
    /// `\n`, since the format of events knows no other.
    Named,
}

/// A snapshot that is there from the start, of an empty home.
#[derive(Clone, Debug)]
pub struct SnapshotSeed {
    /// Its id, `snapshot_…`.
    pub id: String,
    /// Its digest, where it has one.
    pub digest: Option<String>,
    /// Its metadata.
    pub metadata: Vec<(String, String)>,
}

/// How a [`FakeMorph`](crate::FakeMorph) behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The one API key. `key` by default.
    pub key: String,
    /// Where the files of instances and the gateway's host key are. `None`, the default: a temporary folder.
    pub root: Option<PathBuf>,
    /// The API's port on 127.0.0.1; 0, the default, takes a free one.
    pub port: u16,
    /// The SSH gateway's port on 127.0.0.1; 0, the default, takes a free one.
    pub ssh_port: u16,
    /// Snapshots that are there from the start. One, `snapshot_c1p8b6c2`, by default.
    pub snapshots: Vec<SnapshotSeed>,
    /// Further writable folders of an instance beside `/root` and `/tmp`, such as `/project`. None by default.
    pub folders: Vec<String>,
    /// Folders of this machine that instances see too, read-only, and where: programs that their image has. None by
    /// default.
    pub shared: Vec<(PathBuf, String)>,
    /// Variables of commands, beside those of a login or instead of them.
    pub environment: Vec<(String, String)>,
    /// How commands are read.
    pub exec: ExecReading,
    /// How output is streamed.
    pub sse: SseFormat,
    /// How many reads of a new instance say `pending`. One by default; with 0 it is ready at once.
    pub boot_polls: u32,
}

impl Default for Options {
    fn default() -> Self {
        let seed = SnapshotSeed { id: "snapshot_c1p8b6c2".to_owned(), digest: None, metadata: Vec::new() };
        Self {
            key: "key".to_owned(),
            root: None,
            port: 0,
            ssh_port: 0,
            snapshots: vec![seed],
            folders: Vec::new(),
            shared: Vec::new(),
            environment: Vec::new(),
            exec: ExecReading::default(),
            sse: SseFormat::default(),
            boot_polls: 1,
        }
    }
}

/// The fake did not start.
#[derive(Debug, thiserror::Error)]
#[error("the fake did not start: {what}")]
pub struct StartError {
    pub(crate) what: String,
    #[source]
    pub(crate) source: Option<io::Error>,
}

impl StartError {
    pub(crate) fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source: Some(source) }
    }
}
