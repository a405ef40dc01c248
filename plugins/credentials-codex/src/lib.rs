//! The credentials installer for Codex.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod codex;

pub use codex::CodexCredentials;

pcoder_sdk::export!(credentials: CodexCredentials);
