//! A fake of Morph Cloud for tests: its HTTP API, and its SSH gateway, on 127.0.0.1.
//!
//! Instances are folders in which commands really run ([`pcoder_fake_machine`]). The shapes are those of the published
//! OpenAPI document "MorphVM API 0.1.0"; what it does not say is as the official client (PyPI `morphcloud` 0.1.116) needs
//! it, and that client passes against this. Where neither says, the choice is documented at the item.
//!
//! - A command is one shell line: the elements joined by single spaces, for `bash -c` ([`ExecReading::Joined`]). Its
//!   input is empty. The answer comes when the command has ended *and* nobody holds its output any more, as over SSH.
//!   A command that a signal ended has the exit code -1. A command goes on when its client leaves.
//! - A line of more than 131071 bytes ends as under OpenSSH's server, whose shell does not start: exit code 1 and
//!   "Argument list too long".
//! - What needs a ready instance answers 412 on one that is not. An unknown instance, and one that was stopped, is 404.
//!   To pause a paused one, and to resume a ready one, changes nothing.
//! - Bytes that are no UTF-8 come as U+FFFD.
//! - The text of errors is this fake's: the real one's is not known.
//!
//! Beside `/api` there is, without a key, for tests in other languages: `GET`/`DELETE /__fake/requests`,
//! `GET`/`POST`/`DELETE /__fake/faults` (a [`Fault`] or a list of them as JSON), and `POST /__fake/clock` with
//! `{"advance": SECONDS}`.
#![cfg(unix)]
#![forbid(unsafe_code)]

mod answer;
mod api;
mod clock;
mod control;
mod exec;
mod expose;
mod fault;
mod input;
mod keys;
mod model;
mod operation;
mod options;
mod server;
mod ssh;
mod world;

pub use fault::{Fault, FaultKind, Faults, Match, Times};
pub use operation::Operation;
pub use options::{ExecReading, Options, SnapshotSeed, SseFormat, StartError};
pub use server::{FakeMorph, Seen};
