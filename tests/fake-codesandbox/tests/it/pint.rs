//! The newer agent.

use pcoder_fake_codesandbox::{Agent as Kind, FakeCodeSandbox, Options, Task};
use serde_json::{Value, json};

use crate::client::{boot, fork, http, start};

struct Pint {
    url: String,
    token: String,
}

impl Pint {
    async fn fresh(fake: &FakeCodeSandbox) -> (String, Self) {
        let id = fork(fake).await;
        let started = boot(fake, &id, json!({})).await;
        assert_eq!((&started["use_pint"], &started["vm_agent_type"]), (&json!(true), &json!("pint")));
        let text = |field: &str| started[field].as_str().unwrap().to_owned();
        (id, Self { url: text("pint_url"), token: text("pint_token") })
    }

    async fn text(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let request = http().request(method.parse().unwrap(), format!("{}/api/v1/{path}", self.url));
        let request = request.bearer_auth(&self.token);
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, text) = self.text(method, path, body).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The events of a stream that ends.
    async fn events(&self, path: &str) -> Vec<Value> {
        let (_, text) = self.text("GET", path, Value::Null).await;
        let events = text.split_terminator("\n\n");
        events.map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
    }
}

fn options() -> Options {
    Options { agent: Kind::Pint, ..Options::default() }
}

#[tokio::test]
async fn files_are_text() {
    let fake = start(options()).await;
    let (_, pint) = Pint::fresh(&fake).await;
    let written = pint.send("POST", "files/a.txt", json!({"content": "grüße"})).await;
    assert_eq!(written, (201, json!({"path": "a.txt", "content": "grüße"})));
    assert_eq!(pint.send("GET", "files/a.txt", Value::Null).await.1["content"], "grüße");
    assert_eq!(pint.send("GET", "files/no", Value::Null).await, (404, json!({"code": 404, "message": "not found"})));
    let moved = pint.send("PATCH", "files/a.txt", json!({"action": "move", "destination": "/tmp/b.txt"})).await;
    assert_eq!((moved.0, &moved.1["to"]), (200, &json!("/tmp/b.txt")));
    let stat = pint.send("GET", "file_stat/%2Ftmp%2Fb.txt", Value::Null).await.1;
    assert_eq!((&stat["name"], &stat["size"], &stat["isDir"]), (&json!("b.txt"), &json!(7), &json!(false)));
    assert_eq!(pint.send("POST", "directories/d/e", Value::Null).await.0, 201);
    let list = pint.send("GET", "directories/d", Value::Null).await.1;
    assert_eq!((&list["files"][0]["name"], &list["files"][0]["isDir"]), (&json!("e"), &json!(true)));
    assert_eq!(pint.send("DELETE", "directories/d", Value::Null).await.0, 200);
    let made = pint.send("POST", "execs", json!({"command": "printf", "args": ["\\377"]})).await.1;
    let events = pint.events(&format!("execs/{}/io", made["id"].as_str().unwrap())).await;
    assert_eq!(events[0]["output"], "\u{fffd}");
}

