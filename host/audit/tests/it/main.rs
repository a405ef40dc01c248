//! The audit by many processes at once, killed, cut short, tampered with, read and sent away.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests, which clippy does not know for tests"
)]

mod child;
mod collector;
mod formats;
mod otlp;
mod reading;
mod schema;
mod tampering;
mod together;
mod torn;
mod world;
