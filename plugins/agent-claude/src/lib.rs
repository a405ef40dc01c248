//! The agent `claude`: how Claude Code is launched, and what its answers mean.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod auth;
mod claude;
mod self_update;
mod session;

pub use claude::Claude;

pcoder_sdk::export!(agent: Claude);
