//! The provider against the stand-in for the service, over real HTTP and real WebSockets.
// The lints' exception for tests does not reach a test's helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod exec;
mod files;
mod host;
mod lifecycle;
mod world;
