//! A double of the host, so that a plugin's logic is tested natively.
//!
//! ```
//! use pcoder_sdk::testing::FakeHost;
//! use pcoder_sdk::{CommandSpec, Output};
//!
//! let host = FakeHost::new();
//! host.answer("target.run", Ok(Output::new(0, "hello\n", "")));
//! let target = host.process_manager().target();
//! assert_eq!(target.run(&CommandSpec::argv("echo", ["hello"]), b"").unwrap().text(), "hello\n");
//! assert_eq!(host.log_of_calls(), ["target.run echo hello"]);
//! ```
//!
//! Files live in memory, on the host by root and path, on the target by path with `~` for its home. Commands, HTTP and
//! SSH answer what the test put into [`FakeHost::answer`] and [`FakeHost::respond`]; without an answer they succeed with
//! nothing. [`FakeHost::fail`] makes the next call of any operation fail. Every call is recorded, in order.

mod arrivals;
mod calls;
mod fake;
mod files;
mod launch;
mod services;
mod stdio;

pub(crate) use arrivals::Arrivals;
pub use calls::Call;
pub use fake::FakeHost;
pub use launch::{launch, session};
pub use services::{Folder, Program};
pub use stdio::FakeStdio;
pub(crate) use stdio::Feed;
