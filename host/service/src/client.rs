//! Starting services, talking with them, and ending them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::error::{At as _, Error, Result};
use crate::folder::{Folder, socket};
use crate::log;
use crate::protocol::{Answer, Exit, Hello, Order, Record, Spec, Started, State, Status, Want};
use crate::socket::{connect, detached};

/// How long a supervisor may take to start a program. A disk that spins up, a scanner that looks at every program.
const START: Duration = Duration::from_secs(60);
/// How often a lock is looked at that is about to be given back.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long an answer may take when nobody else talks.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long one takes at most that was asked to end by a signal.
const SIGNALED: Duration = Duration::from_secs(12);
/// How long a supervisor may take to answer at once.
const ANSWER: Duration = Duration::from_secs(5);

/// How a supervisor is started: programs that do nothing but call what is in this crate.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments for [`supervise`](crate::supervise).
    pub supervise: Vec<OsString>,
    /// Its arguments for `become_program`: the supervisor's process id follows, then the program and its arguments.
    /// Where the system is not Linux, they are not used.
    pub become_program: Vec<OsString>,
}

/// All services of one user in one place.
#[derive(Clone, Debug)]
pub struct Services {
    folder: PathBuf,
    sockets: PathBuf,
    launcher: Launcher,
}

/// A talk with a program. Dropping it ends the talk, and not the program.
pub struct Talk {
    /// What is written here is the program's input, line by line: one that is not whole when the talk ends is dropped.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// What the program writes, from about where the talk before ended: from the beginning of a line, and without what was
    /// on its way to the one who talked before. It ends with the program, and what a program that has
    /// ended wrote before anybody talked with it is gone: its errors are in its log.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Talk")
    }
}

impl Services {
    /// Those with their files in `folder`, which has locks, and their sockets in `sockets`, which has a short path, is on
    /// this machine's own disk and this user's alone; it is made when it is missing.
    pub fn new(folder: impl Into<PathBuf>, sockets: impl Into<PathBuf>, launcher: Launcher) -> Self {
        Self { folder: folder.into(), sockets: sockets.into(), launcher }
    }

