//! Who may do what: what plugins ask for, what their user granted, what a policy allows.
//!
//! - `lock.rs`: `plugins.lock`, the plugins that were added and what was granted, pinned to the digest of their bytes.
//! - `extent.rs`: what of one set of capabilities lies within another, and what goes beyond it.
//! - `policy.rs`: the administrator's file, which narrows every grant.
//! - `candidate.rs`: a plugin that might be added, as its user is shown it.
//! - `fetch.rs`: where its bytes come from. `compile.rs`: how they become code, in a process with limits.

mod candidate;
mod compile;
mod extent;
mod fetch;
mod lock;
mod manage;
mod policy;

pub use candidate::{Asked, Candidate, Consent};
pub(crate) use compile::compile;
pub use compile::{CompileCommand, compile_child};
pub use extent::{beyond, within};
pub use lock::{Entry, Granted, PluginsLock};
pub use manage::{CLASSES, NotGranted, classes, of_classes};
pub use policy::{Policies, Policy, system_place};
