//! The agent in a sandbox, "pitcher": requests, replies and notifications in msgpack, over a WebSocket or, without
//! notifications, over HTTP.

mod calls;
mod fs;
pub(crate) mod ports;
pub(crate) mod setup;
mod shells;
pub(crate) mod socket;
mod tasks;
mod watch;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmpv::Value;
use serde_json::json;
use tokio::sync::mpsc;

pub(crate) use self::calls::{Done, call, files};
pub(crate) use self::shells::environment;
pub(crate) use self::wire::{PitcherError, Request};
use crate::cloud::Cloud;
use crate::pint::Execs;
use crate::sandbox::{Access, Sandbox};

/// What goes out on a connection.
#[derive(Debug)]
pub(crate) enum Out {
    Reply(Vec<u8>),
    /// Waits until the next reply has gone.
    LateReply(Vec<u8>),
    Notification(Vec<u8>),
    /// The answer to a heartbeat.
    Heartbeat,
    Close(u16, String),
    /// The connection is gone without a word.
    Cut,
}

#[derive(Debug)]
struct Connection {
    out: mpsc::UnboundedSender<Out>,
    /// Who has joined; notifications are for those.
    client: Option<serde_json::Value>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) access: Access,
    /// The connection; none over HTTP.
    pub(crate) connection: Option<u64>,
}

/// The agent of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    connections: Mutex<BTreeMap<u64, Connection>>,
    shells: shells::Shells,
    pub(crate) setup: Mutex<setup::State>,
    ports: ports::State,
    tasks: Mutex<BTreeMap<String, Arc<shells::Shell>>>,
    watches: watch::Watches,
    pub(crate) execs: Execs,
}

impl Agent {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shells(&self) -> MutexGuard<'_, BTreeMap<String, Arc<shells::Shell>>> {
        self.shells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, number: u64, out: mpsc::UnboundedSender<Out>) {
        self.connections().insert(number, Connection { out, client: None });
    }

    fn disconnect(&self, number: u64) {
        self.connections().remove(&number);
        self.watches.forget(number);
    }

    fn join(&self, number: u64, client: serde_json::Value) {
        if let Some(connection) = self.connections().get_mut(&number) {
            connection.client = Some(client);
        }
    }

    fn joined(&self, number: u64) -> bool {
        self.connections().get(&number).is_some_and(|connection| connection.client.is_some())
    }

    fn clients(&self) -> Vec<serde_json::Value> {
        self.connections().values().filter_map(|connection| connection.client.clone()).collect()
    }

    /// Whether nothing was ever started in the instance since it booted.
    fn unused(&self) -> bool {
        self.shells().is_empty() && self.execs.is_empty()
    }

    /// Whether anybody listens.
    pub(crate) fn connected(&self) -> bool {
        !self.connections().is_empty()
    }

    /// Tells everybody who has joined.
    pub(crate) fn notify(&self, method: &str, params: &Value) {
        self.send(method, params, |_| true);
    }

    /// Tells some connections.
    pub(crate) fn notify_some(&self, numbers: &BTreeSet<u64>, method: &str, params: &Value) {
        self.send(method, params, |number| numbers.contains(&number));
    }

    fn send(&self, method: &str, params: &Value, to: impl Fn(u64) -> bool) {
        let message = wire::notification(method, params.clone());
        for (number, connection) in self.connections().iter() {
            if connection.client.is_some() && to(*number) {
                // Its writer ends only with the connection.
                let _ = connection.out.send(Out::Notification(message.clone()));
            }
        }
    }

    fn close(&self, code: u16, reason: &str) {
        for connection in self.connections().values() {
            let _ = connection.out.send(Out::Close(code, reason.to_owned()));
        }
    }

    /// Tells everybody that the sandbox hibernates, and cuts the connections. Shells stay.
    pub(crate) fn hibernating(&self) {
        self.notify("system/hibernate", &wire::value(json!({})));
        self.execs.wake();
        self.close(1001, "Hibernated");
    }

    /// The machine is gone: so are connections, shells and what was watched.
    pub(crate) fn gone(&self, reason: &str) {
        self.close(1001, reason);
        for shell in std::mem::take(&mut *self.shells()).into_values() {
            shell.kill();
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.watches.clear();
        self.execs.clear();
        self.ports.clear();
    }
}
