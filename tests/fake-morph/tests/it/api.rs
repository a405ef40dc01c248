//! Instances, snapshots, and what is said of them.

use std::time::Duration;

use pcoder_fake_morph::{Operation, Options};
use serde_json::json;

use crate::client::{KEY, SNAPSHOT, call, exec, fake, fake_with, get, good, output, post, send, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_in_every_operation() {
    let fake = fake().await;
    for operation in Operation::ALL {
        let (method, path) = operation.route();
        let path = format!("/{}", path.replace('*', "x"));
        let answer = send(&fake.base_url(), method, &path, "wrong", "").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (401, "{\"detail\":\"Invalid API key\"}"), "{path}");
        assert_eq!(fake.requests().last().unwrap().operation, Some(*operation));
    }
    assert!(fake.requests().iter().all(|seen| seen.headers.iter().all(|(name, _)| name != "authorization")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_the_published_shape() {
    let fake = fake().await;
    let body = r#"{"metadata":{"owner":"it"},"ttl_seconds":60,"ttl_action":"pause"}"#;
    let instance = post(&fake, &format!("/instance?snapshot_id={SNAPSHOT}"), body).await;
    let id = instance["id"].as_str().unwrap();
    assert!(id.starts_with("morphvm_") && id.len() == 16, "{id}");
    let created = instance["created"].as_u64().unwrap();
    assert_eq!(
        instance,
        json!({
            "id": id, "object": "instance", "created": created, "status": "pending",
            "spec": { "vcpus": 1, "memory": 128, "disk_size": 700 },
            "refs": { "snapshot_id": SNAPSHOT, "image_id": "morphvm-minimal" },
            "networking": { "internal_ip": "127.0.0.1", "http_services": [] },
            "metadata": { "owner": "it" },
            "ttl": { "ttl_seconds": 60, "ttl_expire_at": created + 60, "ttl_action": "pause" },
            "wake_on": { "wake_on_ssh": false, "wake_on_http": false },
        })
    );
    // The plural is another name.
    assert_eq!(get(&fake, &format!("/instances/{id}")).await, instance);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_pending_for_as_many_reads_as_asked_for() {
    let fake = fake_with(Options { boot_polls: 3, ..Options::default() }).await;
    let instance = post(&fake, &format!("/instance?snapshot_id={SNAPSHOT}"), "{}").await;
    let path = format!("/instance/{}", instance["id"].as_str().unwrap());
    let refused = call(&fake, "POST", &format!("{path}/exec"), r#"{"command":["true"]}"#).await;
    assert_eq!(refused.status, 412, "{}", refused.text());
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(get(&fake, &path).await["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["pending", "pending", "pending", "ready"]);
    let fake = fake_with(Options { boot_polls: 0, ..Options::default() }).await;
    assert_eq!(post(&fake, &format!("/instance?snapshot_id={SNAPSHOT}"), "").await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_and_what_is_malformed_is_422() {
    let fake = fake().await;
    let id = start(&fake).await;
    for (method, path) in [
        ("GET", "/instance/morphvm_nope"),
        ("DELETE", "/instance/morphvm_nope"),
        ("POST", "/instance/morphvm_nope/pause"),
        ("GET", "/snapshot/snapshot_nope"),
        ("POST", "/instance?snapshot_id=snapshot_nope"),
        ("GET", "/nothing"),
    ] {
        let answer = call(&fake, method, path, "").await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert!(answer.json()["detail"].is_string(), "{}", answer.text());
    }
    assert_eq!(call(&fake, "PUT", "/instance", "").await.status, 405);
    for (path, body) in [
        ("/instance", ""),
        (&*format!("/instance?snapshot_id={SNAPSHOT}"), r#"{"ttl_action":"explode"}"#),
        (&*format!("/instance?snapshot_id={SNAPSHOT}"), r#"{"metadata":{"a":1}}"#),
        (&*format!("/snapshot/{SNAPSHOT}/boot"), ""),
        (&*format!("/snapshot/{SNAPSHOT}/boot"), r#"{"vcpus":0}"#),
        (&*format!("/instance/{id}/exec"), r#"{"command":"true"}"#),
        (&*format!("/instance/{id}/exec"), "{"),
        (&*format!("/instance/{id}/exec"), "{}"),
        (&*format!("/instance/{id}/ttl"), "{}"),
        (&*format!("/instance/{id}/http"), r#"{"name":"UP","port":80}"#),
        (&*format!("/instance/{id}/http"), r#"{"name":"a","port":65536}"#),
        (&*format!("/instance/{id}/pause?snapshot="), ""),
        (&*format!("/instance/{id}/branch?count=0"), ""),
    ] {
        let answer = call(&fake, "POST", path, body).await;
        assert_eq!(answer.status, 422, "{path} {body}: {}", answer.text());
        let detail = &answer.json()["detail"][0];
        assert!(detail["loc"].is_array() && detail["msg"].is_string() && detail["type"].is_string(), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_by_metadata_and_paged() {
    let fake = fake().await;
    for number in 0..5 {
        let body = json!({ "metadata": { "even": (number % 2 == 0).to_string(), "a b": "c&d" } }).to_string();
        post(&fake, &format!("/instance?snapshot_id={SNAPSHOT}"), &body).await;
    }
    assert_eq!(get(&fake, "/instance").await["data"].as_array().unwrap().len(), 5);
    let some = get(&fake, "/instance?metadata%5Beven%5D=true&metadata[a%20b]=c%26d").await;
    assert_eq!(some["data"].as_array().unwrap().len(), 3);
    let page = get(&fake, "/instance/list?page=2&limit=2").await;
    assert_eq!(page["instances"].as_array().unwrap().len(), 2);
    let numbers = ["total", "page", "size", "total_pages"].map(|name| page[name].as_u64().unwrap());
    assert_eq!(numbers, [5, 2, 2, 3]);
    assert_eq!((&page["has_next"], &page["has_prev"]), (&json!(true), &json!(true)));
    assert_eq!(get(&fake, "/snapshot/list").await["snapshots"][0]["id"], SNAPSHOT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_instance_is_gone_with_what_ran() {
    let fake = fake().await;
    let id = start(&fake).await;
    output(&fake, &id, "(sleep 1000 >/dev/null 2>&1 &)").await;
    let answer = call(&fake, "DELETE", &format!("/instance/{id}"), "").await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(call(&fake, "DELETE", &format!("/instance/{id}"), "").await.status, 404);
    assert!(get(&fake, "/instance").await["data"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_instance_runs_nothing_and_keeps_its_processes() {
    let fake = fake().await;
    let id = start(&fake).await;
    output(&fake, &id, "(while :; do sleep 0.01; echo x >>ticks; done >/dev/null 2>&1 & echo $! >pid)").await;
    for _ in 0..2 {
        assert_eq!(post(&fake, &format!("/instance/{id}/pause"), "").await["status"], "paused");
    }
    let refused = call(&fake, "POST", &format!("/instance/{id}/exec"), r#"{"command":["true"]}"#).await;
    assert_eq!((refused.status, refused.json()), (412, json!({ "detail": "Instance is paused" })));
    for _ in 0..2 {
        assert_eq!(post(&fake, &format!("/instance/{id}/resume"), "").await["status"], "ready");
    }
    let grows = "a=$(wc -l <ticks); until [ $(wc -l <ticks) -gt $a ]; do :; done; kill -0 $(cat pid)";
    assert_eq!(exec(&fake, &id, grows).await["exit_code"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_keeps_files_and_may_change_the_size() {
    let fake = fake().await;
    let id = start(&fake).await;
    output(&fake, &id, "echo 1 >kept; (sleep 1000 >/dev/null 2>&1 & echo $! >pid)").await;
    let rebooted = post(&fake, &format!("/instance/{id}/reboot"), r#"{"vcpus":4}"#).await;
    assert_eq!((&rebooted["status"], &rebooted["spec"]["vcpus"]), (&json!("pending"), &json!(4)));
    get(&fake, &format!("/instance/{id}")).await;
    assert_eq!(output(&fake, &id, "cat kept; ls /proc/$(cat pid)/comm 2>/dev/null || echo gone").await, "1\ngone\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_has_the_files_of_that_moment() {
    let fake = fake().await;
    let id = start(&fake).await;
    output(&fake, &id, "echo before >f").await;
    let body = r#"{"snapshot_metadata":{"s":"1"},"instance_metadata":[{"n":"0"},{"n":"1"}]}"#;
    let branch = post(&fake, &format!("/instance/{id}/branch?count=2"), body).await;
    output(&fake, &id, "echo after >f").await;
    assert_eq!(branch["snapshot"]["metadata"], json!({ "s": "1" }));
    for (number, fork) in branch["instances"].as_array().unwrap().iter().enumerate() {
        assert_eq!(fork["metadata"], json!({ "n": number.to_string() }));
        assert_eq!(fork["refs"]["snapshot_id"], branch["snapshot"]["id"]);
        let fork = fork["id"].as_str().unwrap();
        get(&fake, &format!("/instance/{fork}")).await;
        assert_eq!(output(&fake, fork, "cat f").await, "before\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_names_a_snapshot() {
    let fake = fake().await;
    let body = r#"{"vcpus":2,"memory":256,"disk_size":900,"digest":"d","metadata":{"a":"b"}}"#;
    let one = post(&fake, "/snapshot", body).await;
    assert_eq!(one["spec"], json!({ "vcpus": 2, "memory": 256, "disk_size": 900 }));
    assert_eq!(post(&fake, "/snapshot", r#"{"digest":"d"}"#).await, one);
    assert_ne!(post(&fake, "/snapshot", "{}").await["id"], one["id"]);
    let found = get(&fake, "/snapshot?digest=d&metadata[a]=b").await;
    assert_eq!(found["data"], json!([one]));
    let path = format!("/snapshot/{}", one["id"].as_str().unwrap());
    assert_eq!(post(&fake, &format!("{path}/metadata"), r#"{"c":"d"}"#).await["metadata"], json!({ "c": "d" }));
    let booted = post(&fake, &format!("{path}/boot"), r#"{"memory":512}"#).await;
    assert_eq!(booted["spec"], json!({ "vcpus": 2, "memory": 512, "disk_size": 900 }));
    assert_eq!(call(&fake, "DELETE", &path, "").await.status, 204);
    assert_eq!(call(&fake, "GET", &path, "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_ends_or_pauses() {
    let fake = fake().await;
    let (stopped, paused) = (start(&fake).await, start(&fake).await);
    post(&fake, &format!("/instance/{stopped}/ttl"), r#"{"ttl_seconds":100}"#).await;
    post(&fake, &format!("/instance/{paused}/ttl"), r#"{"ttl_seconds":100,"ttl_action":"pause"}"#).await;
    fake.advance(Duration::from_secs(90));
    get(&fake, &format!("/instance/{stopped}")).await;
    let again = post(&fake, &format!("/instance/{paused}/ttl"), r#"{"ttl_seconds":100}"#).await;
    assert_eq!(again["ttl"]["ttl_action"], "pause");
    fake.advance(Duration::from_secs(20));
    assert_eq!(call(&fake, "GET", &format!("/instance/{stopped}"), "").await.status, 404);
    assert_eq!(get(&fake, &format!("/instance/{paused}")).await["status"], "ready");
    fake.advance(Duration::from_secs(90));
    assert_eq!(get(&fake, &format!("/instance/{paused}")).await["status"], "paused");
    assert_eq!(post(&fake, &format!("/instance/{paused}/resume"), "").await["status"], "ready");
    let cleared = post(&fake, &format!("/instance/{paused}/ttl"), r#"{"ttl_seconds":null}"#).await;
    assert_eq!(cleared["ttl"], json!({ "ttl_seconds": null, "ttl_expire_at": null, "ttl_action": "pause" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exposed_service_wakes_its_instance_and_asks_for_the_key() {
    let fake = fake().await;
    let id = start(&fake).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let app = axum::Router::new().fallback(|| async { "served" });
        axum::serve(listener, app).await.unwrap();
    });
    let body = json!({ "name": "web-1", "port": port, "auth_mode": "api_key" }).to_string();
    let exposed = good(&fake, "POST", &format!("/instance/{id}/http"), &body).await;
    let service = &exposed["networking"]["http_services"][0];
    assert_eq!((&service["name"], &service["auth_mode"]), (&json!("web-1"), &json!("api_key")));
    let url = service["url"].as_str().unwrap();
    assert_eq!(send(url, "GET", "/", "wrong", "").await.unwrap().status, 401);
    assert_eq!(send(url, "GET", "/", KEY, "").await.unwrap().text(), "served");
    post(&fake, &format!("/instance/{id}/pause"), "").await;
    assert_eq!(send(url, "GET", "/", KEY, "").await.unwrap().status, 503);
    post(&fake, &format!("/instance/{id}/wake-on"), r#"{"wake_on_http":true}"#).await;
    assert_eq!(send(url, "GET", "/", KEY, "").await.unwrap().text(), "served");
    assert_eq!(get(&fake, &format!("/instance/{id}")).await["status"], "ready");
    let hidden = good(&fake, "DELETE", &format!("/instance/{id}/http/web-1"), "").await;
    assert_eq!(hidden["networking"]["http_services"], json!([]));
    assert_eq!(call(&fake, "DELETE", &format!("/instance/{id}/http/web-1"), "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_stopped_fake_is_left() {
    let root = tempfile::tempdir().unwrap();
    let fake = fake_with(Options { root: Some(root.path().to_owned()), ..Options::default() }).await;
    let key = fake.ssh_host_key().to_owned();
    let id = start(&fake).await;
    output(&fake, &id, "echo x >f; (sleep 1000 >/dev/null 2>&1 &)").await;
    post(&fake, &format!("/instance/{id}/snapshot"), "").await;
    fake.stop().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["ssh_host_ed25519_key"]);
    let again = fake_with(Options { root: Some(root.path().to_owned()), ..Options::default() }).await;
    assert_eq!(again.ssh_host_key(), key);
}
