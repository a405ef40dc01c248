//! As much HTTP as these tests need.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use pcoder_model_server::{ModelServer, Options};

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// Whether the body ended as HTTP says, and not with the connection.
    pub(crate) complete: bool,
}

pub(crate) async fn start() -> ModelServer {
    ModelServer::start(Options::default()).await.unwrap()
}

/// Sends a request; the answer can be read later.
pub(crate) async fn send(server: &ModelServer, request: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

pub(crate) async fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A cut connection may end in an error; what came before it counts.
    stream.read_to_end(&mut bytes).await.unwrap_or(0);
    let text = String::from_utf8(bytes).unwrap();
    let (head, rest) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let (body, complete) =
        if head.contains("transfer-encoding: chunked") { dechunk(rest) } else { (rest.to_owned(), true) };
    Answer { status, head: head.to_owned(), body, complete }
}

fn dechunk(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    (body, false)
}

pub(crate) async fn post(server: &ModelServer, path: &str, body: &Value) -> Answer {
    read(send(server, &format!("POST {path}"), "", &body.to_string()).await).await
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The data of the events; that each is named as its type says is checked on the way.
    pub(crate) fn events(&self) -> Vec<Value> {
        let events = self.body.split_terminator("\n\n");
        events
            .map(|event| {
                let (name, data) = event.split_once('\n').expect("two lines");
                let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
                data
            })
            .collect()
    }
}

/// The fields of these events, joined.
pub(crate) fn joined(events: &[Value], kind: &str, pointer: &str) -> String {
    let events = events.iter().filter(|event| event["type"] == kind);
    events.filter_map(|event| event.pointer(pointer)?.as_str()).collect()
}

pub(crate) fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    types.dedup();
    types
}
