//! The REST API.

mod answers;
mod operations;
mod route;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

pub(crate) use self::answers::{dropped, error_answer, is_dropped, json_answer};
use self::operations::perform;
use self::route::Route;
use crate::cloud::{ApiError, Cloud};
use crate::fault::{Limit, What};
use crate::record::Recorded;

/// One request, as operations see it.
pub(crate) struct Call {
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Value,
    pub(crate) authorized: bool,
}

impl Call {
    /// A field of the body that must be there.
    fn text(&self, field: &str) -> Result<&str, ApiError> {
        self.body[field].as_str().ok_or_else(|| ApiError::invalid(field, "can't be blank"))
    }
}

/// Answers a request to the REST API.
pub(crate) async fn answer(
    State(cloud): State<Arc<Cloud>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Infallible> {
    let route = Route::of(&method, uri.path());
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorized = text(header::AUTHORIZATION).strip_prefix("Bearer ") == Some(cloud.options.key.as_str());
    let parsed = if body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&body).ok() };
    let operation = route.as_ref().map_or("unknown", Route::name);
    let index = cloud.records.request(Recorded {
        operation: operation.to_owned(),
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        authorized,
        user_agent: text(header::USER_AGENT).to_owned(),
        body: parsed.clone().filter(|body| !body.is_null()),
        status: None,
    });
    cloud.used().requests += 1;
    let query = uri.query().map(form).unwrap_or_default();
    let call = parsed.map(|body| Call { query, body, authorized });
    let mut response = match route {
        Some(route) => handle(&cloud, &route, call, authorized).await,
        None => error_answer(&ApiError::not_found()),
    };
    limits(&cloud, response.headers_mut());
    if !answers::is_dropped(&response) {
        cloud.records.answered(index, response.status().as_u16());
    }
    Ok(response)
}

