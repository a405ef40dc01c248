//! An offline, scripted stand-in for the services that coding agents talk to.
//!
//! [`ModelServer`] speaks two dialects on one loopback port: Anthropic Messages for Claude Code, and OpenAI
//! Responses for Codex. It needs no account and no network, so a demonstration or a test can drive the *real* agent
//! engines and know beforehand what "the model" will say and which tools it will ask for.
//!
//! **The newest prompt is the script.** The server keeps nothing about a conversation: what it answers follows from the
//! request alone ([`script`] has the language, [`reply`] the rule). The same script drives either agent:
//!
//! ```text
//! @sh echo hi > f.txt
//! @say the tool printed: $RESULT
//! ```
//!
//! A prompt that is no script is answered with `offline model: <prompt>`.
//!
//! [`environment`] has the variables and the configuration that point each engine here and keep it off every other
//! network.
//!
//! The crate does not print, does not read the environment and never ends the process.

#![forbid(unsafe_code)]

mod anthropic;
pub mod environment;
mod openai;
mod record;
pub mod reply;
pub mod script;
mod server;
mod sse;

pub use record::{Credentials, Recorded};
pub use server::{ModelServer, Options, StartError};
