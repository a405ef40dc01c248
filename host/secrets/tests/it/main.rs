//! References against real files, real commands and a real keyring, and what their errors must never hold.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests, which clippy does not know for tests"
)]

mod commands;
mod files;
mod keyring;
mod references;
mod silence;

use std::ffi::OsString;
use std::path::Path;

use pcoder_secrets::{Error, Reference, Resolver};
use secrecy::ExposeSecret as _;

/// A resolver that knows a folder, an environment of its own, and where every system has its programs.
fn resolver(base: &Path, environment: &[(&str, &str)]) -> Resolver {
    let path = [("PATH", "/usr/bin:/bin")];
    let environment =
        environment.iter().chain(&path).map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Resolver::new(environment, Some(base.join("home")), base.to_path_buf())
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The value, in plain.
async fn value(resolver: &Resolver, text: &str) -> String {
    let value = resolver.resolve(&reference(text)).await;
    value.unwrap_or_else(|error| panic!("{text}: {error}")).expose_secret().to_owned()
}

async fn error(resolver: &Resolver, text: &str) -> Error {
    match resolver.resolve(&reference(text)).await {
        Ok(_) => panic!("{text} has a value"),
        Err(error) => error,
    }
}

/// What people read: the subject, and what is wrong with it.
async fn wrong(resolver: &Resolver, text: &str) -> String {
    let error = error(resolver, text).await;
    assert!(!error.hint().is_empty());
    format!("{}: {error}", error.subject().unwrap_or("nothing"))
}
