//! Faults on demand.

use std::time::{Duration, Instant};

use pcoder_fake_codesandbox::{Fault, Limit, Options, What};
use serde_json::{Value, json};

use crate::client::{Agent, boot, fork, http, response, send, start};

#[tokio::test]
async fn every_operation_fails_with_every_status_and_does_nothing() {
    let fake = start(Options::default()).await;
    let id = fork(&fake).await;
    for status in [400, 401, 402, 403, 404, 409, 422, 429, 500, 502, 503] {
        for (operation, method, path) in [
            ("sandbox.fork", "POST", "/sandbox/pcz35m/fork".to_owned()),
            ("sandbox.list", "GET", "/sandbox".to_owned()),
            ("vm.start", "POST", format!("/vm/{id}/start")),
            ("vm.delete", "DELETE", format!("/vm/{id}")),
        ] {
            fake.faults().push(Fault::status(operation, status));
            let (got, body) = send(&fake, method, &path, Value::Null).await;
            assert_eq!((got, &body["success"]), (status, &json!(false)), "{operation}");
            assert!(body["errors"][0].is_string());
        }
    }
    assert_eq!(fake.sandboxes(), [(id, false)]);
    assert_eq!(fake.faults().pending(), []);
}

#[tokio::test]
async fn a_429_has_the_headers_that_it_was_asked_for() {
    let fake = start(Options::default()).await;
    let id = fork(&fake).await;
    let path = format!("/vm/{id}/start");
    let what = What::Status { status: 429, retry_after: Some(3), limit: Some(Limit::Vms), errors: None, html: false };
    fake.faults().push(Fault::new("vm.*", what));
    let answer = response(&fake, "POST", &path, json!({})).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"3".parse().unwrap()));
    assert_eq!(answer.headers()["x-csb-vms-remaining"], "0");
    assert_eq!(answer.headers()["x-csb-rate-hourly-remaining"], "9998");
    fake.faults().push("vm.start=429".parse().unwrap());
    let answer = response(&fake, "POST", &path, json!({})).await.unwrap();
    assert!(!answer.headers().contains_key("retry-after"));
    assert_eq!(answer.headers()["x-csb-rate-hourly-remaining"], "0");
    fake.faults().push("vm.start=502,html=true".parse().unwrap());
    let answer = response(&fake, "POST", &path, json!({})).await.unwrap();
    assert!(answer.text().await.unwrap().starts_with("<html>"));
}

#[tokio::test]
async fn a_connection_is_cut_before_and_after_the_effect() {
    let fake = start(Options::default()).await;
    fake.faults().push(Fault::new("sandbox.fork", What::DropBefore));
    response(&fake, "POST", "/sandbox/pcz35m/fork", json!({})).await.unwrap_err();
    assert_eq!(fake.sandboxes().len(), 0);
    fake.faults().push(Fault::new("sandbox.fork", What::DropAfter));
    response(&fake, "POST", "/sandbox/pcz35m/fork", json!({})).await.unwrap_err();
    assert_eq!(fake.sandboxes().len(), 1);
    assert!(fake.requests().iter().all(|request| request.status.is_none()));
}

#[tokio::test]
async fn answers_are_spoiled_after_the_effect() {
    let fake = start(Options::default()).await;
    let (id, other) = (fork(&fake).await, fork(&fake).await);
    let path = format!("/vm/{id}/start");
    let start = async |fault: &str| {
        fake.faults().push(fault.parse().unwrap());
        response(&fake, "POST", &path, json!({})).await.unwrap().text().await.unwrap()
    };
    assert!(serde_json::from_str::<Value>(&start("vm.start=truncated").await).is_err());
    assert_eq!(fake.sandboxes().iter().filter(|(_, running)| *running).count(), 1);
    let data = async |fault: &str| serde_json::from_str::<Value>(&start(fault).await).unwrap()["data"].clone();
    let answer = data("vm.start=other-sandbox").await;
    assert_eq!(answer["id"], other);
    assert!(answer["pitcher_url"].as_str().unwrap().ends_with(&other));
    assert_eq!(data("vm.start=bootup-type:WARM").await["bootup_type"], "WARM");
    assert_eq!(data("vm.start=missing:pitcher_url").await.get("pitcher_url"), None);
    assert_eq!(data("vm.start=null:pitcher_token").await["pitcher_token"], Value::Null);
    let begun = Instant::now();
    data("vm.start=slow:300").await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn an_agent_refuses_with_every_code_and_does_nothing() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    for code in [0, 1, 2, 3, 100, 101, 102, 200, 201, 204, 601, 704] {
        fake.faults().push(Fault::error("fs/*", code, None));
        let refusal = agent.write("f", b"1").await.unwrap_err();
        assert_eq!((refusal.code, refusal.errno), (code, None));
    }
    fake.faults().push("fs/writeFile=error:102,errno=28".parse().unwrap());
    let refusal = agent.write("f", b"1").await.unwrap_err();
    assert_eq!((refusal.message.as_str(), refusal.errno), ("No space left on device", Some(28)));
    assert_eq!(agent.read("f").await.unwrap_err().errno, Some(2));
}

