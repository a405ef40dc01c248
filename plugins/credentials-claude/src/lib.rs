//! The credentials installer for Claude Code.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod claude;

pub use claude::ClaudeCredentials;

pcoder_sdk::export!(credentials: ClaudeCredentials);
