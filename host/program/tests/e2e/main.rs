//! The real program with the real engines, against the offline model server.
//!
//! Every test has folders, an environment and a model server of its own. Only the engines are shared: they are in the
//! store that `PCODER_TEST_ENGINES` names, which `cargo xtask test` fills.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what tests share is a test too: it fails by panicking"
)]

mod accounts;
mod bad_input;
mod canaries;
mod cli;
mod component;
mod demo;
mod doctor;
mod engines;
#[cfg(target_os = "linux")]
mod errors;
#[cfg(target_os = "linux")]
mod exfat;
mod exit_codes;
mod machines;
mod manual;
#[cfg(target_os = "linux")]
mod mounts;
mod plugins;
#[cfg(target_os = "linux")]
mod portable;
#[cfg(target_os = "linux")]
mod private_tmp;
#[cfg(target_os = "linux")]
mod remote;
mod run;
#[cfg(unix)]
mod services;
#[cfg(unix)]
mod signals;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
mod together;
#[cfg(target_os = "linux")]
mod trace;
mod versions;
