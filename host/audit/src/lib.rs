//! The audit log: lines of JSON, each with the hash of the one before.
//!
//! - [`Log`] appends, in many processes at once. A line that a crash has torn stays where it is, and the chain goes on
//!   behind it. Files are rotated.
//! - [`verify`](verify()) follows the chain over all files and names the file and the line of everything that does not fit.
//! - [`read`](read()) hands out records, the newest without reading the oldest.
//! - [`otlp`] sends records to a collector, where whoever can write the folder cannot change them.
//!
//! # A line
//!
//! ```text
//! {"schema_version":1,"seq":7,"prev":"<64 hex>",THE RECORD'S FIELDS,"hash":"<64 hex>"}
//! ```
//!
//! The first three fields and the last one stand exactly so, without spaces. `hash` is the SHA-256, in lower case, of
//! every byte of the line before `,"hash":"`. `prev` is the `hash` of the record `seq - 1`; that of the first one is 64
//! zeros. `"after_torn":true` follows `prev` when the line before is torn. So a line proves itself by its own bytes,
//! and its place by the line before.
//!
//! # What it does not do
//!
//! It knows nothing of what is recorded. And whoever can write the folder can write the whole chain anew: the defence
//! is a head that was noted elsewhere ([`verify_against`]) or records that were sent away ([`otlp`]).
#![forbid(unsafe_code)]

mod chain;
mod error;
#[cfg(test)]
mod error_tests;
mod files;
mod line;
mod lock;
mod log;
pub mod otlp;
mod read;
mod tail;
mod verify;

pub use error::{Error, Result};
pub use line::Head;
pub use log::{Log, Rotation};
pub use read::{Filter, Records, read};
pub use verify::{Kind, Problem, Report, Torn, verify, verify_against};
