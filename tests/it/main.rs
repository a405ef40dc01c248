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
mod service;
#[cfg(unix)]
mod ssh_double;
#[cfg(unix)]
mod sshd;
mod streams;
mod templates;
mod websocket;

/// The services of one test, in its folder.
fn services(folder: &std::path::Path) -> pcoder_service::Services {
    let launcher = pcoder_service::Launcher {
        program: env!("CARGO_BIN_EXE_supervisor").into(),
        supervise: vec!["supervise".into()],
        become_program: vec!["become".into()],
    };
    // A path of its own, and a short one.
    pcoder_service::Services::new(folder.join("services"), folder.join("s"), launcher)
}
