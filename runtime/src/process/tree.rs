//! Everything that a call started, and how it is ended.
//!
//! A process that a call started is in a group of its own (unless it has the caller's terminal), and its environment
//! names the call. Ending a call kills the groups, and then, on Linux, every descendant that carries the call's name,
//! whatever group or session it moved to: coding agents do that with their tools.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::guard::{Guard, GuardCommand};
use crate::error::Error;

/// The variable that carries a call's name into its processes.
pub(super) const CALL_VARIABLE: &str = "PCODER_CALL";

/// The processes of a whole runtime.
#[derive(Debug, Default)]
pub struct Processes {
    roots: Mutex<HashSet<u32>>,
    /// The embedding program starts no processes of its own, so an unknown child is an orphan of some call.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "orphans are looked for there alone"))]
    sole_parent: bool,
    guard: Mutex<Guard>,
}

impl Processes {
    /// `sole_parent` says that the embedding program starts no processes of its own. On Linux it then adopts orphans
    /// (as a child subreaper), and ends those that hide from their call by giving up its name.
    pub fn new(sole_parent: bool) -> Arc<Self> {
        #[cfg(target_os = "linux")]
        if sole_parent {
            // It needs no privilege; where the kernel is too old for it, trees are found by name all the same.
            let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        }
        Arc::new(Self { roots: Mutex::default(), sole_parent, guard: Mutex::default() })
    }

    /// Has what calls start ended also when this process is killed: this command becomes the guard when a call first
    /// starts a program. On Linux; elsewhere it changes nothing.
    pub fn guard_with(&self, command: GuardCommand) {
        if cfg!(target_os = "linux") {
            *self.guard() = Guard::Wanted(command);
        }
    }

    /// Starts a process that outlives its call, and so is nobody's orphan. Nobody sweeps meanwhile.
    pub(crate) fn spare<T>(
        &self,
        start: impl FnOnce() -> std::io::Result<T>,
        pid: impl FnOnce(&T) -> Option<u32>,
    ) -> std::io::Result<T> {
        let mut roots = self.roots();
        let started = start()?;
        roots.extend(pid(&started));
        Ok(started)
    }

    fn guard(&self) -> std::sync::MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roots(&self) -> std::sync::MutexGuard<'_, HashSet<u32>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signals that a caller passes on to what a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A request to end.
    Terminate,
    /// The terminal is gone.
    Hangup,
}

/// The processes of one call. Dropping it ends them all.
#[derive(Debug)]
pub struct ProcessTree {
    call: Arc<str>,
    processes: Arc<Processes>,
    live: Mutex<Vec<Root>>,
    /// Something was started since everything was last ended.
    started_any: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Root {
    pid: u32,
    own_group: bool,
}

impl ProcessTree {
    /// A tree without processes yet. `call` must be unlike any other call's name.
    pub fn new(call: impl Into<Arc<str>>, processes: Arc<Processes>) -> Arc<Self> {
        Arc::new(Self { call: call.into(), processes, live: Mutex::default(), started_any: false.into() })
    }

    /// The call's name, for [`CALL_VARIABLE`].
    pub fn call(&self) -> &Arc<str> {
        &self.call
    }

