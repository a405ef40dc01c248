//! pcoder without a terminal: what a run is made of, and in what order.
//!
//! This crate knows no backend. It asks agent plugins for commands, provider plugins for a place to run them, and the
//! engine store for the programs. It never prints, never exits and does not read the process's environment: the caller
//! says what surrounds it ([`Surroundings`]).
#![forbid(unsafe_code)]

pub mod acp;
mod audit_log;
pub mod auth;
pub mod bundle;
mod capture;
pub mod demo;
pub mod doctor;
pub mod egress;
mod engine_disks;
mod engines;
mod errors;
pub mod grants;
pub mod instances;
mod known_hosts;
mod layout;
mod machines;
mod made_keys;
mod modes;
pub mod names;
pub mod orchestrator;
mod plugins;
mod private_tmp;
pub mod profiles;
mod reach;
mod run;
pub mod run_remote;
mod run_request;
mod run_surroundings;
mod secrets;
pub mod settings;
mod surroundings;
mod target;
mod unfinished;

pub use audit_log::from_audit;
pub use capture::{Captured, Feed, Kept};
pub use engine_disks::MissingForGuest;
pub use engines::Installing;
pub use errors::{from_engines, from_vm};
pub use layout::Layout;
pub use machines::Bootstrapping;
pub use modes::{Chosen, Mode};
pub use pcoder_audit as audit_store;
pub use pcoder_engines as engine_store;
pub use pcoder_oauth as oauth;
pub use pcoder_runtime as runtime;
pub use pcoder_secrets as secret_store;
#[cfg(target_os = "linux")]
pub use pcoder_service::become_program;
pub use pcoder_service::{Launcher, supervise};
pub use pcoder_sync as sync;
pub use pcoder_vm as machines_store;
pub use plugins::{Bundled, Pcoder, PluginSummary, ToolSummary};
pub use private_tmp::PrivateTmp;
pub use run::{Control, Prepared, RunRequest};
pub use run_request::RunFlags;
pub use surroundings::Surroundings;
