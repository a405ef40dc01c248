//! Images and QEMUs from folders and from a server that misbehaves on demand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which clippy does not know for tests")]

mod bootstrap;
mod images;
mod qemu;
#[path = "../../../engines/tests/it/registry.rs"]
#[allow(dead_code, reason = "the engine store's tests use all of it")]
mod registry;
mod world;
