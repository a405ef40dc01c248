//! The HTTP side: one loopback listener, both dialects.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::record::Recorded;
use crate::reply::{Conversation, Part, Reply};
use crate::sse::{self, Frame};
use crate::{anthropic, openai};

/// Requests are large (an engine's system prompt and tools are 100 kB) and grow with the conversation.
const MAX_BODY: usize = 64 << 20;
/// The oldest record makes room for the newest.
const MAX_RECORDS: usize = 4096;

/// How a [`ModelServer`] behaves.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The port on 127.0.0.1; 0, the default, takes a free one.
    pub port: u16,
    /// Every credential of a request must be this one, or the answer is 401. `None`, the default, asks for none.
    pub require_key: Option<String>,
    /// How many characters an event of a stream carries at most. 24 by default.
    pub chunk: usize,
    /// The time between two events of a stream. None by default.
    pub delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, require_key: None, chunk: 24, delay: Duration::ZERO }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("port", &self.port)
            .field("require_key", &self.require_key.is_some())
            .field("chunk", &self.chunk)
            .field("delay", &self.delay)
            .finish()
    }
}

/// The server did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on 127.0.0.1:{port}")]
pub struct StartError {
    /// The port that was asked for.
    pub port: u16,
    source: io::Error,
}

/// A running server. Dropping it ends it, streams that are under way included.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    records: Mutex<VecDeque<Recorded>>,
    seen: watch::Sender<usize>,
    answers: AtomicU64,
    stop: CancellationToken,
}

