//! Values that programs print.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::value::{Buffer, MAX_LENGTH, READ_AT_MOST, buffer, written};

/// How long a command has by default.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// How long the output may stay open after the program ended. What the program wrote is there by then; only a process
/// that left the program's group keeps it open, and what that one writes is not asked for.
const LEFT_OPEN: Duration = Duration::from_secs(1);

/// A program with all that it gets.
pub(crate) struct Plan<'a> {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: &'a [(OsString, OsString)],
    pub(crate) folder: &'a Path,
    pub(crate) deadline: Duration,
}

/// Runs a program to its end and takes what it wrote. Whatever happens, also when this future is dropped, nothing of its
/// process group is left.
///
/// # Errors
/// `Io` when it could not be started, `CommandFailed`, `CommandSilent`, and what is wrong with the value.
pub(crate) async fn run(plan: Plan<'_>, subject: &str) -> Result<SecretString> {
    let failed = |doing| move |source| Error::Io { doing, subject: subject.to_owned(), source };
    let mut command = Command::new(&plan.program);
    command.args(&plan.arguments).current_dir(plan.folder);
    command.env_clear().envs(plan.environment.iter().map(|(name, value)| (name, value)));
    // What it says on standard error may hold the secret too, so nobody is to see it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(failed("start"))?;
    let group = Group::of(&child);
    let stdout = child.stdout.take();
    let mut bytes = buffer();

    let status = {
        let read = read(stdout, &mut bytes);
        tokio::pin!(read);
        let work = async {
            tokio::select! {
                // It closed its output, or wrote too much: then it need not end by itself.
                result = &mut read => {
                    if result.map_err(failed("read"))? > MAX_LENGTH {
                        return Err(Error::TooLong { subject: subject.to_owned() });
                    }
                    child.wait().await.map_err(failed("wait for"))
                }
                status = child.wait() => {
                    let status = status.map_err(failed("wait for"))?;
                    // What it left behind would keep the output open for as long as it likes.
                    group.end();
                    if let Ok(result) = timeout(LEFT_OPEN, &mut read).await {
                        result.map_err(failed("read"))?;
                    }
                    Ok(status)
                }
            }
        };
        timeout(plan.deadline, work).await
    };
    drop(group);
    match status {
        Err(_) => Err(Error::CommandSilent { subject: subject.to_owned(), seconds: plan.deadline.as_secs_f64() }),
        Ok(Err(error)) => Err(error),
        Ok(Ok(status)) if !status.success() => Err(Error::CommandFailed { subject: subject.to_owned(), status }),
        Ok(Ok(_)) => written(&bytes, subject),
    }
}

/// Reads to the end, or until it is more than a value may be. Gives how much there is.
async fn read(stdout: Option<ChildStdout>, bytes: &mut Buffer) -> std::io::Result<usize> {
    let Some(stdout) = stdout else { return Ok(0) };
    let mut stdout = stdout.take(READ_AT_MOST);
    while stdout.read_buf(&mut **bytes).await? > 0 {}
    Ok(bytes.len())
}

/// A program's process group, which ends with this.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    #[cfg(unix)]
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: id.and_then(rustix::process::Pid::from_raw) }
    }

    #[cfg(unix)]
    fn end(&self) {
        if let Some(leader) = self.leader {
            // An error means that it has ended already, which is what is wanted.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }

    /// Elsewhere only the program itself is ended, by its handle (`kill_on_drop`).
    #[cfg(not(unix))]
    fn of(_: &Child) -> Self {
        Self {}
    }

    #[cfg(not(unix))]
    fn end(&self) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}
