//! The process manager `shell`: a process runs once, to its end, and leaves nothing behind.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod once;

pub use once::Once;

pcoder_sdk::export!(process_manager: Once);
