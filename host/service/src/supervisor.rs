//! The process that owns a service.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{At as _, Error, Result};
use crate::folder::{Folder, Held};
use crate::log::Log;
use crate::protocol::{Answer, Ended, Exit, FORMAT, Hello, LONGEST, Order, Record, Started, Want, now_ms};
use crate::socket::{Listener, Stream, detach};
use crate::talk::Ends;

/// How long a client may take to say what it wants.
const HELLO: Duration = Duration::from_secs(10);
/// How long those who talk have to take the last of the output.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often a supervisor looks whether it can be reached.
const LOOK: Duration = Duration::from_secs(2);
/// What a program gets that is to end because its supervisor is.
const GRACE: Duration = Duration::from_secs(10);

/// Owns one service until its program has ended. Its process does nothing else.
///
/// `input` is what [`Services::start`](crate::Services::start) gives, `output` is where it reads the one line that is
/// answered.
///
/// # Errors
/// What was answered, for an exit code.
pub fn supervise(input: impl Read, mut output: impl Write) -> Result<()> {
    detach();
    let folder = PathBuf::new();
    let order: Order = serde_json::from_reader(input.take(LONGEST as u64))
        .map_err(|error| Error::io("read what was asked of", &folder, error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the supervisor of", &order.folder, error))?;
    runtime.block_on(async {
        let started = Supervisor::start(&order);
        let answer = match &started {
            Ok(supervisor) => Started::Running(supervisor.pid),
            Err(Error::Running { .. }) => Started::Busy,
            Err(Error::NotStarted { message, .. }) => Started::Refused(message.clone()),
            Err(error) => Started::Failed(format!("{error} ({})", error.subject())),
        };
        // Whoever waited for it may be gone; the service is not.
        if let Ok(mut line) = serde_json::to_vec(&answer) {
            line.push(b'\n');
            drop(output.write_all(&line).and_then(|()| output.flush()));
        }
        drop(output);
        started?.run().await
    })
}

/// Becomes `program`, which the kernel ends when `supervisor` does. The process must be that one's child, and have one
/// thread. It comes back only where it failed.
#[cfg(target_os = "linux")]
pub fn become_program(supervisor: u32, program: &std::path::Path, args: &[std::ffi::OsString]) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    let signal = Some(rustix::process::Signal::KILL);
    if let Err(error) = rustix::process::set_parent_process_death_signal(signal) {
        return error.into();
    }
    // It may have ended before that.
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if u32::try_from(parent) != Ok(supervisor) {
        return std::io::Error::other("its supervisor has ended");
    }
    std::process::Command::new(program).args(args).exec()
}

/// Whether the process that asked for a service was killed before it heard the answer. Then it knows of none, and there
/// should be none.
fn is_gone(asked_by: u32) -> bool {
    #[cfg(unix)]
    {
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        u32::try_from(parent) != Ok(asked_by)
    }
    #[cfg(not(unix))]
    {
        let _ = asked_by;
        false
    }
}

struct Supervisor {
    folder: Folder,
    record: Record,
    held: Held,
    listener: Listener,
    child: Child,
    pid: u32,
    log: Log,
    asked: Asked,
}

impl Supervisor {
    fn start(order: &Order) -> Result<Self> {
        // Before anything is there that would have to be ended.
        let asked = Asked::new();
        let folder = Folder { path: order.folder.clone() };
        let held = folder.lock()?.ok_or_else(|| Error::Running { name: order.name.clone() })?;
        // That of one that was lost would pass for this one's.
        folder.forget_record()?;
        if is_gone(order.asked_by) {
            let what = "was not started: who asked for it was killed".to_owned();
            return Err(Error::Supervisor { name: order.name.clone(), what });
        }
        let log = Log::open(folder.log()).at("write the log of", &folder.path)?;
        let listener = Listener::new(&order.socket)?;
        let child = start(order)?;
        let pid = child.id().unwrap_or_default();
        let record = Record {
            format: FORMAT,
            about: order.about.clone(),
            pid,
            supervisor: std::process::id(),
            started_ms: now_ms(),
            socket: order.socket.clone(),
            token: uuid::Uuid::new_v4().simple().to_string(),
            ended: None,
        };
        folder.write(&record)?;
        Ok(Self { folder, record, held, listener, child, pid, log, asked })
    }

    async fn run(self) -> Result<()> {
        let Self { folder, mut record, held, listener, mut child, pid, log, mut asked } = self;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::io("take the streams of", &folder.path, std::io::Error::other("there are none")));
        };
        let logging = tokio::spawn(keep(stderr, log));
        let (stop, mut stops) = mpsc::channel(16);
        let (ended, has_ended) = watch::channel(false);
        let clients = Clients {
            token: record.token.as_str().into(),
            ends: Arc::new(Mutex::new(Ends::new(stdin, stdout))),
            stop,
            has_ended,
        };
        let mut serving = JoinSet::new();
        let mut listener = Some(listener);
        let mut looks = tokio::time::interval(LOOK);
        let mut end_by: Option<Instant> = None;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                connection = accept(listener.as_ref()) => match connection {
                    Ok(connection) => { serving.spawn(clients.clone().serve(connection)); }
                    // Out of files, say: the next one may do better.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                // What cleans up folders for temporary files takes old sockets for some.
                _ = looks.tick() => if listener.is_none() || !is_there(&record.socket) {
                    // In this order: it takes its path along.
                    drop(listener.take());
                    listener = Listener::new(&record.socket).ok();
                },
                Some(grace) = stops.recv() => ask_to_end(pid, &mut end_by, grace),
                () = asked.for_an_end() => ask_to_end(pid, &mut end_by, GRACE),
                () = sleep_until(end_by.unwrap_or_else(Instant::now)), if end_by.is_some() => {
                    end(&mut child, pid);
                    end_by = None;
                }
                Some(_) = serving.join_next() => {}
            }
        };
        // What it left behind in its group has nobody who would end it.
        end(&mut child, pid);
        let exit = status.map_or(Exit::Exited(-1), exit);
        record.ended = Some(Ended { exit, at_ms: now_ms() });
        // What it said last is in the log before anybody hears that it has ended.
        drop(timeout(GOODBYE, logging).await);
        let written = folder.write(&record);
        // In this order: whoever hears of the end may start it again at once.
        drop(listener);
        drop(held);
        ended.send_replace(true);
        drop(timeout(GOODBYE, async { while serving.join_next().await.is_some() {} }).await);
        written
    }
}

