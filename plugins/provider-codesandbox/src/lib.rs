//! The provider `codesandbox`: commands run in sandboxes of CodeSandbox.
//!
//! The service's REST API starts, copies and ends sandboxes (`rest`); the agent in each of them runs commands and moves
//! files. There are two agents: pitcher speaks over a WebSocket (`pitcher`), the newer Pint over HTTP (`pint`). A sandbox
//! that has both is reached through pitcher, as the service's SDK does it. What is said here of all three comes from the
//! service's OpenAPI documents ("CodeSandbox API 2023-07-01", "Pint API 1.0.0") and from its SDK's sources
//! (<https://github.com/codesandbox/codesandbox-sdk>, 2.4.2).
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod agent;
mod config;
mod exec;
mod files;
mod lifecycle;
mod limits;
mod pint;
mod pitcher;
mod provider;
mod rest;
mod session;
mod setup;
mod tokens;

pub use provider::CodeSandbox;

pcoder_sdk::export!(provider: CodeSandbox);
