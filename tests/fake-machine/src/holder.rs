//! The process that holds an instance's namespaces.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::Confinement;
use crate::processes::Commands;

const SETUP: &str = include_str!("setup.sh");

/// What this machine allows; found out once, by trying.
pub(crate) fn available() -> Confinement {
    static FOUND: OnceLock<Confinement> = OnceLock::new();
    *FOUND.get_or_init(|| {
        if !cfg!(target_os = "linux") {
            return Confinement::Folder;
        }
        let allowed = |how: &Confinement| {
            let mut command = unshare(*how);
            command.args([
                "sh",
                "-c",
                "mount --bind /tmp /tmp && umount /tmp && env --default-signal sh -c 'command -v nsenter setsid'",
            ]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        [Confinement::Namespaces, Confinement::UserNamespace].into_iter().find(allowed).unwrap_or(Confinement::Folder)
    })
}

fn unshare(how: Confinement) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    if how == Confinement::UserNamespace {
        command.arg("--map-root-user");
    }
    command
}

/// A running holder. It is the init of the instance's processes: they all end with it.
#[derive(Debug)]
pub(crate) struct Holder {
    how: Confinement,
    child: Child,
    /// Closed when this process ends in whatever way, and then the holder ends.
    _input: Option<ChildStdin>,
    init: i32,
}

impl Holder {
    /// Starts one: some tens of milliseconds.
    pub(crate) fn start(how: Confinement, files: &Path, root: &Path, folders: &[OsString]) -> io::Result<Self> {
        let mut command = unshare(how);
        command.args(["sh", "-c", SETUP, "sh"]).arg(files).arg(root).args(folders);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        let Ok(init) = said.trim().parse() else {
            let mut why = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut why)?;
            }
            child.wait()?;
            return Err(io::Error::other(format!("the instance's file system was not made: {}", why.trim())));
        };
        Ok(Self { how, _input: child.stdin.take(), child, init })
    }

    /// A command that runs what is added to it inside. The environment is handed on; the working folder is `/`.
    pub(crate) fn enter(&self) -> Command {
        // What this process ignores, because it runs in a shell's background for instance, an instance's commands do not.
        let mut command = Command::new("env");
        command.args(["--default-signal", "nsenter"]);
        command.arg(format!("--target={}", self.init)).args(["--mount", "--pid"]);
        if self.how == Confinement::UserNamespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--");
        command
    }

    /// Sends a signal to everything inside but the holder, as one step that nothing forks its way around.
    pub(crate) fn signal_all(&self, signal: &str) -> io::Result<()> {
        let mut command = self.enter();
        command.args(["sh", "-c", &format!("kill -{signal} -1")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It fails where there is nobody to signal.
        command.status().map(drop)
    }

    /// Ends everything inside, and waits for that.
    pub(crate) fn end(mut self, commands: &Commands) {
        if let Some(init) = Pid::from_raw(self.init) {
            let _ = kill_process(init, Signal::KILL);
        }
        // An init is gone after all of its namespace is, and that after its parents have reaped it: of commands that is
        // `nsenter`, which stands still since the instance was paused.
        while let Ok(None) = self.child.try_wait() {
            commands.signal(Signal::CONT);
            thread::sleep(Duration::from_millis(1));
        }
    }
}
