//! What a connection and its sessions know. Shared between the task that reads the agent and the callers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_client_protocol::v1::Responder;
use agent_client_protocol::v1::schema::{PermissionOption, ToolCallUpdate};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::error::{AgentError, Closed, Error};
use crate::permission::{PermissionRequest, cancelled};
use crate::update::{Event, TurnEnd, Update};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks; if it did, the data would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    sessions: Mutex<Sessions>,
    closed: watch::Sender<Option<Closed>>,
    ignored: AtomicU64,
    max_queue: usize,
}

#[derive(Debug, Default)]
struct Sessions {
    known: HashMap<String, Arc<SessionState>>,
    /// Requests for new sessions that have no answer yet: an agent may speak of its session before it names it.
    opening: usize,
}

impl Connection {
    pub(crate) fn new(max_queue: usize) -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::default(),
            closed: watch::Sender::new(None),
            ignored: AtomicU64::new(0),
            max_queue,
        })
    }

    pub(crate) fn ignored_line(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ignored_lines(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Ends every wait. The first reason stands.
    pub(crate) fn close(&self, reason: Closed) {
        let first = self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason);
            }
            first
        });
        if first {
            for session in lock(&self.sessions).known.values() {
                session.changed.notify_waiters();
            }
        }
    }

    pub(crate) fn reason(&self) -> Option<Closed> {
        self.closed.borrow().clone()
    }

    pub(crate) async fn closed(&self) -> Closed {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Closed::Here),
            Err(_) => Closed::Here,
        }
    }

    /// What an error of the protocol crate means here.
    pub(crate) fn error(&self, operation: &'static str, error: agent_client_protocol::Error) -> Error {
        if let Some(reason) = self.reason() {
            return Error::Closed { operation, reason };
        }
        // The connection says so to the request before it says so to us.
        if agent_client_protocol::is_incoming_transport_closed(&error)
            || agent_client_protocol::is_connection_terminated(&error)
        {
            return Error::Closed { operation, reason: Closed::AgentEnded };
        }
        Error::Agent {
            operation,
            source: AgentError { code: error.code.into(), message: error.message, data: error.data },
        }
    }

    /// Begins to open a session whose name the agent will choose.
    pub(crate) fn opening(self: &Arc<Self>) -> Opening {
        lock(&self.sessions).opening += 1;
        Opening(self.clone())
    }

    /// The state of a session that this side knows by name. `None` if it is in use already.
    pub(crate) fn register(self: &Arc<Self>, id: &str) -> Option<Arc<SessionState>> {
        let mut sessions = lock(&self.sessions);
        if let Some(known) = sessions.known.get(id) {
            // Spoken of, but not taken yet.
            let free = !lock(&known.inner).taken;
            lock(&known.inner).taken = true;
            return free.then(|| known.clone());
        }
        let state = SessionState::new(self, true);
        sessions.known.insert(id.to_owned(), state.clone());
        Some(state)
    }

    pub(crate) fn forget(&self, id: &str) {
        let removed = lock(&self.sessions).known.remove(id);
        if let Some(session) = removed {
            session.abandon();
        }
    }

    fn session(self: &Arc<Self>, id: &str) -> Option<Arc<SessionState>> {
        let mut sessions = lock(&self.sessions);
        if let Some(known) = sessions.known.get(id) {
            return Some(known.clone());
        }
        // An agent that invents names makes no memory grow: only while one is being opened can a name be new.
        if sessions.opening == 0 || sessions.known.len() >= 1024 {
            return None;
        }
        let state = SessionState::new(self, false);
        sessions.known.insert(id.to_owned(), state.clone());
        Some(state)
    }

    /// A notification of the agent's. What is not known is ignored, as the protocol wants it.
    pub(crate) fn notified(self: &Arc<Self>, method: &str, params: Value) {
        if method != "session/update" {
            tracing::debug!(method, "ignored a notification");
            return;
        }
        let size = size_of(&params);
        let Some((id, update)) = Update::parse(params) else {
            self.ignored_line();
            return;
        };
        if let Some(session) = self.session(&id) {
            session.updated(update, size);
        }
    }

    /// A request of the agent's.
    pub(crate) fn asked(
        self: &Arc<Self>,
        method: &str,
        params: &Value,
        responder: Responder<Value>,
    ) -> Result<(), agent_client_protocol::Error> {
        if method != "session/request_permission" {
            let error = agent_client_protocol::Error::method_not_found();
            return responder.respond_with_error(error.data(json!(method)));
        }
        let Some((id, tool_call, options)) = PermissionRequest::parse(params) else {
            return responder.respond_with_error(agent_client_protocol::Error::invalid_params());
        };
        match self.session(&id) {
            Some(session) => session.asked(tool_call, options, responder),
            None => respond(responder, &cancelled()),
        }
    }
}

