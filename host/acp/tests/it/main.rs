//! Integration tests: the client against an agent that a test plays itself, line by line, over a pipe.
// The lints' exception for tests does not reach a test's helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod connection;
mod turns;
