//! The client side of the Agent Client Protocol (ACP), version 1, as pcoder uses it.
//!
//! It stands on the official crate, which speaks the protocol, and adds what living with real adapters needs:
//!
//! - **Every wait ends.** Each call takes the caller's time limit, and the death of the agent ends all of them at once.
//! - **One prompt in flight a session.** Adapters merge a second one, queue it or never answer it, so it is refused here.
//! - **Questions are answered by kind.** The options' names differ by adapter and version; see [`PermissionRequest`].
//!   A cancel answers the open ones, as the protocol demands, and so does a dropped [`PermissionRequest`].
//! - **A session is read between prompts.** An update may come after the end of its turn; see [`Session::late_updates`].
//! - **Noise is survived.** Lines that are no messages are dropped and counted, unknown notifications are ignored, unknown
//!   requests are answered with "method not found", unknown updates and stop reasons are passed on as they came.
//! - **Memory is bounded.** Lines have a maximal length, and a queue that nobody reads gives up its oldest updates.
//!
//! The client offers the agent neither files nor terminals: the agent has its own, where it runs.
//!
//! Nothing is started here: [`Client::connect`] takes the two ends of an agent's standard input and output, wherever
//! that agent runs.

#![forbid(unsafe_code)]

mod client;
mod error;
mod permission;
mod session;
mod state;
mod update;
mod wire;

pub use agent_client_protocol::v1::schema;
pub use client::{Client, Options};
pub use error::{AgentError, Closed, Error};
pub use permission::PermissionRequest;
pub use session::{Canceller, Session, Turn};
pub use update::{Event, Stop, TurnEnd, Update, Usage};
