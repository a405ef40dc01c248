//! Plain clients: as much of HTTP, WebSockets and msgpack as these tests need.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use pcoder_fake_codesandbox::{FakeCodeSandbox, Options};
use rmpv::Value as Packed;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn start(options: Options) -> FakeCodeSandbox {
    FakeCodeSandbox::start(options).await.unwrap()
}

pub(crate) fn http() -> reqwest::Client {
    // A second test finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Sends a request with the right key; the status and the body.
pub(crate) async fn send(fake: &FakeCodeSandbox, method: &str, path: &str, body: Value) -> (u16, Value) {
    let response = response(fake, method, path, body).await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

pub(crate) async fn response(
    fake: &FakeCodeSandbox,
    method: &str,
    path: &str,
    body: Value,
) -> reqwest::Result<reqwest::Response> {
    let request = http().request(method.parse().unwrap(), format!("{}{path}", fake.base_url()));
    let request = request.bearer_auth("csb_v1_fake").timeout(PATIENCE);
    let request = if body.is_null() { request } else { request.body(body.to_string()) };
    request.send().await
}

/// Forks the default template; the sandbox's id.
pub(crate) async fn fork(fake: &FakeCodeSandbox) -> String {
    let (status, body) = send(fake, "POST", "/sandbox/pcz35m/fork", json!({"tags": ["sdk"]})).await;
    assert_eq!(status, 201, "{body}");
    body["data"]["id"].as_str().unwrap().to_owned()
}

/// Starts a sandbox; the answer's data.
pub(crate) async fn boot(fake: &FakeCodeSandbox, id: &str, options: Value) -> Value {
    let (status, body) = send(fake, "POST", &format!("/vm/{id}/start"), options).await;
    assert_eq!(status, 200, "{body}");
    body["data"].clone()
}

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: WebSocketStream<TcpStream>,
    next: u64,
    /// What came before it was asked for.
    pub(crate) notifications: VecDeque<(String, Value)>,
    /// The ids of replies in their order.
    pub(crate) replied: Vec<u64>,
    replies: Vec<Value>,
}

/// What an agent says of a request that it refuses.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) errno: Option<i64>,
}

impl Agent {
    /// A new sandbox with a connection that has joined.
    pub(crate) async fn fresh(fake: &FakeCodeSandbox) -> (String, Self) {
        let id = fork(fake).await;
        let started = boot(fake, &id, json!({})).await;
        let agent = Self::join(&started).await;
        (id, agent)
    }

    /// Joins with what a start or a session answered.
    pub(crate) async fn join(started: &Value) -> Self {
        let mut agent = Self::connect(started).await.unwrap();
        let result = agent.call("client/join", join()).await.unwrap();
        assert_eq!(result["workspacePath"], "/project/workspace");
        agent
    }

    pub(crate) async fn connect(started: &Value) -> Result<Self, String> {
        let (url, token) = (started["pitcher_url"].as_str().unwrap(), started["pitcher_token"].as_str().unwrap());
        let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let stream = TcpStream::connect(host).await.unwrap();
        let connected = tokio_tungstenite::client_async(format!("{url}/?token={token}"), stream).await;
        let (socket, _) = connected.map_err(|error| error.to_string())?;
        Ok(Self { socket, next: 0, notifications: VecDeque::new(), replied: Vec::new(), replies: Vec::new() })
    }

    pub(crate) async fn post(&mut self, method: &str, params: Value) -> u64 {
        self.post_packed(method, rmpv::ext::to_value(params).unwrap()).await
    }

