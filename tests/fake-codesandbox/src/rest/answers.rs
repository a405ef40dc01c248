//! Answers, in the envelope of the REST API.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::cloud::ApiError;

/// The mark of a response that is not sent: its connection is cut.
#[derive(Clone, Copy)]
struct Dropped;

/// No answer: the connection is cut.
pub(crate) fn dropped() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Dropped);
    response
}

pub(crate) fn is_dropped(response: &Response) -> bool {
    response.extensions().get::<Dropped>().is_some()
}

pub(crate) fn json_answer(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], Body::from(body)).into_response()
}

pub(crate) fn error_answer(error: &ApiError) -> Response {
    json_answer(error.status, json!({"success": false, "errors": error.errors}).to_string())
}
