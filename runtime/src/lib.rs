//! Loads pcoder's plugins, confines them, calls them.
//!
//! A plugin is a WebAssembly component that targets a world of `wit/`. Each call gets an instance of its own, which is
//! gone when the call ends; what it may reach is decided by one gate ([`gate`]); what it may use up is bounded
//! ([`capability::limits`]); what it did is on record ([`audit`]).
//!
//! This crate has never heard of Claude, QEMU or a command line. Only it links Wasmtime. It never prints, never exits,
//! and does not read the process's environment: what a call may know is in its [`call::CallContext`].

pub mod artifact;
pub mod audit;
pub mod bindings;
pub mod call;
pub mod capability;
mod engine;
pub mod error;
pub mod gate;
pub mod host;
pub mod inspect;
mod invoke;
pub mod manifest;
mod plugin;
pub mod process;
pub mod secrets;
pub mod shell;
pub mod target;
pub mod text;

pub use error::Error;
pub use host::raw_terminal::restore_terminal;
pub use host::ssh::keeper::{SshKeepers, keep_ssh};
pub use invoke::{Agent, Credentials, ProcessManager, Provider, call_name};
pub use plugin::{Grant, Plugin, Runtime, digest};

/// The records of the contract, as the host uses them.
pub mod contract {
    pub use crate::bindings::agent::exports::pcoder::plugin::agent;
    pub use crate::bindings::credentials::exports::pcoder::plugin::credentials;
    pub use crate::bindings::host::pcoder::plugin::types::*;
    pub use crate::bindings::process_manager::exports::pcoder::plugin::process_manager;
    pub use crate::bindings::provider::exports::pcoder::plugin::provider;
}