    /// Starts a program. It runs until it ends, or is stopped, whatever becomes of this process.
    ///
    /// `about` is written down for those who find the service later. `spawn` starts the supervisor, for those who keep a list of their processes: it must not be on one of those that
    /// are ended.
    ///
    /// Dropped in the middle, it may have started the service or not: [`status`](Self::status) says which.
    ///
    /// # Errors
    /// `Running`, `NotStarted`, and whatever keeps a supervisor from working.
    pub async fn start(
        &self,
        name: &str,
        about: &str,
        spec: Spec,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child> + Send,
    ) -> Result<Status> {
        let folder = Folder::new(&self.folder, name)?;
        if folder.is_held()? {
            return Err(Error::Running { name: name.to_owned() });
        }
        let program = spec.program.clone();
        let starter = (self.launcher.program.clone(), self.launcher.become_program.clone());
        let order = Order {
            name: name.to_owned(),
            about: about.to_owned(),
            asked_by: std::process::id(),
            folder: folder.path.clone(),
            socket: socket(&self.sockets, &folder)?,
            spec,
            starter: cfg!(target_os = "linux").then_some(starter),
        };
        let order = serde_json::to_vec(&order).map_err(|error| Error::io("start", &folder.path, error.into()))?;
        folder.make()?;
        let mut command = detached(&self.launcher.program, &self.launcher.supervise, &folder.path);
        let mut supervisor = spawn(&mut command).map_err(|error| Error::NotStarted {
            program: self.launcher.program.clone(),
            message: format!("its supervisor does not start: {error}"),
        })?;
        let mut line = Vec::new();
        let answered = timeout(START, async {
            if let Some(mut stdin) = supervisor.stdin.take() {
                stdin.write_all(&order).await?;
                stdin.shutdown().await?;
            }
            match supervisor.stdout.take() {
                Some(stdout) => BufReader::new(stdout.take(1 << 16)).read_until(b'\n', &mut line).await,
                None => Ok(0),
            }
        });
        let wrong = |what: &str| Error::Supervisor { name: name.to_owned(), what: what.to_owned() };
        match answered.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(wrong(&format!("could not be told what to do: {error}"))),
            Err(_) => return Err(wrong("did not start the program in time")),
        }
        match serde_json::from_slice(&line) {
            Ok(Started::Running(_)) => self.status(name)?.ok_or_else(|| wrong("wrote nothing down")),
            Ok(Started::Busy) => Err(Error::Running { name: name.to_owned() }),
            Ok(Started::Refused(message)) => Err(Error::NotStarted { program, message }),
            Ok(Started::Failed(message)) => Err(wrong(&format!("failed: {message}"))),
            Err(_) => Err(wrong("ended before it said anything")),
        }
    }

    /// What a service is doing; nothing where there never was one of that name, or it was removed.
    ///
    /// # Errors
    /// `Name`, and what keeps its files from being read.
    pub fn status(&self, name: &str) -> Result<Option<Status>> {
        let folder = Folder::new(&self.folder, name)?;
        // The lock first: a service that ends in between is seen as one that ended.
        let held = folder.is_held()?;
        let record = folder.record()?;
        if record.is_none() && !held {
            return Ok(None);
        }
        let ended = record.as_ref().and_then(|it| it.ended);
        let state = match (held, &record, ended) {
            // The record of one that ran before is removed before a new one is started.
            (true, None, _) => State::Starting,
            (true, Some(_), None) => State::Running,
            (_, _, Some(ended)) => State::Ended(ended.exit),
            (false, _, None) => State::Lost,
        };
        let runs = state == State::Running;
        Ok(Some(Status {
            name: name.to_owned(),
            about: record.as_ref().map(|it| it.about.clone()),
            state,
            pid: record.as_ref().filter(|_| runs).map(|it| it.pid),
            started_ms: record.as_ref().map(|it| it.started_ms),
            ended_ms: ended.map(|it| it.at_ms),
        }))
    }

    /// All services, by name.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn list(&self) -> Result<Vec<Status>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &self.folder, error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.at("list", &self.folder)?.file_name();
            // What is being removed begins with a dot, which no name does.
            let Some(name) = name.to_str().filter(|name| Folder::new(&self.folder, name).is_ok()) else { continue };
            all.extend(self.status(name)?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Talks with a service, in lines. One talks at a time: this waits for those who came before, for at most `patience`,
    /// or a second, which an answer may take.
    ///
    /// # Errors
    /// `NotRunning`, `Busy`, `Supervisor`.
    pub async fn talk(&self, name: &str, patience: Duration) -> Result<Talk> {
        let (mut from, to) =
            self.connect(name, Want::Talk).await?.ok_or_else(|| Error::NotRunning { name: name.to_owned() })?;
        let patience = patience.max(AT_ONCE);
        let answer = timeout(patience, answer(&mut from)).await;
        match answer.map_err(|_| Error::Busy { name: name.to_owned(), waited: patience })? {
            Some(Answer::Talk) => Ok(Talk { input: Box::new(to), output: Box::new(from) }),
            // It ended while this waited.
            _ => Err(Error::NotRunning { name: name.to_owned() }),
        }
    }

    /// Ends a service: its program is asked to end, and made to after `grace`. Returns how it ended. One that does not
    /// run is no error.
    ///
    /// On Windows no program can be asked, so it has `grace` to end for another reason.
    ///
    /// # Errors
    /// `Supervisor`, and what keeps its files from being read.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<Option<Exit>> {
        let folder = Folder::new(&self.folder, name)?;
        if let Some((mut from, _to)) = self.connect(name, Want::Stop { grace }).await? {
            // Killed in the middle of it, it has ended just as well.
            drop(timeout(grace + ANSWER, answer(&mut from)).await);
        }
        // One that was asked by a signal has its own idea of how long that takes.
        let released = Instant::now() + ANSWER + SIGNALED;
        while folder.is_held()? {
            if Instant::now() > released {
                return Err(Error::Supervisor { name: name.to_owned(), what: "does not end".to_owned() });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(folder.record()?.and_then(|record| record.ended).map(|ended| ended.exit))
    }

    /// The end of what a service's program wrote to standard error, at most `most` bytes.
    ///
    /// # Errors
    /// `Name`, `Io`.
    pub fn log_tail(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let path = Folder::new(&self.folder, name)?.log();
        log::tail(&path, most).at("read", &path)
    }

    /// Removes what is known of a service that has ended. One that is not there is no error.
    ///
    /// # Errors
    /// `Running`.
    pub fn remove(&self, name: &str) -> Result<()> {
        Folder::new(&self.folder, name)?.remove(name)
    }

    /// A connection to a supervisor, which was told what is wanted; nothing where there is no supervisor.
    async fn connect(
        &self,
        name: &str,
        want: Want,
    ) -> Result<Option<(impl AsyncRead + Unpin + Send + use<>, impl AsyncWrite + Unpin + Send + use<>)>> {
        let folder = Folder::new(&self.folder, name)?;
        let deadline = Instant::now() + ANSWER;
        loop {
            if !folder.is_held()? {
                return Ok(None);
            }
            // One that is just starting has written nothing down yet.
            let record = folder.record()?.filter(|record| record.ended.is_none());
            let failed = match &record {
                Some(record) => match reach(record, want).await {
                    Ok(connection) => return Ok(Some(connection)),
                    Err(error) => error,
                },
                None => io::Error::other("it is starting"),
            };
            if Instant::now() > deadline {
                #[cfg(unix)]
                if let (Some(record), Want::Stop { .. }) = (&record, want) {
                    // Somebody removed its socket. It holds its lock, so this is its process.
                    signal(record.supervisor);
                    return Ok(None);
                }
                return Err(Error::Supervisor { name: name.to_owned(), what: format!("cannot be reached: {failed}") });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

async fn reach(
    record: &Record,
    want: Want,
) -> io::Result<(impl AsyncRead + Unpin + Send + use<>, impl AsyncWrite + Unpin + Send + use<>)> {
    let (from, mut to) = tokio::io::split(connect(&record.socket).await?);
    let mut line = serde_json::to_vec(&Hello { token: record.token.clone(), want })?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await?;
    Ok((BufReader::new(from), to))
}

/// The supervisor's answer; nothing when the connection ended first.
async fn answer(from: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    // Byte by byte: what follows the line is the program's.
    let mut line = Vec::new();
    loop {
        match from.read_u8().await {
            Ok(b'\n') => return serde_json::from_slice(&line).ok(),
            Ok(byte) if line.len() < 4096 => line.push(byte),
            _ => return None,
        }
    }
}

#[cfg(unix)]
fn signal(supervisor: u32) {
    if let Some(pid) = i32::try_from(supervisor).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}
