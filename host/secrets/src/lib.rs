//! Secrets by reference: a file of settings says where a value comes from, and never holds the value.
//!
//! - [`Reference`] is such a text: `env:NAME`, `file:PATH`, `keyring:NAME`, `command:LINE`, or `value:TEXT` for a plain
//!   text that is no secret. What is no reference is refused without being shown, as it may be a key that was pasted.
//! - [`Resolver`] turns a reference into a value. It is told the environment, the home, the base folder and the `PATH`;
//!   it finds none of them out by itself.
//! - [`keyring_set`], [`keyring_remove`] and [`keyring_has`] change and ask the system's keyring.
//!
//! No value is in an [`Error`], in a `Debug` output or in a log. Nothing waits for ever: a command and the keyring have
//! a deadline, and a pipe or a device is no file.
//!
//! The one thing that is not passed in is how the keyring is reached: the system's own libraries find it, on Linux by
//! `DBUS_SESSION_BUS_ADDRESS`.
#![forbid(unsafe_code)]

mod command;
mod error;
#[cfg(test)]
mod error_tests;
mod file;
mod keyring;
mod reference;
mod resolver;
mod value;

pub use command::COMMAND_DEADLINE;
pub use error::{Error, Result};
pub use file::Warning;
pub use keyring::{KEYRING_DEADLINE, SERVICE, keyring_has, keyring_remove, keyring_set};
pub use reference::{Reference, Source};
pub use resolver::Resolver;
pub use value::MAX_LENGTH;
