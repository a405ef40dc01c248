//! The provider `morph`: instances of Morph Cloud, over its HTTP API and its SSH gateway.
//!
//! The API was read from its OpenAPI document and from the official clients; what is said of it in comments is there.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod api;
mod exec;
mod instance;
mod line;
mod morph;
mod sse;

pub use morph::Morph;

pcoder_sdk::export!(provider: Morph);