/// While this exists, updates of sessions with unknown names are kept.
pub(crate) struct Opening(Arc<Connection>);

impl Drop for Opening {
    fn drop(&mut self) {
        let mut sessions = lock(&self.0.sessions);
        sessions.opening -= 1;
        if sessions.opening == 0 {
            sessions.known.retain(|_, session| lock(&session.inner).taken);
        }
    }
}

/// One session.
#[derive(Debug)]
pub(crate) struct SessionState {
    connection: std::sync::Weak<Connection>,
    max_queue: usize,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Somebody holds the session.
    taken: bool,
    phase: Phase,
    turn: Queue,
    late: Queue,
    questions: HashMap<u64, Responder<Value>>,
    asked: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    InFlight,
    Cancelling,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<(Result<Event, Error>, usize)>,
    size: usize,
    lost: u64,
}

impl Queue {
    /// Adds an item. Over `max`, updates are given up, oldest first; questions and ends never are.
    fn push(&mut self, item: Result<Event, Error>, size: usize, max: usize) {
        self.items.push_back((item, size));
        self.size += size;
        while self.size > max {
            let updates = |item: &(Result<Event, Error>, usize)| matches!(item.0, Ok(Event::Update(_)));
            let Some(oldest) = self.items.iter().position(updates) else {
                break;
            };
            if let Some((_, size)) = self.items.remove(oldest) {
                self.size -= size;
                self.lost += 1;
            }
        }
    }

    fn pop(&mut self) -> Option<Result<Event, Error>> {
        if self.lost > 0 {
            return Some(Ok(Event::Update(Update::Lost(std::mem::take(&mut self.lost)))));
        }
        let (item, size) = self.items.pop_front()?;
        self.size -= size;
        Some(item)
    }
}

impl SessionState {
    fn new(connection: &Arc<Connection>, taken: bool) -> Arc<Self> {
        Arc::new(Self {
            connection: Arc::downgrade(connection),
            max_queue: connection.max_queue,
            inner: Mutex::new(Inner { taken, ..Inner::default() }),
            changed: Notify::new(),
        })
    }

    fn updated(&self, update: Update, size: usize) {
        let mut inner = lock(&self.inner);
        let queue = match inner.phase {
            Phase::Idle => &mut inner.late,
            Phase::InFlight | Phase::Cancelling => &mut inner.turn,
        };
        queue.push(Ok(Event::Update(update)), size, self.max_queue);
        drop(inner);
        self.changed.notify_waiters();
    }

    fn asked(
        self: &Arc<Self>,
        tool_call: ToolCallUpdate,
        options: Vec<PermissionOption>,
        responder: Responder<Value>,
    ) -> Result<(), agent_client_protocol::Error> {
        let mut inner = lock(&self.inner);
        // Outside of a turn there is nobody to ask, and after a cancel the protocol wants this answer.
        if inner.phase != Phase::InFlight {
            drop(inner);
            return respond(responder, &cancelled());
        }
        let key = inner.asked;
        inner.asked += 1;
        inner.questions.insert(key, responder);
        let request = PermissionRequest::new(tool_call, options, key, Arc::downgrade(self));
        inner.turn.push(Ok(Event::Permission(request)), 0, self.max_queue);
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Answers a question that is open.
    pub(crate) fn answer(&self, key: u64, outcome: &Value) -> Result<(), Error> {
        let responder = lock(&self.inner).questions.remove(&key).ok_or(Error::NotOpen)?;
        // It fails if the connection is over, and then every wait says so.
        respond(responder, outcome).map_err(|_| Error::NotOpen)
    }

    /// Begins a turn. What was left unread of the turn before is given up.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let mut inner = lock(&self.inner);
        if inner.phase != Phase::Idle {
            return Err(Error::Busy);
        }
        inner.phase = Phase::InFlight;
        let unread = std::mem::take(&mut inner.turn);
        // Dropping an unread question locks this state.
        drop(inner);
        drop(unread);
        Ok(())
    }

