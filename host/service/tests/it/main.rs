//! Services as programs that use them see them: real supervisors, real programs, real kills.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know for tests")]

mod ends;
mod house;
mod life;
mod talks;
