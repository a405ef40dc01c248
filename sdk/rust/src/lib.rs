//! Write pcoder plugins in Rust.
//!
//! A plugin is a crate with a `plugin.toml` beside its `Cargo.toml`, a type that implements [`Provider`],
//! [`ProcessManager`], [`Agent`] or [`Credentials`], and one line:
//!
//! ```text
//! pcoder_sdk::export!(agent: MyAgent);
//! ```
//!
//! What the host gives comes as an argument ([`host::ProviderHost`] and its siblings), so a plugin's logic is tested
//! natively against [`testing::FakeHost`], without WebAssembly. What every backend needs is here once: quoting for a
//! shell ([`shell`]), files by running commands ([`exec_files`]), trying again ([`retry`]), HTTP and what its statuses
//! mean ([`http`]), paths ([`path`]), names ([`name`]), what every agent's command line has ([`Launch`], [`Account`],
//! [`session`]), the words of another program's command line ([`words`]) and files of credentials ([`SecretFile`]).
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

#[doc(hidden)]
pub mod bindings;

mod account;
mod agent;
#[cfg(target_arch = "wasm32")]
mod allocator;
mod credentials;
mod error;
pub mod exec_files;
mod export;
pub mod host;
pub mod http;
mod launch;
pub mod name;
pub mod path;
pub mod placeholder;
mod process_manager;
mod provider;
pub mod retry;
pub mod session;
pub mod shell;
pub mod sse;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod text;
pub mod types;
pub mod words;

pub use account::Account;
pub use agent::{Agent, AgentExport};
pub use credentials::{Credentials, CredentialsExport, Form, SecretFile, install_file, quotable_secret};
pub use error::{Error, Result, code};
pub use launch::PROXY_VARIABLES;
pub use process_manager::{ProcessManager, ProcessManagerExport};
pub use provider::{Provider, ProviderExport};
pub use types::*;