    /// Sends a request; its id.
    pub(crate) async fn post_packed(&mut self, method: &str, params: Packed) -> u64 {
        let id = self.next;
        self.next += 1;
        let fields = [("method", method.into()), ("params", params), ("id", id.into())];
        let message = Packed::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect());
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &message).unwrap();
        self.socket.send(Message::binary(bytes)).await.unwrap();
        id
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next message, with bytes as lists of numbers; the end as its code, 1006 for one without a word.
    pub(crate) async fn next(&mut self) -> Result<Value, u16> {
        loop {
            match tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message in time") {
                Some(Ok(Message::Binary(bytes))) => {
                    let packed = rmpv::decode::read_value(&mut &bytes[..]).map_err(|_| 0u16)?;
                    return Ok(unpacked(&packed));
                }
                Some(Ok(Message::Text(text))) => return Ok(json!({"text": text.as_str()})),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    async fn take_in(&mut self) -> Result<(), u16> {
        let message = self.next().await?;
        match message.get("id").and_then(Value::as_u64) {
            Some(id) => {
                self.replied.push(id);
                self.replies.push(message);
            }
            None => {
                let method = message["method"].as_str().expect("a notification").to_owned();
                self.notifications.push_back((method, message["params"].clone()));
            }
        }
        Ok(())
    }

    /// The reply to a request, or how the connection ended.
    pub(crate) async fn reply(&mut self, id: u64) -> Result<Value, u16> {
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply["id"] == id) {
                return Ok(self.replies.remove(at));
            }
            self.take_in().await?;
        }
    }

    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value, Refusal> {
        let id = self.post(method, params).await;
        self.result(id).await
    }

    pub(crate) async fn result(&mut self, id: u64) -> Result<Value, Refusal> {
        let reply = self.reply(id).await.expect("a connection");
        if reply["status"] == 0 {
            return Ok(reply["result"].clone());
        }
        let error = &reply["error"];
        let message = error["message"].as_str().unwrap().to_owned();
        Err(Refusal { code: error["code"].as_i64().unwrap(), message, errno: error["data"]["errno"].as_i64() })
    }

    /// Waits for a notification that fits; others stay.
    pub(crate) async fn wait(&mut self, method: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let at = self.notifications.iter().position(|(name, params)| name == method && fits(params));
            if let Some(at) = at {
                return self.notifications.remove(at).unwrap().1;
            }
            self.take_in().await.expect("a connection");
        }
    }

    pub(crate) async fn write(&mut self, path: &str, content: &[u8]) -> Result<Value, Refusal> {
        let fields = [("path", path.into()), ("content", Packed::Binary(content.to_vec()))];
        let params = Packed::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect());
        let id = self.post_packed("fs/writeFile", params).await;
        self.result(id).await
    }

    pub(crate) async fn read(&mut self, path: &str) -> Result<Vec<u8>, Refusal> {
        let result = self.call("fs/readFile", json!({"path": path})).await?;
        Ok(serde_json::from_value(result["content"].clone()).unwrap())
    }

    /// Runs a line to its end; what it printed and its code.
    pub(crate) async fn run(&mut self, line: &str) -> (String, i64) {
        let shell = self.call("shell/create", json!({"command": line, "isSystemShell": true})).await.unwrap();
        let id = shell["shellId"].clone();
        let exit = self.wait("shell/exit", |params| params["shellId"] == id).await;
        (self.output(&id), exit["exitCode"].as_i64().unwrap())
    }

    /// What a shell printed, as far as it was received.
    pub(crate) fn output(&self, shell: &Value) -> String {
        let outs =
            self.notifications.iter().filter(|(name, params)| name == "shell/out" && params["shellId"] == *shell);
        outs.map(|(_, params)| params["out"].as_str().unwrap()).collect()
    }
}

pub(crate) fn join() -> Value {
    json!({"clientInfo": {"protocolVersion": "0.367.10", "appId": "sdk"}, "asyncProgress": true,
        "subscriptions": {"shell": {"status": true}}})
}

fn unpacked(packed: &Packed) -> Value {
    match packed {
        Packed::Binary(bytes) => json!(bytes),
        Packed::Map(fields) => {
            fields.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), unpacked(value))).collect::<Value>()
        }
        Packed::Array(values) => values.iter().map(unpacked).collect(),
        other => rmpv::ext::from_value(other.clone()).unwrap(),
    }
}
