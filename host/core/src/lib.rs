//! pcoder without a terminal: what a run is made of, and in what order.
//!
//! This crate knows no backend. It asks agent plugins for commands, provider plugins for a place to run them, and the
//! engine store for the programs. It never prints, never exits and does not read the process's environment: the caller
//! says what surrounds it ([`Surroundings`]).
#![forbid(unsafe_code)]

pub mod acp;
mod audit_log;
mod capture;
pub mod demo;

pub mod doctor;
mod engines;
mod errors;
mod layout;
mod plugins;
mod run;
mod secrets;
mod surroundings;
mod target;

pub use capture::{Captured, Feed, Kept};
pub use engines::Installing;
pub use errors::from_engines;
pub use layout::Layout;
pub use pcoder_engines as engine_store;
pub use pcoder_runtime as runtime;
pub use plugins::{Bundled, Pcoder, PluginSummary, ToolSummary};
pub use run::{Control, Prepared, RunRequest};
pub use surroundings::Surroundings;
