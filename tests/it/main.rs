//! What crosses crates: the gate matrix, and plugins that try what they may not.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::result_large_err,
    reason = "these are tests, and nobody links them"
)]

mod agents;
mod children;
mod codes;
mod double;
mod example;
mod gate_matrix;
mod hostile;
mod http;
mod load;
mod logs;
mod sdk_http;
mod send;
#[cfg(unix)]
mod ssh_double;
#[cfg(unix)]
mod sshd;
mod streams;
mod templates;
mod websocket;
