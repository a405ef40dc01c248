//! Every fault, and what it leaves.

use std::time::{Duration, Instant, SystemTime};

use pcoder_fake_morph::{FakeMorph, Fault, FaultKind, Match, Operation, Times};
use serde_json::{Value, json};

use crate::client::{KEY, call, exec, fake, get, send, start};

fn arm(fake: &FakeMorph, operation: &str, what: FaultKind) {
    let on = Match { operation: Some(operation.to_owned()), ..Match::default() };
    fake.faults().push(Fault { on, what, times: Times::Once }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_comes_from_every_operation_without_an_effect() {
    let fake = fake().await;
    let id = start(&fake).await;
    let before = get(&fake, &format!("/instance/{id}")).await;
    for operation in Operation::ALL {
        let (method, path) = operation.route();
        let path = format!("/{}", path.replacen('*', &id, 1));
        for status in [400, 401, 402, 403, 404, 409, 412, 422, 429, 500, 502, 503] {
            arm(&fake, operation.name(), FaultKind::status(status));
            let answer = call(&fake, method, &path, r#"{"command":["touch made"]}"#).await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.json()["detail"].is_array(), status == 422);
        }
    }
    assert_eq!(get(&fake, &format!("/instance/{id}")).await, before);
    assert_eq!(exec(&fake, &id, "ls").await["stdout"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_told_in_seconds_or_as_a_date() {
    let fake = fake().await;
    let status = |retry_after, retry_after_date| FaultKind::Status {
        status: 429,
        retry_after,
        retry_after_date,
        body: Some("slow down".to_owned()),
        after: false,
    };
    arm(&fake, "image.list", status(Some(7), None));
    let answer = call(&fake, "GET", "/image", "").await;
    assert_eq!(
        (answer.status, &*answer.text(), &answer.headers["retry-after"]),
        (429, "slow down", &"7".parse().unwrap())
    );
    arm(&fake, "image.list", status(None, Some(100)));
    let answer = call(&fake, "GET", "/image", "").await;
    let date = httpdate::parse_http_date(answer.headers["retry-after"].to_str().unwrap()).unwrap();
    let wait = date.duration_since(SystemTime::now()).unwrap();
    assert!((50..=101).contains(&wait.as_secs()), "{wait:?}");
    arm(&fake, "image.list", FaultKind::status(429));
    assert!(!call(&fake, "GET", "/image", "").await.headers.contains_key("retry-after"));
    assert_eq!(call(&fake, "GET", "/image", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_dropped_before_or_after_the_effect() {
    let fake = fake().await;
    let id = start(&fake).await;
    let path = format!("/instance/{id}/exec");
    let body = r#"{"command":["echo x >>count"]}"#;
    for (what, count) in [(FaultKind::DropBefore, "0\n"), (FaultKind::DropAfter, "1\n"), (FaultKind::DropMidway, "2\n")]
    {
        arm(&fake, "instance.exec", what);
        assert!(send(&fake.base_url(), "POST", &path, KEY, body).await.is_err());
        assert_eq!(exec(&fake, &id, "cat count 2>/dev/null | wc -l").await["stdout"], count);
    }
    let after = FaultKind::Status { status: 502, retry_after: None, retry_after_date: None, body: None, after: true };
    arm(&fake, "instance.exec", after);
    assert_eq!(call(&fake, "POST", &path, body).await.status, 502);
    assert_eq!(exec(&fake, &id, "wc -l <count").await["stdout"], "3\n");
    // A stream is dropped after its first event.
    arm(&fake, "instance.exec-sse", FaultKind::DropAfter);
    let line = r#"{"command":["echo one; sleep 0.1; echo two"]}"#;
    assert!(send(&fake.base_url(), "POST", &format!("{path}/sse"), KEY, line).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_spoilt() {
    let fake = fake().await;
    let (id, other) = (start(&fake).await, start(&fake).await);
    let path = format!("/instance/{id}");
    let whole = get(&fake, &path).await;
    arm(&fake, "instance.get", FaultKind::Truncated);
    let answer = call(&fake, "GET", &path, "").await;
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<Value>(&answer.body).unwrap_err().is_eof());
    arm(&fake, "instance.get", FaultKind::NotJson);
    assert!(call(&fake, "GET", &path, "").await.text().starts_with("<html>"));
    arm(&fake, "instance.get", FaultKind::OtherInstance);
    assert_eq!(get(&fake, &path).await["id"], other);
    arm(&fake, "instance.get", FaultKind::UnknownStatus { status: "hibernating".to_owned() });
    assert_eq!(get(&fake, &path).await["status"], "hibernating");
    let fields = || vec!["ttl".to_owned(), "http_services".to_owned()];
    arm(&fake, "instance.get", FaultKind::Missing { fields: fields() });
    let answer = get(&fake, &path).await;
    assert!(answer.get("ttl").is_none() && answer["networking"].get("http_services").is_none(), "{answer}");
    arm(&fake, "instance.list", FaultKind::Null { fields: fields() });
    let answer = get(&fake, "/instance").await;
    assert_eq!(
        (&answer["data"][1]["ttl"], &answer["data"][1]["networking"]["http_services"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(get(&fake, &path).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_has_its_place_and_its_number() {
    let fake = fake().await;
    let on = Match { method: Some("get".to_owned()), path: Some("^/api/image$".to_owned()), operation: None };
    fake.faults().push(Fault { on, what: FaultKind::status(503), times: Times::N(2) }).unwrap();
    let slow = Match { operation: Some("image.list".to_owned()), ..Match::default() };
    let slow = Fault { on: slow, what: FaultKind::slow(Duration::from_millis(50)), times: Times::Always };
    fake.faults().push(slow).unwrap();
    assert_eq!(call(&fake, "GET", "/snapshot", "").await.status, 200);
    for _ in 0..2 {
        assert_eq!(call(&fake, "GET", "/image", "").await.status, 503);
    }
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(call(&fake, "GET", "/image", "").await.status, 200);
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
    let unknown = Match { operation: Some("no.such".to_owned()), ..Match::default() };
    assert!(fake.faults().push(Fault { on: unknown, what: FaultKind::DropAfter, times: Times::Once }).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_languages_have_faults_requests_and_the_clock_over_http() {
    let fake = fake().await;
    let base = fake.base_url().replace("/api", "/__fake");
    let control = async |method: &str, path: &str, body: &str| send(&base, method, path, "", body).await.unwrap();
    let one = r#"{"on":{"operation":"image.list"},"what":{"status":{"status":429,"retry_after":2}}}"#;
    let more = r#"[{"what":"drop-before","times":{"n":2}},{"what":{"missing":{"fields":["id"]}},"times":"always"}]"#;
    for body in [one, more] {
        let answer = control("POST", "/faults", body).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    assert_eq!(control("GET", "/faults", "").await.json().as_array().unwrap().len(), 3);
    assert_eq!(call(&fake, "GET", "/image", "").await.headers["retry-after"], "2");
    for _ in 0..2 {
        assert!(send(&fake.base_url(), "GET", "/image?a=b", KEY, "").await.is_err());
    }
    assert!(get(&fake, "/image").await["data"][0].get("id").is_none());
    for wrong in ["", "{}", r#"{"what":"explode"}"#, r#"{"what":"drop-before","extra":1}"#] {
        assert_eq!(control("POST", "/faults", wrong).await.status, 400, "{wrong}");
    }
    let seen = control("GET", "/requests", "").await.json();
    assert_eq!(seen.as_array().unwrap().len(), 4);
    assert_eq!((&seen[1]["path"], &seen[1]["query"]), (&json!("/api/image"), &json!("a=b")));
    assert_eq!(control("DELETE", "/faults", "").await.status, 204);
    assert_eq!(control("DELETE", "/requests", "").await.status, 204);
    assert!(fake.requests().is_empty() && fake.faults().left().is_empty());
    let id = start(&fake).await;
    call(&fake, "POST", &format!("/instance/{id}/ttl"), r#"{"ttl_seconds":1000}"#).await;
    assert_eq!(control("POST", "/clock", r#"{"advance":1001}"#).await.status, 204);
    assert_eq!(call(&fake, "GET", &format!("/instance/{id}"), "").await.status, 404);
}
