//! Logins against an authorisation server of this crate's own, which checks what a real one checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod children;
mod fresh;
mod listener;
mod login;
mod proxy;
mod server;