#[tokio::test]
async fn a_connection_to_an_agent_ends_in_every_way() {
    let fake = start(Options::default()).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    for (fault, end, done) in [
        ("drop-before", Err(1006), false),
        ("drop-after", Err(1006), true),
        ("close:1011", Err(1011), false),
        ("truncated", Err(0), true),
    ] {
        fake.faults().push(format!("fs/mkdir={fault}").parse().unwrap());
        let request = agent.post("fs/mkdir", json!({"path": fault})).await;
        assert_eq!(agent.reply(request).await, end, "{fault}");
        agent = Agent::join(&boot(&fake, &id, json!({})).await).await;
        assert_eq!(agent.call("fs/stat", json!({"path": fault})).await.is_ok(), done, "{fault}");
    }
    fake.faults().push("fs/mkdir=silent".parse().unwrap());
    let silent = agent.post("fs/mkdir", json!({"path": "never"})).await;
    assert_eq!(agent.call("fs/stat", json!({"path": "never"})).await.unwrap_err().errno, Some(2));
    assert!(!agent.replied.contains(&silent));
    for (fault, expected) in [("connect=503", "503"), ("connect=drop-before", "")] {
        fake.faults().push(fault.parse().unwrap());
        let started = boot(&fake, &id, json!({})).await;
        assert!(Agent::connect(&started).await.unwrap_err().contains(expected), "{fault}");
    }
    assert_eq!(agent.call("system/update", json!({})).await.unwrap(), json!({}));
}

#[tokio::test]
async fn replies_of_an_agent_are_spoiled() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    let (_, mut other) = Agent::fresh(&fake).await;
    agent.write("f", b"mine").await.unwrap();
    other.write("f", b"theirs").await.unwrap();
    fake.faults().push("fs/readFile=other-sandbox".parse().unwrap());
    assert_eq!(agent.read("f").await.unwrap(), b"theirs");
    fake.faults().push("fs/stat=missing:size".parse().unwrap());
    assert_eq!(agent.call("fs/stat", json!({"path": "f"})).await.unwrap().get("size"), None);
    fake.faults().push("fs/stat=null:type".parse().unwrap());
    assert_eq!(agent.call("fs/stat", json!({"path": "f"})).await.unwrap()["type"], Value::Null);
}

#[tokio::test]
async fn faults_are_pushed_and_requests_read_over_http() {
    let fake = start(Options::default()).await;
    let url = format!("{}/__fake/faults", fake.base_url());
    let post = async |body: &str| http().post(&url).body(body.to_owned()).send().await.unwrap().status().as_u16();
    assert_eq!(post("vm.start=503,times=2").await, 204);
    assert_eq!(
        post(r#"[{"on": "fs/*", "kind": "error", "code": 3}, {"on": "vm.start", "kind": "silent"}]"#).await,
        204
    );
    assert_eq!(post("nonsense").await, 400);
    assert_eq!(post(r#"{"on": "vm.start", "kind": "nonsense"}"#).await, 400);
    let pending: Value = http().get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!((pending.as_array().unwrap().len(), &pending[1]["kind"]), (3, &json!("error")));
    assert_eq!(http().delete(&url).send().await.unwrap().status(), 204);
    assert_eq!(fake.faults().pending(), []);
    fork(&fake).await;
    let seen = http().get(format!("{}/__fake/requests", fake.base_url())).send().await.unwrap();
    let seen: Value = seen.json().await.unwrap();
    assert_eq!((&seen["requests"][0]["operation"], &seen["messages"]), (&json!("sandbox.fork"), &json!([])));
}

#[tokio::test]
async fn what_has_happened_can_be_waited_for() {
    let fake = start(Options::default()).await;
    let answered =
        |fake: &pcoder_fake_codesandbox::FakeCodeSandbox| fake.requests().iter().any(|r| r.status == Some(201));
    assert!(!fake.wait_until(Duration::from_millis(50), answered).await);
    let (waited, _) = tokio::join!(fake.wait_until(Duration::from_secs(20), answered), fork(&fake));
    assert!(waited);
}
