//! The processes that stand for running commands, as this machine sees them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a continued process may take to wait again. It takes microseconds.
const SETTLING: Duration = Duration::from_secs(2);

/// The commands of one instance that have not ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commands(Arc<Mutex<BTreeSet<i32>>>);

impl Commands {
    fn set(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, id: i32) {
        self.set().insert(id);
    }

    pub(crate) fn remove(&self, id: i32) {
        self.set().remove(&id);
    }

    /// Sends `signal` to each command, with its process group where it leads one.
    pub(crate) fn signal_groups(&self, signal: Signal) {
        for id in self.set().iter().copied() {
            signal_group(id, signal);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        for pid in self.set().iter().copied().filter_map(Pid::from_raw) {
            // One that has ended is not there to be signalled.
            let _ = kill_process(pid, signal);
        }
    }

    /// Continues commands whose processes in the instance were continued before.
    ///
    /// `nsenter` stops itself when its child stops. Continued, it may be about to do so again for a stop that it saw
    /// before, so that it is continued until it waits.
    pub(crate) fn settle(&self) {
        let until = Instant::now() + SETTLING;
        for id in self.set().iter().copied() {
            let Some(pid) = Pid::from_raw(id) else { continue };
            let _ = kill_process(pid, Signal::CONT);
            while let Some(stat) = Stat::of(id) {
                match stat.state {
                    'T' | 't' => drop(kill_process(pid, Signal::CONT)),
                    'R' => {}
                    _ => break,
                }
                if Instant::now() > until {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

pub(crate) fn signal_group(id: i32, signal: Signal) {
    let Some(pid) = Pid::from_raw(id) else { return };
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}

/// The child of a process, where it has one. (`/proc/PID/task/PID/children` is not in every kernel.)
pub(crate) fn child_of(id: i32) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|candidate| Stat::of(*candidate).is_some_and(|stat| stat.parent == id))
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    parent: i32,
}

impl Stat {
    fn of(id: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{id}/stat")).ok()?;
        // The name before is in brackets and may contain anything.
        let after = text.iter().rposition(|byte| *byte == b')')?;
        let text = String::from_utf8_lossy(text.get(after + 1..)?);
        let mut fields = text.split_ascii_whitespace();
        Some(Self { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
    }
}
