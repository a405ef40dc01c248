//! Integration tests: the protocol by a plain client of HTTP, the gateway by OpenSSH, and the official client.
#![cfg(target_os = "linux")]
// The lints' exception for tests does not reach a test's helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod api;
mod client;
mod exec;
mod faults;
mod official;
mod program;
mod ssh;
