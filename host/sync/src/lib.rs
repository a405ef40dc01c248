//! A project on this host and its copy on an instance that is reached by running scripts there.
//!
//! - [`Sync`] is the pair: [`Sync::push`] makes the instance what the host is, [`Sync::pull`] the other way round, each
//!   only where the side that is written has not changed since the last sync. Nothing that either side made is lost.
//! - [`Remote`] is the instance: one function, which runs a POSIX shell script. A sync without changes is one call.
//!
//! How it goes: the host walks its folder (`local`), the instance describes its own in one run (`describe`), and a pure
//! function of these and of what both had after the last sync says what is to be done (`plan`). A push sends one archive
//! with what comes and lists of what goes (`pack`, `stream`, `scripts/apply.sh`); a pull asks for the files that it
//! needs (`fetch`), and puts each in its place by a rename (`unpack`). Either can be interrupted anywhere: what both
//! sides then have in common counts as synced, and the rest is done by the next one.
//!
//! The instance is not trusted. What it sends never decides where something is written, and no link is ever followed.
#![forbid(unsafe_code)]

mod describe;
mod error;
#[cfg(test)]
mod error_tests;
mod fetch;
mod listing;
mod local;
mod pack;
mod path;
mod plan;
mod remote;
mod report;
mod rules;
mod state;
mod stream;
mod sync;
mod tree;
mod unpack;

pub use error::{Error, Result};
pub use remote::{Ran, Remote, RemoteError};
pub use report::{Conflict, Progress, Pulled, Pushed, Reason, Side, Skipped, Stage};
pub use rules::DEFAULTS;
pub use sync::{MAX_FILES, Sync};