#[tokio::test]
async fn a_command_has_its_streams_apart_and_its_code() {
    let fake = start(options()).await;
    let (_, pint) = Pint::fresh(&fake).await;
    let line = "read x; echo out $x; echo err >&2; exit 7";
    let (status, exec) = pint.send("POST", "execs", json!({"command": "bash", "args": ["-c", line]})).await;
    assert_eq!((status, &exec["status"], &exec["interactive"]), (201, &json!("RUNNING"), &json!(false)));
    let path = format!("execs/{}", exec["id"].as_str().unwrap());
    assert_eq!(pint.send("POST", &format!("{path}/io"), json!({"type": "stdin", "input": "in\n"})).await.0, 200);
    let events = pint.events(&format!("{path}/io")).await;
    let output = |kind: &str| {
        let of = events.iter().filter(|event| event["type"] == kind);
        of.map(|event| event["output"].as_str().unwrap()).collect::<String>()
    };
    assert_eq!((output("stdout").as_str(), output("stderr").as_str()), ("out in\n", "err\n"));
    assert_eq!(events.last().unwrap()["exitCode"], 7);
    let last = events.last().unwrap()["sequence"].as_u64().unwrap();
    let rest = pint.events(&format!("{path}/io?lastSequence={}", last - 1)).await;
    assert_eq!(rest, events[events.len() - 1..]);
    let ended = pint.send("GET", &path, Value::Null).await.1;
    assert_eq!((&ended["status"], &ended["exitCode"]), (&json!("EXITED"), &json!(7)));
    // The arguments are no line for a shell.
    let literal = pint.send("POST", "execs", json!({"command": "echo", "args": ["$HOME", "||", "x"]})).await.1;
    let events = pint.events(&format!("execs/{}/io", literal["id"].as_str().unwrap())).await;
    assert_eq!(events[0]["output"], "$HOME || x\n");
    assert_eq!(pint.send("DELETE", &path, Value::Null).await.0, 200);
    assert_eq!(pint.send("GET", &path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_command_waits_to_be_run_and_is_stopped() {
    let fake = start(options()).await;
    let (_, pint) = Pint::fresh(&fake).await;
    let body = json!({"command": "sleep", "args": ["1000"], "autorun": false});
    let exec = pint.send("POST", "execs", body).await.1;
    assert_eq!(exec["status"], "STOPPED");
    let path = format!("execs/{}", exec["id"].as_str().unwrap());
    assert_eq!(pint.send("PUT", &path, json!({"status": "running"})).await.1["status"], "RUNNING");
    let io = format!("{path}/io");
    let (events, deleted) = tokio::join!(pint.events(&io), pint.send("DELETE", &path, Value::Null));
    assert_eq!(deleted.0, 200);
    // The stream may have come too late to see it.
    assert!(events.is_empty() || events.last().unwrap()["exitCode"] == 137, "{events:?}");
}

#[tokio::test]
async fn output_that_breaks_off_goes_on_from_where_it_was() {
    let fake = start(Options { agent: Kind::PintAlone, ..options() }).await;
    let id = fork(&fake).await;
    let started = boot(&fake, &id, json!({})).await;
    assert_eq!((started.get("pitcher_url"), &started["vm_agent_type"]), (None, &json!("pint")));
    let text = |field: &str| started[field].as_str().unwrap().to_owned();
    let pint = Pint { url: text("pint_url"), token: text("pint_token") };
    let exec =
        pint.send("POST", "execs", json!({"command": "sh", "args": ["-c", "echo a; sleep 0.2; echo b"]})).await.1;
    let path = format!("execs/{}/io", exec["id"].as_str().unwrap());
    fake.faults().push("pint.execs.io.get=cut:1".parse().unwrap());
    let url = format!("{}/api/v1/{path}", pint.url);
    let mut cut = http().get(&url).bearer_auth(&pint.token).send().await.unwrap();
    let first = cut.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: "));
    assert!(cut.chunk().await.is_err());
    let rest = pint.events(&format!("{path}?lastSequence=1")).await;
    assert_eq!((&rest[0]["output"], &rest.last().unwrap()["exitCode"]), (&json!("b\n"), &json!(0)));
    // Hibernating ends what streams.
    let exec = pint.send("POST", "execs", json!({"command": "sleep", "args": ["1000"]})).await.1;
    let path = format!("execs/{}/io", exec["id"].as_str().unwrap());
    let hibernated = http().post(format!("{}/vm/{id}/hibernate", fake.base_url())).bearer_auth("csb_v1_fake").send();
    let (events, hibernated) = tokio::join!(pint.text("GET", &path, Value::Null), hibernated);
    // The stream may have come too late to see it.
    assert!(matches!((events.0, events.1.as_str()), (200, "") | (401, _)), "{events:?}");
    assert_eq!(hibernated.unwrap().status(), 200);
}

#[tokio::test]
async fn changes_are_streamed() {
    use futures_util::StreamExt as _;
    let fake =
        start(Options { tasks: vec![Task { name: "dev".into(), command: "exit 3".into(), port: None }], ..options() })
            .await;
    let (_, pint) = Pint::fresh(&fake).await;
    assert_eq!(pint.send("GET", "setup-tasks", Value::Null).await.1["setupTasks"][0]["status"], "FINISHED");
    assert_eq!(pint.send("GET", "ports", Value::Null).await.1, json!({"ports": []}));
    let stream = http().get(format!("{}/api/v1/stream/execs?token={}", pint.url, pint.token)).send().await.unwrap();
    let mut stream = stream.bytes_stream();
    let action = "tasks/dev/actions?actionType=start";
    assert_eq!(pint.send("PATCH", action, Value::Null).await.1["name"], "dev");
    let mut seen = String::new();
    while !seen.contains("\"exitCode\":3") {
        seen += std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap();
    }
    assert!(seen.contains("RUNNING") && seen.contains("EXITED"), "{seen}");
    assert_eq!(pint.send("GET", "tasks", Value::Null).await.1["tasks"][0]["status"], "FINISHED");
}

#[tokio::test]
async fn its_faults_and_its_tokens_are_checked() {
    let fake = start(options()).await;
    let (id, mut pint) = Pint::fresh(&fake).await;
    fake.faults().push("pint.files.post=503,retry_after=1".parse().unwrap());
    let refused = pint.send("POST", "files/a", json!({"content": "x"})).await;
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!(503)));
    assert_eq!(pint.send("GET", "files/a", Value::Null).await.0, 404);
    fake.faults().push("pint.files.post=truncated".parse().unwrap());
    let (_, text) = pint.text("POST", "files/a", json!({"content": "x"})).await;
    assert!(serde_json::from_str::<Value>(&text).is_err());
    assert_eq!(fake.requests().last().unwrap().operation, "pint.files.post");
    std::mem::take(&mut pint.token);
    assert_eq!(pint.send("GET", "files/a", Value::Null).await.0, 401);
    // The other kind of sandbox has no such agent.
    let plain = start(Options::default()).await;
    let url = format!("http://{}/pint/{id}/api/v1/ports", plain.agents_address());
    assert_eq!(http().get(url).send().await.unwrap().status(), 404);
}
