//! One instance.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use crate::holder::{self, Holder};
use crate::processes::Commands;
use crate::running::{Run, Running};

/// How an instance is kept to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// Mount and PID namespaces, made as root.
    Namespaces,
    /// The same in a user namespace, in which the user is root.
    UserNamespace,
    /// None, where this machine allows neither: commands run as this user with `HOME`, `TMPDIR` and the working folder
    /// in the instance's folder. Absolute paths are this machine's, and a daemon that leaves its process group
    /// outlives the instance.
    Folder,
}

/// Which folders an instance has of its own, as absolute paths on it. `/tmp` always is one.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The home, for instance `/root`.
    pub home: String,
    /// Further folders, for instance `/project`. They need not exist on this machine.
    pub folders: Vec<String>,
}

/// One instance: clones are the same one. It ends with [`Machine::end`], or with the last clone.
///
/// Where [`Machine::confinement`] is [`Confinement::Folder`] it is a plain folder and confines nothing.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    layout: Layout,
    confinement: Confinement,
    commands: Commands,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Started by the first command, so that an instance that runs nothing costs nothing.
    holder: Option<Holder>,
    paused: bool,
    ended: bool,
}

impl Machine {
    /// Makes an instance below `folder`, which is created; what is there already stays.
    ///
    /// # Errors
    /// The folder cannot be made, or a path of the layout is not absolute or not plain.
    pub fn new(folder: &Path, layout: Layout) -> io::Result<Self> {
        for path in [&layout.home].into_iter().chain(&layout.folders) {
            let plain =
                path.len() > 1 && Path::new(path).components().skip(1).all(|part| matches!(part, Component::Normal(_)));
            if !path.starts_with('/') || !plain || path.ends_with('/') || path.contains([' ', '\n']) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` is no plain absolute path")));
            }
        }
        fs::create_dir_all(folder)?;
        let inner = Inner {
            folder: folder.canonicalize()?,
            layout,
            confinement: holder::available(),
            commands: Commands::default(),
            state: Mutex::default(),
        };
        for own in inner.own() {
            fs::create_dir_all(inner.files(&own))?;
        }
        fs::create_dir_all(inner.folder.join("system"))?;
        fs::set_permissions(inner.files("/tmp"), fs::Permissions::from_mode(0o1777))?;
        Ok(Self(Arc::new(inner)))
    }

    /// Another instance below `folder` with a copy of the files (owners, modes, times, links), in which nothing runs.
    /// Processes of this one are stopped while it is copied.
    ///
    /// # Errors
    /// The files cannot be copied, or this instance has ended.
    pub fn fork(&self, folder: &Path) -> io::Result<Self> {
        let state = self.0.state()?;
        if !state.paused {
            self.0.stop(&state)?;
        }
        let copied = self.0.copy(folder);
        if !state.paused {
            self.0.go_on(&state)?;
        }
        drop(state);
        copied?;
        Self::new(folder, self.0.layout.clone())
    }

    /// Starts a command. Takes a few milliseconds, the first one of an instance some tens. It runs in a session of its
    /// own, and goes on when the answer is dropped.
    ///
    /// Needs a Tokio runtime. A program that is not there is no error here: the command ends with 127, as in a shell.
    ///
    /// # Errors
    /// The instance is paused or has ended, or a process cannot be started.
    pub fn spawn(&self, run: Run) -> io::Result<Running> {
        let mut state = self.0.state()?;
        if state.paused {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the instance is paused"));
        }
        let command = if self.0.confinement == Confinement::Folder {
            self.0.plain(&run)
        } else {
            let holder = match &mut state.holder {
                Some(holder) => holder,
                empty => empty.insert(self.0.hold()?),
            };
            let mut command = holder.enter();
            command.arg("setsid");
            if run.io.is_terminal() {
                command.arg("--ctty");
            }
            command.args(["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]).arg(&run.cwd);
            command.arg(&run.program).args(&run.args).env_clear().envs(run.env);
            command
        };
        Running::start(command, run.io, self.0.commands.clone(), self.0.confinement)
    }

    /// Stops every process of the instance until [`Machine::resume`]. Nothing starts meanwhile.
    ///
    /// # Errors
    /// The instance has ended, or a process cannot be started.
    pub fn pause(&self) -> io::Result<()> {
        let mut state = self.0.state()?;
        if !state.paused {
            self.0.stop(&state)?;
            state.paused = true;
        }
        Ok(())
    }

    /// Undoes [`Machine::pause`].
    ///
    /// # Errors
    /// The instance has ended, or a process cannot be started.
    pub fn resume(&self) -> io::Result<()> {
        let mut state = self.0.state()?;
        if state.paused {
            self.0.go_on(&state)?;
            state.paused = false;
        }
        Ok(())
    }

    /// Ends every process of the instance and keeps its files: what a cold reboot leaves.
    ///
    /// # Errors
    /// The instance has ended.
    pub fn reboot(&self) -> io::Result<()> {
        let mut state = self.0.state()?;
        self.0.halt(&mut state);
        state.paused = false;
        Ok(())
    }

    /// Where a path of the instance is on this machine, if it is in one of the instance's own folders. The path is
    /// taken literally: `..` is resolved, symbolic links on the instance are not.
    #[must_use]
    pub fn path(&self, on_instance: &str) -> Option<PathBuf> {
        self.0.path(on_instance)
    }

    /// How this instance is confined.
    #[must_use]
    pub fn confinement(&self) -> Confinement {
        self.0.confinement
    }

    /// Kills every process of the instance, daemons included, and removes its folder. Returns when they are gone.
    pub fn end(&self) {
        self.0.end();
    }
}

impl Inner {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the instance has ended"));
        }
        Ok(state)
    }

    fn own(&self) -> Vec<String> {
        let mut own = vec!["/tmp".to_owned(), self.layout.home.clone()];
        own.extend(self.layout.folders.iter().cloned());
        // A folder in another one is bound after it.
        own.sort();
        own.dedup();
        own
    }

    fn files(&self, path: &str) -> PathBuf {
        self.folder.join("files").join(path.trim_start_matches('/'))
    }

    fn path(&self, on_instance: &str) -> Option<PathBuf> {
        let mut plain = PathBuf::from("/");
        for part in Path::new(on_instance).components() {
            match part {
                Component::Normal(name) => plain.push(name),
                Component::ParentDir => drop(plain.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let own = on_instance.starts_with('/') && self.own().iter().any(|folder| plain.starts_with(folder));
        own.then(|| self.files(plain.to_str()?).into()).flatten()
    }

    fn hold(&self) -> io::Result<Holder> {
        Holder::start(self.confinement, &self.folder.join("files"), &self.folder.join("system"), &self.own())
    }

    fn copy(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        // Sockets and devices, owners and times, links between files: what `cp -a` knows and `fs::copy` does not.
        let mut command = Command::new("cp");
        command.arg("-a").arg(self.folder.join("files")).arg(folder);
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("the files were not copied: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }

    fn stop(&self, state: &State) -> io::Result<()> {
        match &state.holder {
            Some(holder) => {
                // These first: one of them may be about to start its process inside.
                self.commands.signal(Signal::STOP);
                holder.signal_all("STOP")
            }
            None => {
                self.commands.signal_groups(Signal::STOP);
                Ok(())
            }
        }
    }

    fn go_on(&self, state: &State) -> io::Result<()> {
        match &state.holder {
            Some(holder) => {
                holder.signal_all("CONT")?;
                self.commands.settle();
            }
            None => self.commands.signal_groups(Signal::CONT),
        }
        Ok(())
    }

    fn halt(&self, state: &mut State) {
        match state.holder.take() {
            Some(holder) => holder.end(&self.commands),
            None => self.commands.signal_groups(Signal::KILL),
        }
    }

    fn end(&self) {
        if let Ok(mut state) = self.state() {
            self.halt(&mut state);
            state.ended = true;
            drop(state);
            // Without processes nothing makes new files, and what cannot be removed is of no use to anybody.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    /// A command in the folder alone.
    fn plain(&self, run: &Run) -> Command {
        let mut command = if run.io.is_terminal() && cfg!(target_os = "linux") {
            let mut command = Command::new("setsid");
            command.arg("--ctty").arg(&run.program);
            command
        } else {
            Command::new(&run.program)
        };
        command.args(&run.args).env_clear().envs(run.env.iter().cloned());
        command.env("TMPDIR", self.files("/tmp"));
        let home: OsString = self.files(&self.layout.home).into();
        if run.env.iter().any(|(name, _)| name == "HOME") {
            command.env("HOME", home);
        }
        command.current_dir(self.path(&run.cwd).unwrap_or_else(|| PathBuf::from(&run.cwd)));
        command
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}
