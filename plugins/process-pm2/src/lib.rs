//! The process manager `pm2`: PM2 on the instance keeps processes running, and starts them again as they were asked to be.
//!
//! PM2 shows whoever may list its processes their whole environment and their command lines, writes both into its dump,
//! and takes death by a signal for success. So what it is given is a script that supervises: it takes the environment
//! from a private file, runs the command and writes down how that ended. A run's files (environment, output, exit codes)
//! are in `$PM2_HOME/pcoder/run/NAME.ID`, which nobody else can enter and which goes when the process is deleted.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod driver;
mod listing;
mod manager;
mod plan;

pub use manager::Pm2;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub use plan::{Plan, enter_argv};

pcoder_sdk::export!(process_manager: Pm2);
