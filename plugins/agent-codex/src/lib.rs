//! The agent `codex`: how Codex is launched, and what its answers mean.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod account;
mod codex;
mod options;
mod self_update;
mod session;

pub use codex::Codex;

pcoder_sdk::export!(agent: Codex);
