//! What faults do to answers, and the requests of tests in other languages.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{json_answer, no_content};
use crate::fault::{Fault, FaultKind};
use crate::server::Shared;
use crate::world::World;

/// The connection is to close.
#[derive(Debug, thiserror::Error)]
#[error("a fault closes the connection")]
pub(crate) struct Dropped;

/// The answer of a fault that happens instead of the operation.
pub(crate) fn instead(world: &World, what: &FaultKind) -> Option<Response> {
    let FaultKind::Status { status, retry_after, retry_after_date, body, .. } = what else { return None };
    let code = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let detail = if *status == 422 {
        json!([{ "loc": ["body"], "msg": "Value error, a fault", "type": "value_error" }])
    } else {
        json!(code.canonical_reason().unwrap_or("A fault"))
    };
    let mut response = json_answer(code, &json!({ "detail": detail }));
    if let Some(body) = body {
        response.headers_mut().remove(header::CONTENT_TYPE);
        *response.body_mut() = Body::from(body.clone());
    }
    let after = match (retry_after, retry_after_date) {
        (Some(seconds), _) => Some(HeaderValue::from(*seconds)),
        (None, Some(seconds)) => {
            let date = httpdate::fmt_http_date(world.clock.now() + Duration::from_secs(*seconds));
            HeaderValue::from_str(&date).ok()
        }
        (None, None) => None,
    };
    if let Some(after) = after {
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    Some(response)
}

/// What a fault makes of an answer.
pub(crate) async fn spoil(world: &World, what: &FaultKind, response: Response) -> Result<Response, Dropped> {
    let streams = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    match what {
        FaultKind::DropAfter | FaultKind::DropMidway if streams => {
            let (head, body) = response.into_parts();
            let first = body.into_data_stream().take(1);
            Ok(Response::from_parts(head, Body::from_stream(first.chain(broken()))))
        }
        FaultKind::DropAfter => Err(Dropped),
        FaultKind::Status { .. } => instead(world, what).ok_or(Dropped),
        FaultKind::Slow { .. } | FaultKind::DropBefore => Ok(response),
        FaultKind::DropMidway => {
            let (mut head, bytes) = whole(response).await?;
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            let half = futures_util::stream::iter([Ok(bytes.slice(..bytes.len() / 2))]);
            Ok(Response::from_parts(head, Body::from_stream(half.chain(broken()))))
        }
        FaultKind::Truncated => {
            let (head, bytes) = whole(response).await?;
            Ok(Response::from_parts(head, Body::from(bytes.slice(..bytes.len() / 2))))
        }
        FaultKind::NotJson => {
            let (head, _) = whole(response).await?;
            Ok(Response::from_parts(head, Body::from("<html><body>This is no JSON.</body></html>\n")))
        }
        FaultKind::OtherInstance => edit(response, |value| swap_instance(world, value)).await,
        FaultKind::UnknownStatus { status } => {
            edit(response, |value| {
                each_object(value, &mut |object| {
                    if let Some(field) = object.get_mut("status") {
                        *field = json!(status);
                    }
                })
            })
            .await
        }
        FaultKind::Missing { fields } => {
            edit(response, |value| {
                each_object(value, &mut |object| {
                    object.retain(|name, _| !fields.contains(name));
                })
            })
            .await
        }
        FaultKind::Null { fields } => {
            edit(response, |value| {
                each_object(value, &mut |object| {
                    for (name, field) in object.iter_mut() {
                        if fields.contains(name) {
                            *field = Value::Null;
                        }
                    }
                })
            })
            .await
        }
    }
}

fn broken() -> impl futures_util::Stream<Item = Result<Bytes, axum::Error>> + Send {
    let error = axum::Error::new(io::Error::other(Dropped));
    futures_util::stream::iter([Err(error)])
}

async fn whole(response: Response) -> Result<(axum::http::response::Parts, Bytes), Dropped> {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|_| Dropped)?.to_bytes();
    Ok((head, bytes))
}

/// An answer that is no JSON, such as an empty one, stays.
async fn edit(response: Response, change: impl FnOnce(&mut Value)) -> Result<Response, Dropped> {
    let (head, bytes) = whole(response).await?;
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(Response::from_parts(head, Body::from(bytes)));
    };
    change(&mut value);
    Ok(Response::from_parts(head, Body::from(value.to_string())))
}

type Object = serde_json::Map<String, Value>;

fn each_object(value: &mut Value, change: &mut impl FnMut(&mut Object)) {
    match value {
        Value::Object(object) => {
            change(object);
            for field in object.values_mut() {
                each_object(field, change);
            }
        }
        Value::Array(items) => {
            for item in items {
                each_object(item, change);
            }
        }
        _ => {}
    }
}

fn swap_instance(world: &World, value: &mut Value) {
    each_object(value, &mut |object| {
        if object.get("object").and_then(Value::as_str) != Some("instance") {
            return;
        }
        let own = object.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let other = world.state().instances.values().find(|other| other.id != own).map(|other| other.show());
        match other {
            Some(Value::Object(other)) => *object = other,
            _ => drop(object.insert("id".to_owned(), json!("morphvm_0therone"))),
        }
    });
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Box<Fault>),
    More(Vec<Fault>),
}

#[derive(Deserialize)]
struct Advance {
    advance: f64,
}

/// Answers a request below `/__fake/`.
pub(crate) fn control(shared: &Shared, method: &Method, what: &str, body: &[u8]) -> Response {
    let wrong = |message: String| json_answer(StatusCode::BAD_REQUEST, &json!({ "detail": message }));
    match (what, method.as_str()) {
        ("requests", "GET") => {
            let requests: Vec<Value> = shared.seen().iter().map(crate::server::Seen::show).collect();
            json_answer(StatusCode::OK, &Value::Array(requests))
        }
        ("requests", "DELETE") => {
            shared.seen().clear();
            no_content()
        }
        ("faults", "GET") => json_answer(StatusCode::OK, &json!(shared.faults.left())),
        ("faults", "DELETE") => {
            shared.faults.clear();
            no_content()
        }
        ("faults", "POST") => {
            let faults = match serde_json::from_slice(body) {
                Ok(OneOrMore::One(fault)) => vec![*fault],
                Ok(OneOrMore::More(faults)) => faults,
                Err(_) => {
                    // The error of an alternative says nothing; the one of the usual form does.
                    let error = serde_json::from_slice::<Fault>(body).err().map(|error| error.to_string());
                    return wrong(error.unwrap_or_default());
                }
            };
            for fault in faults {
                if let Err(error) = shared.faults.push(fault) {
                    return wrong(error.to_string());
                }
            }
            no_content()
        }
        ("clock", "POST") => {
            match serde_json::from_slice(body).map(|Advance { advance }| Duration::try_from_secs_f64(advance)) {
                Ok(Ok(by)) => {
                    shared.world.clock.advance(by);
                    shared.world.sweep();
                    no_content()
                }
                _ => wrong("`advance` is to be a number of seconds".to_owned()),
            }
        }
        _ => json_answer(StatusCode::NOT_FOUND, &json!({ "detail": "Not Found" })),
    }
}
