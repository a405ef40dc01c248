//! Plugins that try what they may not. Each is stopped, the answer says what it was, and the host goes on.

mod exec;
mod files;
mod kept;
mod limits;
mod net;
mod secrets;
mod ssh;
mod terminal;
mod wasi;
mod websocket;

use pcoder_tests::House;

use crate::logs;

/// The code of an answer.
fn code(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or(answer)
}

/// Fails when the value is anywhere where somebody could read it.
fn assert_nowhere(value: &str, house: &House, answers: &[String]) {
    assert!(!answers.iter().any(|it| it.contains(value)), "in an answer: {answers:?}");
    assert!(!house.audit_text().contains(value), "in the audit");
    assert!(!logs::text().contains(value), "in the log: {:?}", logs::with(value));
}
