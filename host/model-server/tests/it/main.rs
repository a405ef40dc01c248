//! Integration tests: both dialects over a plain TCP connection. (That the real engines understand them is tested where
//! the engines are.)
// The lints' exception for tests does not reach a test's helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod anthropic;
mod http;
mod openai;
mod server;
