//! The provider `local`: commands run on the machine that pcoder runs on.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod local;

pub use local::Local;

pcoder_sdk::export!(provider: Local);
