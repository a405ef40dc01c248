//! The engine store against a registry that misbehaves on demand, archives that mean harm, processes that die, and each
//! other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests, which clippy does not know for tests"
)]

mod child;
mod disk;
mod faults;
mod hostile;
mod install;
mod registry;
mod remote;
mod tls;
mod together;
mod toy;
mod transfer;
mod transfer_hostile;