    /// Those of the whole runtime.
    pub(crate) fn processes(&self) -> &Arc<Processes> {
        &self.processes
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Vec<Root>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a root. Nobody sweeps meanwhile: a child that is not on the list yet would pass for an orphan.
    pub(super) fn starting<T>(
        &self,
        own_group: bool,
        start: impl FnOnce() -> Result<(T, u32), Error>,
    ) -> Result<(T, u32), Error> {
        let mut roots = self.processes.roots();
        if !self.started_any.swap(true, Ordering::Relaxed) {
            // Before there is anything to end: whenever this process is killed, somebody knows. The guard is no orphan.
            roots.extend(self.processes.guard().watch(&self.call));
        }
        let (child, pid) = start()?;
        roots.insert(pid);
        self.live().push(Root { pid, own_group });
        Ok((child, pid))
    }

    /// The root has ended by itself: what it left behind ends now.
    pub(super) fn ended(&self, pid: u32) {
        // In a block of its own: the list must not be locked while it is locked.
        let root = {
            let mut live = self.live();
            let index = live.iter().position(|it| it.pid == pid);
            index.map(|index| live.remove(index))
        };
        if let Some(root) = root {
            end_group(root);
        }
        self.processes.roots().remove(&pid);
        self.sweep();
    }

    /// Passes a signal on to what is running, and says whether anything is.
    pub fn signal(&self, signal: Signal) -> bool {
        let live = self.live();
        for root in live.iter() {
            pass_on(*root, signal);
        }
        !live.is_empty()
    }

    /// Ends everything that this call started.
    pub fn end(&self) {
        let roots: Vec<Root> = self.live().drain(..).collect();
        for root in &roots {
            end_group(*root);
            self.processes.roots().remove(&root.pid);
        }
        if self.started_any.load(Ordering::Relaxed) {
            self.sweep();
            // Nobody starts anything meanwhile, which would have to be watched again.
            let _roots = self.processes.roots();
            if self.live().is_empty() && self.started_any.swap(false, Ordering::Relaxed) {
                self.processes.guard().forget(&self.call);
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn sweep(&self) {
        linux::sweep(&self.call, &self.processes.roots(), self.processes.sole_parent);
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unused_self)]
    fn sweep(&self) {}
}

impl Drop for ProcessTree {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends what carries a call's name, for one who started none of it.
#[cfg(target_os = "linux")]
pub(super) fn sweep(call: &str) {
    linux::sweep(call, &HashSet::new(), false);
}

#[cfg(unix)]
fn pid(raw: u32) -> Option<rustix::process::Pid> {
    i32::try_from(raw).ok().and_then(rustix::process::Pid::from_raw)
}

#[cfg(unix)]
fn end_group(root: Root) {
    use rustix::process::{Signal, kill_process, kill_process_group};
    // Errors mean that it has ended already, which is what is wanted.
    if let Some(pid) = pid(root.pid) {
        if root.own_group {
            let _ = kill_process_group(pid, Signal::KILL);
        } else {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(unix)]
fn pass_on(root: Root, signal: Signal) {
    use rustix::process::{Signal as Unix, kill_process, kill_process_group};
    let signal = match signal {
        Signal::Interrupt => Unix::INT,
        Signal::Terminate => Unix::TERM,
        Signal::Hangup => Unix::HUP,
    };
    if let Some(pid) = pid(root.pid) {
        if root.own_group {
            let _ = kill_process_group(pid, signal);
        } else {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Elsewhere only the program itself is ended, by its handle (`kill_on_drop`).
#[cfg(not(unix))]
fn end_group(_: Root) {}
#[cfg(not(unix))]
fn pass_on(_: Root, _: Signal) {}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{HashMap, HashSet};
    use std::fs;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

    use super::CALL_VARIABLE;

    /// A killed parent's children appear only after it is gone, so the search is repeated until it finds nothing; a
    /// fork bomb must not keep it for ever.
    const ROUNDS: usize = 64;

    /// How long a search waits in all for processes that are becoming another program. That takes microseconds, or as
    /// long as there is no processor for it.
    const PATIENCE: Duration = Duration::from_secs(2);

    pub(super) fn sweep(call: &str, live: &HashSet<u32>, sole_parent: bool) {
        let tag = format!("{CALL_VARIABLE}={call}");
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..ROUNDS {
            if sole_parent && own_children().is_some_and(|children| children.iter().all(|it| live.contains(it))) {
                return;
            }
            let found = left_behind(&tag, live, sole_parent, deadline);
            if found.is_empty() {
                return;
            }
            for &pid in &found {
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                    // Reaps it when it is our child by adoption; any other is its parent's.
                    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                }
            }
            std::thread::yield_now();
        }
    }

    /// Our children, cheaply; nothing where the kernel does not tell (`CONFIG_PROC_CHILDREN`).
    fn own_children() -> Option<Vec<u32>> {
        let mut children = Vec::new();
        for task in fs::read_dir("/proc/self/task").ok()? {
            let text = fs::read_to_string(task.ok()?.path().join("children")).ok()?;
            children.extend(text.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
        }
        Some(children)
    }

    struct Process {
        parent: u32,
        zombie: bool,
    }

    fn all() -> HashMap<u32, Process> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return HashMap::new();
        };
        entries
            .filter_map(|entry| {
                let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                // The name is in brackets and may hold anything, brackets too.
                let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
                let zombie = fields.next()? == "Z";
                Some((pid, Process { parent: fields.next()?.parse().ok()?, zombie }))
            })
            .collect()
    }

    fn left_behind(tag: &str, live: &HashSet<u32>, sole_parent: bool, deadline: Instant) -> Vec<u32> {
        let ours = u32::try_from(getpid().as_raw_nonzero().get()).unwrap_or_default();
        let processes = all();
        let belongs = |pid: u32| -> bool {
            let mut at = pid;
            // A chain of parents is short; the bound is for a table that changed while it was read.
            for _ in 0..256 {
                if at <= 1 || at == ours || live.contains(&at) {
                    return false;
                }
                if carries(at, tag, deadline) {
                    return true;
                }
                let Some(process) = processes.get(&at) else {
                    return false;
                };
                if sole_parent && process.parent == ours {
                    return true;
                }
                at = process.parent;
            }
            false
        };
        processes
            .iter()
            .filter(|&(&pid, process)| {
                if process.zombie {
                    // Nothing to kill; ours to reap when it was adopted.
                    if process.parent == ours
                        && sole_parent
                        && !live.contains(&pid)
                        && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
                    {
                        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                    }
                    return false;
                }
                pid != ours && belongs(pid)
            })
            .map(|(&pid, _)| pid)
            .collect()
    }

    /// Whether a process has the call's name in its environment. While it becomes another program it has none for a
    /// moment, and would get away.
    fn carries(pid: u32, tag: &str, deadline: Instant) -> bool {
        loop {
            let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else { return false };
            if !environ.is_empty() {
                return environ.split(|&byte| byte == 0).any(|variable| variable == tag.as_bytes());
            }
            if has_none(pid) || Instant::now() >= deadline {
                return false;
            }
            std::thread::yield_now();
        }
    }

    /// Whether a process will have no variables: it has ended, it is the kernel's, or its environment begins and ends at
    /// the same address. One that is not there yet has no address.
    fn has_none(pid: u32) -> bool {
        const OF_THE_KERNEL: u32 = 0x0020_0000;
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
        let Some((_, fields)) = stat.rsplit_once(')') else { return true };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The third of proc_pid_stat(5) is the first here.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or("0");
        let (state, flags, begin, end) = (field(3), field(9), field(50), field(51));
        let ended = matches!(state, "Z" | "X");
        ended || flags.parse().is_ok_and(|it: u32| it & OF_THE_KERNEL != 0) || (begin == end && end != "0")
    }
}