async fn accept(listener: Option<&Listener>) -> std::io::Result<Stream> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// A pipe of Windows' is there as long as somebody listens.
fn is_there(socket: &OsStr) -> bool {
    cfg!(windows) || Path::new(socket).exists()
}

fn start(order: &Order) -> Result<Child> {
    let spec = &order.spec;
    let not_started = |message: String| Error::NotStarted { program: spec.program.clone(), message };
    // A starter is always there. What it would start may not be, and is looked at before.
    let found = std::fs::metadata(&spec.program).map_err(|error| not_started(error.to_string()))?;
    if !may_run(&found) {
        return Err(not_started("it is no program, or may not be executed".to_owned()));
    }
    match spec.cwd.canonicalize() {
        Ok(real) if real == spec.cwd && real.is_dir() => {}
        // Whoever looked at where it leads looked at another one.
        Ok(real) if real.is_dir() => {
            return Err(not_started(format!("its working folder `{}` is behind a link", spec.cwd.display())));
        }
        _ => return Err(not_started(format!("its working folder `{}` is not there", spec.cwd.display()))),
    }
    let mut command = match &order.starter {
        Some((program, args)) => {
            let mut command = Command::new(program);
            command.args(args).arg(std::process::id().to_string()).arg(&spec.program);
            command
        }
        None => Command::new(&spec.program),
    };
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.cwd);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().map_err(|error| not_started(error.to_string()))
}

#[cfg(unix)]
fn may_run(found: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    found.is_file() && found.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn may_run(found: &std::fs::Metadata) -> bool {
    found.is_file()
}

async fn keep(mut stderr: tokio::process::ChildStderr, mut log: Log) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        log.write(buffer.get(..read).unwrap_or_default());
    }
}

/// The first one that asks is whose patience counts, unless another one has less.
fn ask_to_end(pid: u32, end_by: &mut Option<Instant>, grace: Duration) {
    let by = Instant::now() + grace;
    if end_by.is_none_or(|it| by < it) {
        *end_by = Some(by);
    }
    #[cfg(unix)]
    if let Some(pid) = group(pid) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::TERM);
    }
    #[cfg(not(unix))]
    let _ = pid;
}

fn end(child: &mut Child, pid: u32) {
    #[cfg(unix)]
    if let Some(pid) = group(pid) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    #[cfg(not(unix))]
    let _ = pid;
    let _ = child.start_kill();
}

#[cfg(unix)]
fn group(pid: u32) -> Option<rustix::process::Pid> {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
}

fn exit(status: ExitStatus) -> Exit {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Exit::Signaled(signal);
    }
    Exit::Exited(status.code().unwrap_or(-1))
}

/// The system's own way to say that a process should end.
struct Asked {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Asked {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok(),
        }
    }

    async fn for_an_end(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Clients {
    token: Arc<str>,
    ends: Arc<Mutex<Ends>>,
    stop: mpsc::Sender<Duration>,
    has_ended: watch::Receiver<bool>,
}

impl Clients {
    async fn serve(mut self, connection: Stream) {
        let (from, mut to) = tokio::io::split(connection);
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        let hello = timeout(HELLO, (&mut from).take(4096).read_until(b'\n', &mut line)).await;
        if !matches!(hello, Ok(Ok(1..))) {
            return;
        }
        let Ok(hello) = serde_json::from_slice::<Hello>(&line) else { return };
        if *hello.token != *self.token {
            return;
        }
        match hello.want {
            Want::Talk => {
                // Those who wait get their turn in the order in which they came. They say nothing before they have it: what
                // comes from one is its end.
                let mut ends = tokio::select! {
                    ends = self.ends.lock() => ends,
                    _ = from.fill_buf() => return,
                };
                if say(&mut to, &Answer::Talk).await {
                    ends.talk(from, to).await;
                }
            }
            Want::Stop { grace } => {
                let _ = self.stop.send(grace).await;
                drop(self.has_ended.wait_for(|ended| *ended).await);
                say(&mut to, &Answer::Stopped).await;
            }
        }
    }
}

async fn say(to: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> bool {
    let Ok(mut line) = serde_json::to_vec(answer) else { return false };
    line.push(b'\n');
    to.write_all(&line).await.is_ok() && to.flush().await.is_ok()
}
