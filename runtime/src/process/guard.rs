//! Ends what calls started when the process that owns them was killed.
//!
//! Nobody can catch `SIGKILL`, so somebody else must be there: the guard, a process that is started with the first
//! program of a call and waits at the end of a pipe. It is told which calls run programs. When the pipe closes, its
//! other end is gone however it went, and the guard ends what carries the names of calls that did not end before.
//!
//! It is beside what it guards and not above it: programs are started as without it, and keep their terminal, their
//! group and their exit status. (A signal on the parent's death, which Linux has, would reach the program alone and
//! not its children, and comes when the thread that started it ends.) It has a group of its own, so that Ctrl-C and a
//! signal to the whole group of the process that it watches do not reach it.
//!
//! Calls are found by the names in their programs' environments, so there is a guard on Linux only.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, PipeWriter, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// How a guard is started: a program that does nothing but call [`guard`] with its standard input.
#[derive(Clone, Debug)]
pub struct GuardCommand {
    /// The program's file.
    pub program: PathBuf,
    /// What it is called in lists of processes.
    pub name: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// The other end of a guard's pipe.
#[derive(Debug, Default)]
pub(super) enum Guard {
    /// There is none, and none is wanted.
    #[default]
    Unwanted,
    /// It is started when it is first needed.
    Wanted(GuardCommand),
    /// It watches.
    Watching { child: Child, pipe: PipeWriter },
}

impl Guard {
    /// Has a call watched from now on. Gives the guard's process id when it was started for it.
    pub(super) fn watch(&mut self, call: &str) -> Option<u32> {
        let mut started = None;
        if let Self::Wanted(command) = self {
            match start(command) {
                Ok((child, pipe)) => {
                    started = Some(child.id());
                    *self = Self::Watching { child, pipe };
                }
                Err(error) => {
                    tracing::warn!("if pcoder is killed, what it runs goes on: the guard does not start: {error}");
                    *self = Self::Unwanted;
                }
            }
        }
        self.tell('+', call);
        started
    }

    /// The call has ended, and everything that it started.
    pub(super) fn forget(&mut self, call: &str) {
        self.tell('-', call);
    }

    fn tell(&mut self, sign: char, call: &str) {
        if let Self::Watching { pipe, .. } = self
            && !call.contains('\n')
        {
            // One write, so that a line is there whole or not at all. A guard that somebody ended or stopped is no
            // reason to fail or to wait.
            let _ = pipe.write(format!("{sign}{call}\n").as_bytes());
        }
    }
}

impl Drop for Guard {
    /// Every call holds what this is a part of, so that none is left to watch.
    fn drop(&mut self) {
        if let Self::Watching { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(command: &GuardCommand) -> std::io::Result<(Child, PipeWriter)> {
    let (reader, writer) = std::io::pipe()?;
    let mut start = Command::new(&command.program);
    // Nothing of ours stays in use by it: neither the environment nor a folder nor an open file.
    start.args(&command.args).env_clear().current_dir("/");
    start.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt as _;
        start.arg0(&command.name).process_group(0);
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK)?;
    }
    Ok((start.spawn()?, writer))
}

/// What a guard does: it waits until `input` ends, and then ends what the calls that it was told of left behind.
pub fn guard(input: impl BufRead) {
    // Whoever ends all processes of the program's name must not end this one first.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/comm", "call-guard");
    let mut calls = HashSet::new();
    for line in input.lines().map_while(Result::ok) {
        if let Some(call) = line.strip_prefix('+') {
            calls.insert(call.to_owned());
        } else if let Some(call) = line.strip_prefix('-') {
            calls.remove(call);
        }
    }
    #[cfg(target_os = "linux")]
    for call in calls {
        super::tree::sweep(&call);
    }
}
