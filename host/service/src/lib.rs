//! Programs that outlive whoever started them: a virtual machine runs on when the command that booted it has ended.
//!
//! Each has a supervisor, a process of its own that does nothing but call [`supervise`]. The supervisor holds the
//! service's lock, the program's three streams, and a socket:
//!
//! ```text
//!   Services::start ──spec──► supervisor ──► program            lock      is it running? (ends with its holder)
//!   Services::talk  ◄─socket─► supervisor ◄─► stdin, stdout     socket    one talks with it at a time
//!   Services::stop  ──socket─► supervisor ──► TERM, then KILL   log       what it wrote to stderr, bounded
//! ```
//!
//! Whether a service runs is what its lock says, and nothing else: a file with a process id is true until the machine
//! is restarted, and a lock cannot outlive its holder. The program cannot outlive its supervisor either: on Linux the
//! kernel ends it.
//!
//! Nothing is asked of the program. It needs no client, no port and no file for it, and who may talk with it is who may
//! read its folder.
#![forbid(unsafe_code)]

mod client;
mod error;
#[cfg(test)]
mod error_tests;
mod folder;
mod log;
pub mod passing;
mod protocol;
pub mod socket;
mod supervisor;
mod talk;

pub use client::{Launcher, Services, Talk};
pub use error::{Error, Result};
pub use protocol::{Exit, Spec, State, Status};
#[cfg(unix)]
pub use socket::private_folder;
#[cfg(target_os = "linux")]
pub use supervisor::become_program;
pub use supervisor::supervise;
