//! The plugin on this machine: with the real PM2, and its quoting with real shells.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr, reason = "a test that is left out says so")]
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod machine;
mod memory;
mod names;
mod processes;
mod quoting;
mod secrets;
mod trouble;
