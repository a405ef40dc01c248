//! A client of HTTP that hides nothing.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pcoder_fake_morph::{FakeMorph, Options};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const KEY: &str = "secret-key";
pub(crate) const SNAPSHOT: &str = "snapshot_c1p8b6c2";
/// Longer than anything takes; only a failure waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) async fn fake() -> FakeMorph {
    fake_with(Options::default()).await
}

pub(crate) async fn fake_with(options: Options) -> FakeMorph {
    FakeMorph::start(Options { key: KEY.to_owned(), ..options }).await.expect("a fake")
}

/// Sends a request to `path`, which begins with a slash, of `base`.
pub(crate) async fn send(base: &str, method: &str, path: &str, key: &str, body: &str) -> Result<Answer, hyper::Error> {
    let response = open(base, method, path, key, body).await?;
    let (head, body) = response.into_parts();
    let body = timeout(LONG, body.collect()).await.expect("a body in time")?.to_bytes().to_vec();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// The same, with the body still to come.
pub(crate) async fn open(
    base: &str,
    method: &str,
    path: &str,
    key: &str,
    body: &str,
) -> Result<axum::http::Response<Incoming>, hyper::Error> {
    let address = base.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let target = format!("{}{path}", base.trim_start_matches("http://").trim_start_matches(&address));
    let stream = TcpStream::connect(&address).await.expect("the fake listens");
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", address)
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    timeout(LONG, sender.send_request(request)).await.expect("an answer in time")
}

pub(crate) async fn call(fake: &FakeMorph, method: &str, path: &str, body: &str) -> Answer {
    send(&fake.base_url(), method, path, KEY, body).await.expect("an answer")
}

/// Calls what is to work.
pub(crate) async fn good(fake: &FakeMorph, method: &str, path: &str, body: &str) -> Value {
    let answer = call(fake, method, path, body).await;
    assert_eq!(answer.status, StatusCode::OK.as_u16(), "{method} {path}: {}", answer.text());
    answer.json()
}

pub(crate) async fn post(fake: &FakeMorph, path: &str, body: &str) -> Value {
    good(fake, "POST", path, body).await
}

pub(crate) async fn get(fake: &FakeMorph, path: &str) -> Value {
    good(fake, "GET", path, "").await
}

/// Starts an instance, which is ready; its id.
pub(crate) async fn start(fake: &FakeMorph) -> String {
    let instance = post(fake, &format!("/instance?snapshot_id={SNAPSHOT}"), "").await;
    let id = instance["id"].as_str().unwrap().to_owned();
    while get(fake, &format!("/instance/{id}")).await["status"] != "ready" {}
    id
}

/// Runs a line; what it answered.
pub(crate) async fn exec(fake: &FakeMorph, id: &str, line: &str) -> Value {
    post(fake, &format!("/instance/{id}/exec"), &serde_json::json!({ "command": [line] }).to_string()).await
}

pub(crate) async fn output(fake: &FakeMorph, id: &str, line: &str) -> String {
    let done = exec(fake, id, line).await;
    assert_eq!(done["exit_code"], 0, "{line}: {done}");
    done["stdout"].as_str().unwrap().to_owned()
}