async fn handle(cloud: &Arc<Cloud>, route: &Route, call: Option<Call>, authorized: bool) -> Response {
    let fault = cloud.faults.take(route.name());
    match &fault {
        Some(What::Status { status, retry_after, limit, errors, html }) => {
            return on_demand(cloud, *status, *retry_after, *limit, errors.clone(), *html);
        }
        Some(What::DropBefore) => return dropped(),
        Some(What::Silent) => return silence(cloud).await,
        Some(What::Slow { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        _ => {}
    }
    let Some(call) = call else { return error_answer(&ApiError::new(400, "The body is no JSON")) };
    if !authorized && !route.open() {
        return error_answer(&ApiError::of_status(401));
    }
    if cloud.exhausted(Limit::Requests) {
        return error_answer(&ApiError::of_status(429));
    }
    if let Some(scope) = route.scope()
        && !cloud.options.scopes.iter().any(|has| has == scope)
    {
        return error_answer(&ApiError::new(403, format!("The token lacks the scope {scope}")));
    }
    let done = perform(cloud, route, &call).await;
    let (status, mut data) = match done {
        Ok(done) => done,
        Err(error) => return error_answer(&error),
    };
    match &fault {
        Some(What::DropAfter) => return dropped(),
        Some(What::OtherSandbox) => other(cloud, route, &mut data),
        Some(What::BootupType { value }) => {
            if let Some(bootup) = data.get_mut("bootup_type") {
                *bootup = value.as_str().into();
            }
        }
        Some(What::Missing { field }) => edit(&mut data, field, None),
        Some(What::Null { field }) => edit(&mut data, field, Some(Value::Null)),
        _ => {}
    }
    let body = if matches!(route, Route::Info) { data } else { json!({"success": true, "data": data}) };
    let mut body = body.to_string();
    if fault == Some(What::Truncated) {
        let mut end = body.len() * 2 / 3;
        while !body.is_char_boundary(end) {
            end -= 1;
        }
        body.truncate(end);
    }
    json_answer(status, body)
}

/// The answer that a fault asks for.
pub(crate) fn on_demand(
    cloud: &Cloud,
    status: u16,
    retry_after: Option<u64>,
    limit: Option<Limit>,
    errors: Option<Vec<Value>>,
    html: bool,
) -> Response {
    let mut response = if html {
        let page = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>");
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        (status, [(header::CONTENT_TYPE, "text/html")], page).into_response()
    } else {
        let mut error = ApiError::of_status(status);
        error.errors = errors.unwrap_or(error.errors);
        error_answer(&error)
    };
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if status == 429 {
        let names = match limit.unwrap_or(Limit::Requests) {
            Limit::Requests => ("x-csb-rate-hourly-remaining", "x-csb-rate-hourly-used", cloud.options.requests_hourly),
            Limit::Sandboxes => {
                ("x-csb-sandbox-hourly-remaining", "x-csb-sandbox-hourly-used", cloud.options.sandboxes_hourly)
            }
            Limit::Vms => ("x-csb-vms-remaining", "x-csb-vms-used", cloud.options.concurrent_vms as u64),
        };
        headers.insert(names.0, 0.into());
        headers.insert(names.1, names.2.into());
    }
    response
}

/// Never answers, until the fake stops.
pub(crate) async fn silence(cloud: &Cloud) -> Response {
    cloud.stop.cancelled().await;
    dropped()
}

/// The headers of budgets, which every answer has. What a fault says stays.
fn limits(cloud: &Cloud, headers: &mut HeaderMap) {
    let used = *cloud.used();
    let options = &cloud.options;
    let running = cloud.running() as u64;
    let all = [
        ("x-csb-rate-hourly-remaining", options.requests_hourly.saturating_sub(used.requests)),
        ("x-csb-rate-hourly-used", used.requests),
        ("x-csb-sandbox-hourly-remaining", options.sandboxes_hourly.saturating_sub(used.sandboxes)),
        ("x-csb-sandbox-hourly-used", used.sandboxes),
        ("x-csb-vms-remaining", (options.concurrent_vms as u64).saturating_sub(running)),
        ("x-csb-vms-used", running),
    ];
    for (name, value) in all {
        headers.entry(name).or_insert(value.into());
    }
    let reset = cloud.resets.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if let Ok(reset) = HeaderValue::try_from(reset) {
        for name in ["x-csb-rate-hourly-reset", "x-csb-sandbox-hourly-reset"] {
            headers.entry(name).or_insert(reset.clone());
        }
    }
}

/// Puts another sandbox's data in the place of the right one's.
fn other(cloud: &Cloud, route: &Route, data: &mut Value) {
    let Some(other) = route.sandbox().and_then(|id| cloud.other(id)) else { return };
    let fields = [
        ("id", other.id.clone()),
        ("alias", other.id.clone()),
        ("sandbox_id", other.id.clone()),
        ("pitcher_url", cloud.pitcher_url(&other)),
        ("pint_url", format!("http://{}/pint/{}", cloud.agents, other.id)),
    ];
    for (field, value) in fields {
        if let Some(at) = data.get_mut(field) {
            *at = value.into();
        }
    }
}

/// Takes a field out, or puts another value into it; dots lead into objects.
pub(crate) fn edit(data: &mut Value, field: &str, to: Option<Value>) {
    let (path, last) = field.rsplit_once('.').map_or((None, field), |(path, last)| (Some(path), last));
    let mut at = data;
    for part in path.iter().flat_map(|path| path.split('.')) {
        let Some(next) = at.get_mut(part) else { return };
        at = next;
    }
    let Some(fields) = at.as_object_mut() else { return };
    match to {
        None => drop(fields.remove(last)),
        Some(to) => {
            if let Some(value) = fields.get_mut(last) {
                *value = to;
            }
        }
    }
}

/// The pairs of a query.
pub(crate) fn form(query: &str) -> Vec<(String, String)> {
    let uri = Uri::builder().path_and_query(format!("/?{query}")).build().unwrap_or_default();
    axum::extract::Query::try_from_uri(&uri).map(|axum::extract::Query(pairs)| pairs).unwrap_or_default()
}

/// What the service says of a path that is none of the API's.
pub(crate) fn nowhere() -> Response {
    (StatusCode::NOT_FOUND, Body::from("Not found")).into_response()
}
