//! Ports of instances from the outside: requests whose `Host` is `ID-PORT.SUFFIX`, on either listener.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpStream;

use crate::cloud::{ApiError, Cloud};
use crate::rest;
use crate::sandbox::{Phase, Sandbox, StartOptions};

/// The sandbox and the port that a request asks for by its `Host`.
pub(crate) fn asked_for(cloud: &Cloud, headers: &HeaderMap) -> Option<(String, u16)> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let host = host.split(':').next()?;
    let (id, port) = host.strip_suffix(&cloud.options.host_suffix)?.strip_suffix('.')?.rsplit_once('-')?;
    Some((id.to_owned(), port.parse().ok()?))
}

/// Hands the request on to the instance, if who asks may see it.
pub(crate) async fn answer(
    cloud: &Arc<Cloud>,
    (id, port): (String, u16),
    request: Request<hyper::body::Incoming>,
) -> Response {
    let Some(sandbox) = cloud.get(&id) else { return rest::error_answer(&ApiError::not_found()) };
    if !allowed(&sandbox, &request) {
        return rest::error_answer(&ApiError::of_status(401));
    }
    let (phase, wake) = {
        let facts = sandbox.facts();
        (facts.phase, facts.wake_on_http)
    };
    if phase != Phase::Running {
        if !wake {
            return rest::error_answer(&ApiError::not_found());
        }
        if let Err(error) = cloud.start(&sandbox, &StartOptions::default()).await {
            return rest::error_answer(&error);
        }
    }
    sandbox.touch();
    match forward(port, request).await {
        Some(response) => response,
        None => (StatusCode::BAD_GATEWAY, "Nothing listens on this port").into_response(),
    }
}

async fn forward(port: u16, request: Request<hyper::body::Incoming>) -> Option<Response> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the answer.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.ok()?;
    Some(response.map(Body::new))
}

/// Whether the sandbox's ports are for everybody, or a valid token came along.
fn allowed(sandbox: &Sandbox, request: &Request<hyper::body::Incoming>) -> bool {
    let mut facts = sandbox.facts();
    if !facts.private_preview {
        return true;
    }
    let query = rest::form(request.uri().query().unwrap_or_default());
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let cookies = header("cookie").unwrap_or_default().split(';');
    let cookie = cookies.filter_map(|cookie| cookie.trim().strip_prefix("csb_preview_token=")).next();
    let query = query.iter().find(|(key, _)| key == "preview_token").map(|(_, value)| value.as_str());
    let given = query.or(header("csb-preview-token")).or(cookie);
    let token = facts.preview_tokens.iter_mut().find(|token| token.valid() && Some(token.token.as_str()) == given);
    let Some(token) = token else { return false };
    token.last_used = Some(Timestamp::now());
    true
}
