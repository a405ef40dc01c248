//! Plugins that try what they may not. Each is stopped, the answer says what it was, and the host goes on.

mod exec;
mod files;
mod limits;
mod net;
mod secrets;
mod wasi;

/// The code of an answer.
fn code(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or(answer)
}
