//! What the two sides say to each other: lines of JSON, and behind the first one of a talk, bytes as they are.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of the record and of the lines. A supervisor outlives the program that started it, so an older one may
/// answer.
pub(crate) const FORMAT: u32 = 1;

/// A program with everything that it gets. It may hold secrets, so it has no `Debug`, and it is handed to the
/// supervisor through a pipe.
#[derive(Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working folder, by its real path: absolute and without links.
    pub cwd: PathBuf,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
}

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Its supervisor is there, and the program is not, yet.
    Starting,
    /// It runs.
    Running,
    /// It ended, and its supervisor saw it.
    Ended(Exit),
    /// Its supervisor was killed, or the machine was restarted. On Linux the program has ended with it, unless it is one
    /// that got more rights when it was started; elsewhere it may go on.
    Lost,
}

/// A service, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// What whoever started it said about it.
    pub about: Option<String>,
    /// What it is doing.
    pub state: State,
    /// The program's process id, while it runs.
    pub pid: Option<u32>,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
}

/// What the supervisor is given on its standard input.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) name: String,
    pub(crate) about: String,
    /// The process that asks.
    pub(crate) asked_by: u32,
    pub(crate) folder: PathBuf,
    pub(crate) socket: OsString,
    pub(crate) spec: Spec,
    /// What starts the program in its place, and has it end with its supervisor.
    pub(crate) starter: Option<(PathBuf, Vec<OsString>)>,
}

/// The supervisor's one line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Started {
    /// It runs, as this process.
    Running(u32),
    /// Another supervisor has the lock.
    Busy,
    /// The program could not be started.
    Refused(String),
    /// Something else failed.
    Failed(String),
}

/// `service.json`: what those who come later need to know.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) about: String,
    /// The program's.
    pub(crate) pid: u32,
    /// The supervisor's. While the lock is held it is right.
    pub(crate) supervisor: u32,
    pub(crate) started_ms: u64,
    pub(crate) socket: OsString,
    /// Who cannot read this file cannot talk with the service, also where a socket has no permissions.
    pub(crate) token: String,
    pub(crate) ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) at_ms: u64,
}

/// The first line on a connection.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) token: String,
    pub(crate) want: Want,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Want {
    /// The program's input and output, from when the answer comes.
    Talk,
    /// Its end: asked to, and after this time made to.
    Stop { grace: Duration },
}

/// The supervisor's answer on a connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// What follows is the program's output.
    Talk,
    /// It has ended.
    Stopped,
}

/// The longest line that is read. An order has an environment and arguments in it.
pub(crate) const LONGEST: usize = 16 << 20;

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
