//! x
#![forbid(unsafe_code)]
mod path;
mod plan;
mod remote;
mod report;
mod tree;
pub use remote::{Ran, Remote, RemoteError};
pub use report::{Conflict, Progress, Pulled, Pushed, Reason, Side, Skipped, Stage};