    /// Ends a turn.
    pub(crate) fn end(&self, result: Result<TurnEnd, Error>) {
        let mut inner = lock(&self.inner);
        inner.phase = Phase::Idle;
        let open = std::mem::take(&mut inner.questions);
        inner.turn.push(result.map(Event::End), 0, self.max_queue);
        drop(inner);
        respond_all(open);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        lock(&self.inner).phase != Phase::Idle
    }

    /// Whether a turn has events that nobody has read.
    pub(crate) fn has_turn(&self) -> bool {
        let inner = lock(&self.inner);
        inner.phase != Phase::Idle || !inner.turn.items.is_empty()
    }

    /// Notes that the turn is being cancelled and answers the open questions; whether there is a turn.
    pub(crate) fn cancel(&self) -> bool {
        let mut inner = lock(&self.inner);
        if inner.phase == Phase::Idle {
            return false;
        }
        inner.phase = Phase::Cancelling;
        let open = std::mem::take(&mut inner.questions);
        drop(inner);
        respond_all(open);
        true
    }

    pub(crate) fn take_late(&self) -> Vec<Update> {
        let mut late = std::mem::take(&mut lock(&self.inner).late);
        let items = std::iter::from_fn(|| late.pop());
        let updates = items.filter_map(|item| match item {
            Ok(Event::Update(update)) => Some(update),
            Ok(Event::Permission(_) | Event::End(_)) | Err(_) => None,
        });
        updates.collect()
    }

    /// The next event of the turn.
    pub(crate) async fn next(&self, limit: Duration) -> Result<Event, Error> {
        let operation = "session/prompt";
        let wait = async {
            loop {
                let changed = self.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if let Some(item) = lock(&self.inner).turn.pop() {
                    return item;
                }
                let reason = match self.connection.upgrade() {
                    Some(connection) => connection.reason(),
                    None => Some(Closed::Here),
                };
                if let Some(reason) = reason {
                    return Err(Error::Closed { operation, reason });
                }
                if !self.is_in_flight() {
                    return Err(Error::Idle);
                }
                changed.await;
            }
        };
        let late = Error::Deadline { operation, limit };
        tokio::time::timeout(limit, wait).await.unwrap_or(Err(late))
    }

    /// Nobody will read this session any more.
    fn abandon(&self) {
        let mut inner = lock(&self.inner);
        let open = std::mem::take(&mut inner.questions);
        let unread = std::mem::take(&mut inner.turn);
        drop(inner);
        drop(unread);
        respond_all(open);
    }
}

fn respond(responder: Responder<Value>, outcome: &Value) -> Result<(), agent_client_protocol::Error> {
    responder.respond(json!({ "outcome": outcome }))
}

fn respond_all(open: HashMap<u64, Responder<Value>>) {
    for responder in open.into_values() {
        // It fails if the connection is over, and then nobody waits.
        respond(responder, &cancelled()).unwrap_or(());
    }
}

/// About how much memory a value takes.
fn size_of(value: &Value) -> usize {
    const NODE: usize = 64;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size_of).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size_of(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_gives_up_its_oldest_updates_and_says_so() {
        let text = |text: &str| Ok(Event::Update(Update::Text(text.into())));
        let mut queue = Queue::default();
        for letter in ["a", "b", "c", "d"] {
            queue.push(text(letter), 10, 25);
        }
        queue.push(Err(Error::Idle), 10, 5);
        let shown: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|item| format!("{item:?}")).collect();
        assert_eq!(shown, ["Ok(Update(Lost(4)))", "Err(Idle)"]);
        assert_eq!(queue.size, 0);
    }
}
