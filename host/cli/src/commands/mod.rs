//! The commands: each asks `core`, and shows the answer.

pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod bundle;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod engine;
pub(crate) mod instance;
pub(crate) mod manual;
pub(crate) mod plugin;
pub(crate) mod precompile;
#[cfg(target_os = "linux")]
pub(crate) mod private_tmp;
pub(crate) mod process;
pub(crate) mod profile;
pub(crate) mod run;
mod run_remote;
pub(crate) mod runtime;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod setup;
pub(crate) mod smoke;
pub(crate) mod tools;
