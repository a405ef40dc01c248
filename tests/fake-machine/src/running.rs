//! A command of an instance.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

use crate::machine::Confinement;
use crate::processes::{Commands, child_of, signal_group};
use crate::terminal::{self, Ends, Terminal};

/// What a command reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Three pipes.
    Pipes,
    /// A pseudo terminal of this size, which is the command's controlling terminal.
    Terminal {
        /// The width in characters.
        columns: u16,
        /// The height in lines.
        rows: u16,
    },
}

impl Io {
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Terminal { .. })
    }
}

/// A command to run.
#[derive(Clone, Debug)]
pub struct Run {
    /// A path, or a name that is looked for in the `PATH` of `env`.
    pub program: OsString,
    /// The arguments after the program's name.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working folder, a path on the instance.
    pub cwd: String,
    /// What it reads and writes.
    pub io: Io,
}

/// A command that was started.
pub struct Running {
    /// Its input. Dropped, it is closed; a terminal's is not.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its output; on a terminal, everything.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its errors; none on a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    terminal: Option<Terminal>,
    /// Taken when this is dropped.
    child: Option<Child>,
    id: Option<i32>,
    confinement: Confinement,
    commands: Commands,
}

impl Running {
    pub(crate) fn start(
        mut command: Command,
        io: Io,
        commands: Commands,
        confinement: Confinement,
    ) -> io::Result<Self> {
        // A signal to this process's group, such as a terminal's interrupt, is not for the instance.
        if !(io.is_terminal() && confinement == Confinement::Folder) {
            command.process_group(0);
        }
        let near = match io {
            Io::Pipes => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                None
            }
            Io::Terminal { columns, rows } => {
                let Ends { terminal, input, output, far } = terminal::open(columns, rows)?;
                command.stdin(far.try_clone()?).stdout(far.try_clone()?).stderr(far);
                Some((terminal, input, output))
            }
        };
        let mut command = tokio::process::Command::from(command);
        let mut child = command.spawn()?;
        drop(command);
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            commands.add(id);
        }
        let (stdin, stdout, stderr, terminal) = match near {
            Some((terminal, input, output)) => (Some(boxed_in(input)), Some(boxed_out(output)), None, Some(terminal)),
            None => (
                child.stdin.take().map(boxed_in),
                child.stdout.take().map(boxed_out),
                child.stderr.take().map(boxed_out),
                None,
            ),
        };
        Ok(Self { stdin, stdout, stderr, terminal, child: Some(child), id, confinement, commands })
    }

    /// The terminal, to change its size.
    #[must_use]
    pub fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    /// Waits for the end of the command itself. What it started may go on, with its output open.
    ///
    /// A signal that ended the command is told as one; of a shell's own command the shell says 128 and the number.
    ///
    /// # Errors
    /// The system cannot wait for it.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let child = self.child.as_mut().ok_or_else(|| io::Error::other("the command was let go"))?;
        let status = child.wait().await?;
        if let Some(id) = self.id.take() {
            self.commands.remove(id);
        }
        Ok(status)
    }

    /// Kills the command and its process group.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Hangs up on the command and its process group, as an SSH server does when a client goes.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        // Once it was waited for, its number may be another's.
        let Some(id) = self.id else { return };
        let inner = if self.confinement == Confinement::Folder { Some(id) } else { child_of(id) };
        signal_group(inner.unwrap_or(id), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(id), Some(mut child)) = (self.id, self.child.take()) else { return };
        let commands = self.commands.clone();
        match tokio::runtime::Handle::try_current() {
            // It is known, and so can be paused and ended with the instance, until it is reaped.
            Ok(runtime) => drop(runtime.spawn(async move {
                let _ = child.wait().await;
                commands.remove(id);
            })),
            Err(_) => commands.remove(id),
        }
    }
}

fn boxed_in(stream: impl AsyncWrite + Send + Unpin + 'static) -> Box<dyn AsyncWrite + Send + Unpin> {
    Box::new(stream)
}

fn boxed_out(stream: impl AsyncRead + Send + Unpin + 'static) -> Box<dyn AsyncRead + Send + Unpin> {
    Box::new(stream)
}
