//! The other end of the pipe.

use std::time::Duration;

use pcoder_acp::{Client, Error, Options, Session};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines};

/// Longer than anything here takes; a test that reaches it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// An agent whose every line a test reads and writes.
pub(crate) struct Agent {
    input: Lines<BufReader<DuplexStream>>,
    output: DuplexStream,
}

/// A pipe: what the client takes (the agent's output, then its input), and the agent.
pub(crate) fn pipe() -> (DuplexStream, DuplexStream, Agent) {
    let (client_reads, output) = tokio::io::duplex(1 << 16);
    let (client_writes, input) = tokio::io::duplex(1 << 16);
    let input = BufReader::new(input).lines();
    (client_reads, client_writes, Agent { input, output })
}

pub(crate) fn options() -> Options {
    Options::new("test", "1")
}

/// A client that is connected, and its agent.
pub(crate) async fn connected(options: Options) -> (Client, Agent) {
    let (reads, writes, mut agent) = pipe();
    let (client, ()) = tokio::join!(Client::connect(reads, writes, options, LIMIT), async {
        let request = agent.expect("initialize").await;
        agent.answer(&request, json!({ "protocolVersion": 1 })).await;
    });
    (client.unwrap(), agent)
}

/// A client with a session named `s`.
pub(crate) async fn with_session(options: Options) -> (Client, Session, Agent) {
    let (client, mut agent) = connected(options).await;
    let (session, ()) = tokio::join!(client.new_session("/p", LIMIT), async {
        let request = agent.expect("session/new").await;
        assert_eq!(request["params"]["cwd"], "/p");
        agent.answer(&request, json!({ "sessionId": "s" })).await;
    });
    (client, session.unwrap(), agent)
}

impl Agent {
    /// The next line from the client, or `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(LIMIT, self.input.next_line());
        let line = line.await.expect("a line from the client").unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The next message, which must be a call of this method.
    pub(crate) async fn expect(&mut self, method: &str) -> Value {
        let message = self.read().await.expect("a message");
        assert_eq!(message["method"], method, "{message}");
        message
    }

    pub(crate) async fn line(&mut self, line: &str) {
        self.output.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.line(&message.to_string()).await;
    }

    pub(crate) async fn answer(&mut self, request: &Value, result: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
    }

    pub(crate) async fn refuse(&mut self, request: &Value, error: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": request["id"], "error": error })).await;
    }

    pub(crate) async fn update(&mut self, session: &str, update: Value) {
        let params = json!({ "sessionId": session, "update": update });
        self.send(json!({ "jsonrpc": "2.0", "method": "session/update", "params": params })).await;
    }

    pub(crate) async fn say(&mut self, text: &str) {
        let content = json!({ "type": "text", "text": text });
        self.update("s", json!({ "sessionUpdate": "agent_message_chunk", "content": content })).await;
    }

    /// Asks for leave, with the options of the newest Codex adapter.
    pub(crate) async fn ask(&mut self, id: u64) {
        let options = json!([
            { "optionId": "accept_execpolicy_amendment", "name": "Always", "kind": "allow_always" },
            { "optionId": "later", "name": "Later", "kind": "invented_later" },
            { "optionId": "allow-with-fries", "name": "Once", "kind": "allow_once" },
            { "optionId": "cancel", "name": "No", "kind": "reject_once" },
        ]);
        let params = json!({ "sessionId": "s", "toolCall": { "toolCallId": "t", "title": "rm" }, "options": options });
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": params }))
            .await;
    }

    /// Closes the output: to the client, the agent is dead.
    pub(crate) fn die(self) -> Lines<BufReader<DuplexStream>> {
        self.input
    }
}

/// The reason of an error that says that the connection is over.
pub(crate) fn reason(error: Error) -> pcoder_acp::Closed {
    match error {
        Error::Closed { reason, .. } => reason,
        other => panic!("not closed: {other:?}"),
    }
}
