//! The host's side of `wit/`: one file an interface. Each function makes a target, asks the gate, and calls an effect.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod answer;
mod dial;
mod ends;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod process;
pub mod raw_terminal;
pub(crate) mod secrets;
pub(crate) mod service;
mod settings;
pub(crate) mod ssh;
pub mod stdio;
pub(crate) mod target;
mod types;
pub(crate) mod wasi;
pub(crate) mod websocket;