impl ModelServer {
    /// Starts a server; it accepts connections when this returns. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let port = options.port;
        let failed = |source| StartError { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            options,
            records: Mutex::default(),
            seen: watch::Sender::new(0),
            answers: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let stopped = shared.stop.clone().cancelled_owned();
        let serving = axum::serve(listener, router(shared.clone())).with_graceful_shutdown(stopped);
        // Serving a listener does not fail: accept errors are retried.
        let task = tokio::spawn(async move { serving.await.unwrap_or(()) });
        Ok(Self { address, shared, task: Some(task) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for Claude Code (`ANTHROPIC_BASE_URL`).
    #[must_use]
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL for Codex (`base_url` of a model provider).
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The requests so far, oldest first. At most the newest 4096 are kept.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.records().iter().cloned().collect()
    }

    /// Waits until `count` requests have come since the start, at most `limit` long; whether they have.
    pub async fn wait_for_requests(&self, count: usize, limit: Duration) -> bool {
        let mut seen = self.shared.seen.subscribe();
        let enough = seen.wait_for(|seen| *seen >= count);
        matches!(tokio::time::timeout(limit, enough).await, Ok(Ok(_)))
    }

    /// Ends the server and waits until its connections are closed.
    pub async fn shutdown(mut self) {
        self.shared.stop.cancel();
        if let Some(task) = self.task.take() {
            // It ends by itself, and a panic inside is no reason for one here.
            task.await.unwrap_or(());
        }
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", any(hello))
        .route("/api/hello", any(hello))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1/responses", get(no_websocket).post(responses))
        .route("/v1/models", get(models))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

#[derive(Clone, Copy)]
enum Dialect {
    Anthropic,
    OpenAi,
}

impl Dialect {
    fn conversation(self, request: &Value) -> Conversation {
        match self {
            Self::Anthropic => anthropic::conversation(request),
            Self::OpenAi => openai::conversation(request),
        }
    }

    fn tools(self, request: &Value) -> Vec<String> {
        match self {
            Self::Anthropic => anthropic::tools(request),
            Self::OpenAi => openai::tools(request),
        }
    }

    fn stream(self, request: &Value, parts: Vec<Part>, id: &str, chunk: usize) -> Vec<Frame> {
        match self {
            Self::Anthropic => anthropic::stream(request, parts, id, chunk),
            Self::OpenAi => openai::stream(request, parts, id, chunk),
        }
    }

    fn whole(self, request: &Value, parts: Vec<Part>, id: &str) -> Value {
        match self {
            Self::Anthropic => anthropic::whole(request, parts, id),
            Self::OpenAi => openai::whole(request, parts, id),
        }
    }

    fn error(self, status: StatusCode, kind: &str) -> Response {
        let body = match self {
            Self::Anthropic => anthropic::error(kind),
            Self::OpenAi => openai::error(kind),
        };
        json_response(status, &body)
    }
}

type Shares = State<Arc<Shared>>;

async fn hello(State(shared): Shares, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    shared.record(Recorded::new(&method, &uri, &headers));
    json_response(StatusCode::OK, &json!({ "message": "offline model" }))
}

async fn models(State(shared): Shares, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(refusal) = shared.admit(Dialect::OpenAi, Recorded::new(&method, &uri, &headers)) {
        return refusal;
    }
    let model = json!({ "id": "offline", "type": "model", "object": "model", "display_name": "Offline model",
                        "owned_by": "offline", "created": 0, "created_at": "1970-01-01T00:00:00Z" });
    json_response(StatusCode::OK, &json!({ "object": "list", "data": [model], "has_more": false }))
}

/// Codex tries a WebSocket first; this status makes it fall back to POST at once.
async fn no_websocket(State(shared): Shares, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    shared.record(Recorded::new(&method, &uri, &headers));
    Dialect::OpenAi.error(StatusCode::UPGRADE_REQUIRED, "upgrade_required")
}

async fn unknown(State(shared): Shares, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    shared.record(Recorded::new(&method, &uri, &headers));
    Dialect::Anthropic.error(StatusCode::NOT_FOUND, "not_found_error")
}

async fn messages(State(shared): Shares, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    shared.answer(Dialect::Anthropic, &method, &uri, &headers, &body)
}

async fn responses(State(shared): Shares, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    shared.answer(Dialect::OpenAi, &method, &uri, &headers, &body)
}

async fn count_tokens(State(shared): Shares, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut recorded = Recorded::new(&method, &uri, &headers);
    recorded.body_bytes = body.len();
    if let Some(refusal) = shared.admit(Dialect::Anthropic, recorded) {
        return refusal;
    }
    // Four bytes a token is near enough for whoever shows a gauge.
    json_response(StatusCode::OK, &json!({ "input_tokens": body.len().div_ceil(4) }))
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, VecDeque<Recorded>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, recorded: Recorded) {
        let mut records = self.records();
        if records.len() == MAX_RECORDS {
            records.pop_front();
        }
        records.push_back(recorded);
        drop(records);
        self.seen.send_modify(|seen| *seen += 1);
    }

    /// Records a request; answers it if its credentials are wrong.
    fn admit(&self, dialect: Dialect, recorded: Recorded) -> Option<Response> {
        let required = self.options.require_key.as_deref();
        let admitted = required.is_none_or(|key| recorded.credentials.are(key));
        self.record(recorded);
        (!admitted).then(|| dialect.error(StatusCode::UNAUTHORIZED, "authentication_error"))
    }

    fn answer(&self, dialect: Dialect, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response {
        let request = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
        let mut recorded = Recorded::new(method, uri, headers);
        recorded.body_bytes = body.len();
        let conversation = request.as_ref().map(|request| {
            recorded.model = request["model"].as_str().unwrap_or_default().to_owned();
            recorded.tools = dialect.tools(request);
            let conversation = dialect.conversation(request);
            recorded.prompt.clone_from(&conversation.prompt);
            recorded.results = conversation.results.len();
            conversation
        });
        if let Some(refusal) = self.admit(dialect, recorded) {
            return refusal;
        }
        let (Some(request), Some(conversation)) = (request, conversation) else {
            return dialect.error(StatusCode::BAD_REQUEST, "invalid_request_error");
        };
        match conversation.reply() {
            Reply::Refuse { status, kind } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                dialect.error(status, &kind)
            }
            Reply::Parts(parts) => self.send(dialect, &request, body.len(), parts),
        }
    }

    fn send(&self, dialect: Dialect, request: &Value, size: usize, parts: Vec<Part>) -> Response {
        // Names of messages and tool calls must not come twice in a conversation, not even in one that goes on at
        // another server: a conversation only ever grows.
        let count = self.answers.fetch_add(1, Ordering::Relaxed);
        let id = format!("offline{size:x}n{count}");
        let (content_type, frames) = if request["stream"] == true {
            ("text/event-stream", dialect.stream(request, parts, &id, self.options.chunk))
        } else {
            let mut frames = Vec::new();
            for part in &parts {
                match part {
                    Part::Pause(pause) => frames.push(Frame::Pause(*pause)),
                    Part::Cut => frames.push(Frame::Cut),
                    Part::Fail(code) => {
                        return dialect.error(StatusCode::INTERNAL_SERVER_ERROR, code);
                    }
                    Part::Text(_) | Part::Thought(_) | Part::Call(_) => {}
                }
            }
            frames.push(Frame::Text(dialect.whole(request, parts, &id).to_string()));
            ("application/json", frames)
        };
        let body = sse::body(frames, self.options.delay, self.stop.clone());
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let body = Body::from(body.to_string());
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
