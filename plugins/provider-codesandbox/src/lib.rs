//! The provider `codesandbox`: commands run in sandboxes of CodeSandbox.
//!
//! Two protocols: the service's REST API starts, copies and ends sandboxes (`rest`); the agent in each of them, called
//! pitcher, runs commands and moves files over a WebSocket (`pitcher`). What is said here of both comes from the
//! service's OpenAPI document ("CodeSandbox API 2023-07-01") and from its SDK's sources
//! (<https://github.com/codesandbox/codesandbox-sdk>, 2.4.2).
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod config;
mod exec;
mod files;
mod lifecycle;
mod limits;
mod pitcher;
mod provider;
mod rest;
mod session;
mod tokens;

pub use provider::CodeSandbox;

pcoder_sdk::export!(provider: CodeSandbox);
