//! A folder and its copy, kept the same by the real scripts: they run on this machine with the shells and tools that
//! instances have.
#![cfg(unix)]
// The lints' exception for tests does not reach a test's helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod basics;
mod hostile;
mod ignored;
mod interrupted;
mod large;
mod machine;
mod meanwhile;
mod parts;
mod permissions;
mod two_trees;
mod unchanged;
