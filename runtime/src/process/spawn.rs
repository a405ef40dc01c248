//! How a program is started.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio as Handle;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command as Builder};

use super::tree::{CALL_VARIABLE, ProcessTree};
use crate::bindings::host::pcoder::plugin::types::ExitStatus;
use crate::capability::exec::Command;
use crate::capability::limits::Budget;
use crate::error::{Error, code};
use crate::gate::Permit;
use crate::host::stdio::Streams;

/// A program with everything that it gets, secrets included. It has no `Debug`, so that it is never printed.
pub struct Plan {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working folder.
    pub cwd: Option<PathBuf>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

/// A finished program's output.
pub struct Captured {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

fn builder(plan: &Plan, tree: &ProcessTree, own_group: bool) -> Builder {
    let mut command = Builder::new(&plan.program);
    command.args(&plan.args).env_clear().envs(plan.env.iter().map(|(name, value)| (name, value)));
    command.env(CALL_VARIABLE, &**tree.call());
    if let Some(cwd) = &plan.cwd {
        command.current_dir(cwd);
    }
    #[cfg(unix)]
    if own_group {
        command.process_group(0);
    }
    #[cfg(not(unix))]
    let _ = own_group;
    command.kill_on_drop(true);
    command
}

fn start(mut command: Builder, plan: &Plan, tree: &ProcessTree, own_group: bool) -> Result<(Child, u32), Error> {
    tree.starting(own_group, || {
        let child = command.spawn().map_err(|error| not_started(plan, &error))?;
        let pid = child.id().unwrap_or_default();
        Ok((child, pid))
    })
}

fn not_started(plan: &Plan, error: &std::io::Error) -> Error {
    let program = plan.program.display().to_string();
    if let Some(cwd) = plan.cwd.as_deref().filter(|cwd| !cwd.is_dir()) {
        return Error::new(code::NOT_FOUND, "process.run", "the working folder is not there")
            .subject(cwd.display().to_string());
    }
    let failed = |hint: &str| {
        Error::new(code::PROCESS, "process.run", format!("the program could not be started: {error}"))
            .subject(program.clone())
            .hint(hint)
    };
    match error.kind() {
        std::io::ErrorKind::NotFound => failed("check that it is installed, and built for this system"),
        std::io::ErrorKind::PermissionDenied => failed("check that it may be executed, and its disk too (`noexec`)"),
        std::io::ErrorKind::ArgumentListTooLong => failed("give long text on standard input instead"),
        _ => failed("`pcoder doctor` looks for the usual causes"),
    }
}

/// Runs a program with the caller's streams to its end.
///
/// # Errors
/// `process` when it could not be started.
pub async fn run(
    permit: Permit<Command>,
    plan: Plan,
    streams: Streams,
    tree: Arc<ProcessTree>,
) -> Result<ExitStatus, Error> {
    let own_group = !streams.terminal;
    let result = async {
        let mut command = builder(&plan, &tree, own_group);
        command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
        let (mut child, pid) = start(command, &plan, &tree, own_group)?;
        let status = child.wait().await.map_err(|error| Error::io("process.run", "wait", &error))?;
        tree.ended(pid);
        Ok(exit_status(status))
    }
    .await;
    permit.finish(0, result)
}

/// Runs a program to its end and keeps what it wrote, as long as it is within the call's budget.
///
/// # Errors
/// `process` when it could not be started, `limit` when it wrote more.
pub async fn capture(
    permit: Permit<Command>,
    plan: Plan,
    input: Vec<u8>,
    tree: Arc<ProcessTree>,
) -> Result<Captured, Error> {
    let gate = Arc::clone(permit.gate());
    let result = async {
        let mut command = builder(&plan, &tree, true);
        command.stdin(Handle::piped()).stdout(Handle::piped()).stderr(Handle::piped());
        let (mut child, pid) = start(command, &plan, &tree, true)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input is no error.
                drop(stdin.write_all(&input).await);
            }
        };
        // When the program ends, so does what it left behind: it would hold the pipes open for as long as it likes.
        let end = async {
            let status = child.wait().await.map_err(|error| Error::io("process.capture", "wait", &error))?;
            tree.ended(pid);
            Ok(status)
        };
        let budget = gate.budget();
        let all = async {
            tokio::pin!(feed);
            let work = async { tokio::try_join!(read_within(stdout, budget), read_within(stderr, budget), end) };
            tokio::pin!(work);
            tokio::select! {
                result = &mut work => result,
                () = &mut feed => work.await,
            }
        };
        match all.await {
            Ok((stdout, stderr, status)) => Ok(Captured { status: exit_status(status), stdout, stderr }),
            Err(error) => {
                tree.ended(pid);
                Err(if error.is(code::LIMIT) { error.subject(plan.program.display().to_string()) } else { error })
            }
        }
    }
    .await;
    let bytes = result.as_ref().map_or(0, |it: &Captured| (it.stdout.len() + it.stderr.len()) as u64);
    permit.finish(bytes, result)
}

/// Reads what there is, as long as all that is read together is within the budget.
async fn read_within(stream: Option<impl AsyncRead + Unpin>, budget: &Budget) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else { return Ok(bytes) };
    loop {
        let read =
            stream.read_buf(&mut bytes).await.map_err(|error| Error::io("process.capture", "output", &error))? as u64;
        if read == 0 {
            return Ok(bytes);
        }
        budget.charge("process.capture", read)?;
    }
}

fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitStatus::Signaled(signal);
    }
    ExitStatus::Exited(status.code().unwrap_or(-1))
}
