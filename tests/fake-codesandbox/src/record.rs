//! What clients asked for.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

/// A request to the REST API or to Pint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recorded {
    /// The operation's name, `vm.start` for instance; `unknown` where there is none.
    pub operation: String,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, as it was sent.
    pub query: String,
    /// Whether the right key came with it.
    pub authorized: bool,
    /// The header `User-Agent`.
    pub user_agent: String,
    /// The body, where it is JSON.
    pub body: Option<Value>,
    /// The status of the answer; none where there was no answer.
    pub status: Option<u16>,
}

/// A request to a sandbox's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// The sandbox.
    pub sandbox: String,
    /// Which of the connections, counted from 0 over the fake's life.
    pub connection: u64,
    /// The method, `fs/readFile` for instance. An empty text frame, the heartbeat, is told as an empty method.
    pub method: String,
    /// How many bytes the whole message had.
    pub size: usize,
}

#[derive(Debug)]
pub(crate) struct Records {
    requests: Mutex<Vec<Recorded>>,
    messages: Mutex<Vec<Message>>,
    changed: watch::Sender<u64>,
}

impl Default for Records {
    fn default() -> Self {
        Self { requests: Mutex::default(), messages: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Records {
    /// The index under which [`Records::answered`] knows it.
    pub(crate) fn request(&self, request: Recorded) -> usize {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(request);
        self.changed.send_modify(|count| *count += 1);
        requests.len() - 1
    }

    pub(crate) fn answered(&self, index: usize, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = requests.get_mut(index) {
            request.status = Some(status);
        }
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn message(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
