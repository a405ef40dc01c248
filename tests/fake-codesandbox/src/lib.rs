//! A stand-in for CodeSandbox: its REST API, and the agent in its sandboxes, "pitcher".
//!
//! [`FakeCodeSandbox`] listens on two loopback ports, one for the REST API and one for the agents. It keeps state as
//! the service does, and its sandboxes are instances in which commands really run (`pcoder-fake-machine`). The official
//! SDK and CLI (`@codesandbox/sdk` 2.4.2) pass against it with `CSB_API_KEY` and `CSB_BASE_URL`. It is written from
//! their source, from the service's OpenAPI document, and from traces.
//!
//! Ports of instances: a request on either listener whose `Host` is `ID-PORT.csb.app` is handed to the port, as
//! `https://ID-PORT.csb.app` would be. Of a sandbox with private ports it asks for a preview token.
//!
//! [`Fault`]s make any operation go wrong. They are also taken over HTTP, on the REST API's port and without a key:
//!
//! | Request | |
//! |---|---|
//! | `POST /__fake/faults` | adds one, or a JSON list of them; each as [`Fault`] is written in JSON or as text |
//! | `GET /__fake/faults`, `DELETE /__fake/faults` | those that wait; forgets them |
//! | `GET /__fake/requests` | `{"requests": […], "messages": […]}`, what clients asked for so far |
//!
//! The operations that a fault names, and that a request is recorded as:
//!
//! | | |
//! |---|---|
//! | REST | `meta.info`, `sandbox.{list,create,get,fork}`, `tokens.{list,create,update,revoke}` |
//! | | `vm.{start,shutdown,hibernate,delete,session,hibernation_timeout,specs,running,clusters,tag,alias}` |
//! | | `templates.create`, `hosts.{list,create,update}` |
//! | pitcher | every method by its name (`fs/readFile`, `shell/create`, `client/join`), and `connect`, the handshake |
//! | Pint | `pint.NOUN.METHOD`: `pint.files.post`, `pint.execs.io.get`, `pint.stream.execs.get` |
//!
//! What is not known of the service is decided to the stricter side: only requests to the agent keep a sandbox from
//! hibernating, a heartbeat does not; output of a shell goes to the connections that created or opened it; `/tmp` is
//! empty after a shutdown; tokens end with the run of the machine that they are for.
//!
//! The crate does not print and never ends the process.

#![cfg(unix)]
#![forbid(unsafe_code)]

mod cloud;
mod fault;
mod lifecycle;
mod options;
mod paths;
mod pint;
mod pitcher;
mod preview;
mod record;
mod rest;
mod sandbox;
mod server;

pub use fault::{Fault, FaultError, Faults, Limit, What};
pub use options::{Agent, Options, SetupStep, Task};
pub use record::{Message, Recorded};
pub use server::{FakeCodeSandbox, StartError};
