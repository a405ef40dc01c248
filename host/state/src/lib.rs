//! Files that last: each has a version, is written whole or not at all, and changed by one process at a time.
//!
//! - [`Document`] is what a file holds. An older version is migrated when it is read, and the file itself is kept beside
//!   it before the newer one is written. A newer version is refused and left alone.
//! - [`File`] reads and changes one. [`File::update`] holds a lock over reading, changing and writing, so that two
//!   processes lose nothing of each other's.
//! - [`write_atomic`] is how anything is written: beside, flushed, renamed.
//! - [`Lock`] is between processes. It ends with its holder, however that ends.
//!
//! Nothing here is created before it is needed, and a file that cannot be understood is never rewritten.
#![forbid(unsafe_code)]

mod atomic;
mod diagnostic;
mod document;
mod error;
#[cfg(test)]
mod error_tests;
mod lock;

pub use atomic::write_atomic;
pub use diagnostic::{Diagnostic, parse};
pub use document::{Document, File, Wrong, text};
pub use error::{Error, Result};
pub use lock::{Lock, has_locks};
pub use toml_edit;
