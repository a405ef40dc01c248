//! The fake by plain clients, and by the official SDK and CLI.
// The lints' exception for tests does not reach a test's helpers.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod client;
mod faults;
mod files;
mod orders;
mod pint;
mod program;
mod rest;
mod sdk;
mod shells;
