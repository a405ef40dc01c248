//! Instances for the fakes of cloud services: folders of their own in which commands really run, confined to them.
//!
//! A [`Machine`] is one instance. Its home, `/tmp` and further folders are its own and writable; everything else is this
//! machine's system, read-only. The network is this machine's: what listens on an instance's loopback listens here.
//!
//! On Linux each instance has mount and PID namespaces of its own, made by util-linux' `unshare` as root, or in a user
//! namespace where that is allowed. See [`Confinement`] for what is left where neither is.
#![cfg(unix)]
#![forbid(unsafe_code)]

mod holder;
mod machine;
mod processes;
mod running;
mod terminal;

pub use machine::{Confinement, Layout, Machine};
pub use running::{Io, Run, Running};
pub use terminal::Terminal;
