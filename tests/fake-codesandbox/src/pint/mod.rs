//! The newer agent, "Pint": REST, and server-sent events. From its OpenAPI document, "Pint API 1.0.0".

mod execs;
mod files;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use serde_json::{Value, json};

pub(crate) use self::execs::Execs;
use crate::cloud::{ApiError, Cloud};
use crate::fault::What;
use crate::pitcher::{Caller, ports};
use crate::record::Recorded;
use crate::rest;

/// How often `stream/ports` looks.
const PORTS: Duration = Duration::from_millis(100);

/// An answer: a status with its data, or events.
enum Answer {
    Data(u16, Value),
    Events(Body),
}

type Done = Result<Answer, ApiError>;

fn data(data: Value) -> Done {
    Ok(Answer::Data(200, data))
}

/// Answers a request to the agent of a sandbox.
pub(crate) async fn answer(
    State(cloud): State<Arc<Cloud>>,
    Path((id, rest)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = rest::form(uri.query().unwrap_or_default());
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let token = text(header::AUTHORIZATION).strip_prefix("Bearer ").or(find("token")).unwrap_or_default();
    let sandbox = cloud.get(&id).filter(|_| cloud.options.agent.has_pint());
    let access = sandbox.as_ref().and_then(|sandbox| sandbox.access(token));
    let call = Call {
        path: rest.strip_prefix("api/v1/").unwrap_or_default().to_owned(),
        method: method.to_string(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        last: find("lastSequence").and_then(|last| last.parse().ok()).unwrap_or(0),
        action: find("actionType").map(str::to_owned),
    };
    let operation = call.operation();
    let index = cloud.records.request(Recorded {
        operation: operation.clone(),
        method: call.method.clone(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        authorized: access.is_some(),
        user_agent: text(header::USER_AGENT).to_owned(),
        body: Some(call.body.clone()).filter(|body| !body.is_null()),
        status: None,
    });
    let response = match (sandbox, access) {
        (None, _) => refused(&ApiError::not_found()),
        (_, None) => refused(&ApiError::of_status(401)),
        (Some(sandbox), Some(access)) => {
            sandbox.touch();
            let caller = Caller { cloud: cloud.clone(), sandbox, access, connection: None };
            handle(&caller, &call, &operation).await
        }
    };
    if !rest::is_dropped(&response) {
        cloud.records.answered(index, response.status().as_u16());
    }
    response
}

async fn handle(caller: &Caller, call: &Call, operation: &str) -> Response {
    let fault = caller.cloud.faults.take(operation);
    match &fault {
        Some(What::Status { status, retry_after, .. }) => {
            let mut response = refused(&ApiError::of_status(*status));
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            }
            return response;
        }
        Some(What::DropBefore) => return rest::dropped(),
        Some(What::Silent) => return rest::silence(&caller.cloud).await,
        Some(What::Slow { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        _ => {}
    }
    let done = match &fault {
        Some(What::OtherSandbox) => match caller.cloud.other(&caller.sandbox.id) {
            Some(sandbox) => perform(&Caller { sandbox, ..caller.clone() }, call).await,
            None => perform(caller, call).await,
        },
        _ => perform(caller, call).await,
    };
    if fault == Some(What::DropAfter) {
        return rest::dropped();
    }
    match done {
        Err(error) => refused(&error),
        Ok(Answer::Events(body)) => {
            let body = match fault {
                Some(What::Cut { events }) => cut(body, events),
                _ => body,
            };
            ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
        }
        Ok(Answer::Data(status, mut data)) => {
            match &fault {
                Some(What::Missing { field }) => rest::edit(&mut data, field, None),
                Some(What::Null { field }) => rest::edit(&mut data, field, Some(Value::Null)),
                _ => {}
            }
            let mut body = data.to_string().into_bytes();
            if fault == Some(What::Truncated) {
                body.truncate(body.len() * 2 / 3);
            }
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
    }
}

/// The stream breaks off behind this many events.
fn cut(body: Body, events: usize) -> Body {
    use futures_util::StreamExt as _;
    let broken = futures_util::stream::once(async {
        // What was told before is sent when there is nothing more for the moment.
        tokio::task::yield_now().await;
        Err(axum::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)))
    });
    Body::from_stream(body.into_data_stream().take(events).chain(broken))
}

/// An error, which here has no envelope.
fn refused(error: &ApiError) -> Response {
    let message = error.errors.first().cloned().unwrap_or_default();
    rest::json_answer(error.status, json!({"code": error.status, "message": message}).to_string())
}

/// A request, taken apart.
struct Call {
    /// Below `/api/v1/`.
    path: String,
    method: String,
    body: Value,
    last: u64,
    action: Option<String>,
}

impl Call {
    /// The name for faults and records: `pint.files.post`, `pint.execs.io.get`, for instance.
    fn operation(&self) -> String {
        let parts: Vec<_> = self.path.split('/').collect();
        let noun = match parts.as_slice() {
            ["execs", _, "io"] => "execs.io".to_owned(),
            ["tasks", _, "actions"] => "tasks.actions".to_owned(),
            ["stream", what, ..] => format!("stream.{what}"),
            [noun, ..] => (*noun).to_owned(),
            [] => String::new(),
        };
        format!("pint.{noun}.{}", self.method.to_lowercase())
    }

    fn text(&self, field: &str) -> Result<String, ApiError> {
        let text = self.body[field].as_str().map(str::to_owned);
        text.ok_or_else(|| ApiError::new(400, format!("{field} is required")))
    }
}

async fn perform(caller: &Caller, call: &Call) -> Done {
    let (noun, rest) = call.path.split_once('/').unwrap_or((&call.path, ""));
    match (noun, rest) {
        ("files" | "file_stat" | "directories", path) => files::answer(caller, call, noun, path).await,
        ("execs", rest) => execs::answer(caller, call, rest).await,
        ("stream", "execs") => Ok(Answer::Events(events(execs::changes(caller.clone())))),
        ("stream", "ports") => Ok(Answer::Events(events(port_changes(caller.clone())))),
        ("ports", "") => data(json!({"ports": listening(caller).await})),
        ("setup-tasks", "") => {
            let state = caller.sandbox.agent.setup.lock().unwrap_or_else(PoisonError::into_inner);
            data(json!({"setupTasks": state.tasks(caller.sandbox.created)}))
        }
        ("tasks", rest) => execs::tasks(caller, call, rest).await,
        _ => Err(ApiError::not_found()),
    }
}

async fn listening(caller: &Caller) -> Value {
    let list = ports::list(caller).await;
    let show = |port: &Value| json!({"port": port["port"], "address": port["url"]});
    list.as_array().into_iter().flatten().map(show).collect()
}

fn port_changes(caller: Caller) -> impl Stream<Item = Value> {
    async_stream::stream! {
        let mut last = None;
        while caller.sandbox.running() {
            let now = listening(&caller).await;
            if last.as_ref() != Some(&now) {
                yield json!({"ports": now});
                last = Some(now);
            }
            tokio::time::sleep(PORTS).await;
        }
    }
}

/// Values as server-sent events.
fn events(values: impl Stream<Item = Value> + Send + 'static) -> Body {
    use futures_util::StreamExt as _;
    Body::from_stream(values.map(|value| Ok::<_, Infallible>(format!("data: {value}\n\n"))))
}
