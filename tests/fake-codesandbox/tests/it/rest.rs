//! The REST API.

use std::time::Duration;

use pcoder_fake_codesandbox::Options;
use serde_json::{Value, json};

use crate::client::{Agent, boot, fork, http, response, send, start};

#[tokio::test]
async fn a_start_says_how_the_sandbox_came_up() {
    let fake = start(Options::default()).await;
    let id = fork(&fake).await;
    let first = boot(&fake, &id, json!({"tier": "Pico"})).await;
    assert_eq!(first["bootup_type"], "FORK");
    assert_eq!(first["workspace_path"], "/project/workspace");
    assert_eq!(first["use_pint"], false);
    assert_eq!(boot(&fake, &id, json!({})).await["bootup_type"], "RUNNING");
    assert_eq!(send(&fake, "POST", &format!("/vm/{id}/hibernate"), Value::Null).await.0, 200);
    assert_eq!(boot(&fake, &id, json!({})).await["bootup_type"], "RESUME");
    assert_eq!(send(&fake, "POST", &format!("/vm/{id}/shutdown"), Value::Null).await.0, 200);
    assert_eq!(boot(&fake, &id, json!({})).await["bootup_type"], "CLEAN");
    assert_eq!(send(&fake, "DELETE", &format!("/vm/{id}"), Value::Null).await.0, 200);
    let (status, body) = send(&fake, "GET", &format!("/sandbox/{id}"), Value::Null).await;
    assert_eq!((status, body), (404, json!({"success": false, "errors": ["Not found"]})));
    let names: Vec<_> = fake.requests().into_iter().map(|request| (request.operation, request.status)).collect();
    assert_eq!(names.first(), Some(&("sandbox.fork".to_owned(), Some(201))));
    assert_eq!(names.last(), Some(&("sandbox.get".to_owned(), Some(404))));
}

#[tokio::test]
async fn a_fork_with_start_options_is_started() {
    let fake = start(Options::default()).await;
    let (status, body) = send(&fake, "POST", "/sandbox/69vrxg/fork", json!({"start_options": {}})).await;
    assert_eq!((status, &body["data"]["start_response"]["bootup_type"]), (201, &json!("FORK")));
    assert_eq!(send(&fake, "GET", "/vm/running", Value::Null).await.1["data"]["concurrent_vm_count"], 1);
}

#[tokio::test]
async fn what_is_created_from_files_boots_clean() {
    let fake = start(Options::default()).await;
    let files = json!({"files": {"/src/main.js": {"content": "hello"}}, "runtime": "vm", "title": "made"});
    let (status, body) = send(&fake, "POST", "/sandbox", files).await;
    assert_eq!((status, &body["data"]["title"]), (201, &json!("made")));
    let started = boot(&fake, body["data"]["id"].as_str().unwrap(), json!({})).await;
    assert_eq!(started["bootup_type"], "CLEAN");
    assert_eq!(Agent::join(&started).await.read("src/main.js").await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_list_has_pages_tags_and_a_status() {
    let fake = start(Options::default()).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let tags = if number % 2 == 0 { json!(["sdk", "even"]) } else { json!(["sdk"]) };
        let (_, body) = send(&fake, "POST", "/sandbox/pcz35m/fork", json!({"tags": tags})).await;
        ids.push(body["data"]["id"].as_str().unwrap().to_owned());
    }
    let list = async |query: &str| {
        let (status, body) = send(&fake, "GET", &format!("/sandbox{query}"), Value::Null).await;
        assert_eq!(status, 200, "{body}");
        let shown: Vec<_> = body["data"]["sandboxes"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
        (shown, body["data"]["pagination"].clone())
    };
    let (shown, pagination) = list("?page=1&page_size=2").await;
    assert_eq!(shown, [ids[4].as_str(), &ids[3]]);
    assert_eq!(pagination, json!({"current_page": 1, "next_page": 2, "total_records": 5}));
    let (shown, pagination) = list("?page=3&page_size=2").await;
    assert_eq!((shown, &pagination["next_page"]), (vec![json!(ids[0])], &Value::Null));
    assert_eq!(list("?tags=sdk,even&direction=asc").await.0, [ids[0].as_str(), &ids[2], &ids[4]]);
    boot(&fake, &ids[1], json!({})).await;
    assert_eq!(list("?status=running").await.0, [ids[1].as_str()]);
    assert_eq!(list("?order_by=updated_at").await.0[0], ids[1].as_str());
    assert_eq!(send(&fake, "GET", "/sandbox?page_size=51", Value::Null).await.0, 422);
}

#[tokio::test]
async fn what_is_not_right_is_refused_with_its_status() {
    let fake = start(Options::default()).await;
    let id = fork(&fake).await;
    let cases = [
        ("POST", "/sandbox/unknown/fork".to_owned(), json!({}), 404),
        ("POST", "/sandbox/pcz35m/fork".to_owned(), json!({"title": "x".repeat(256)}), 422),
        ("POST", "/sandbox/pcz35m/fork".to_owned(), json!({"privacy": 3}), 422),
        ("POST", "/vm/pcz35m/start".to_owned(), json!({}), 403),
        ("POST", format!("/vm/{id}/start"), json!({"tier": "Huge"}), 422),
        ("POST", format!("/vm/{id}/start"), json!({"hibernation_timeout_seconds": 86_401}), 422),
        ("POST", format!("/vm/{id}/hibernate"), Value::Null, 404),
        ("POST", format!("/vm/{id}/shutdown"), Value::Null, 404),
        ("POST", format!("/vm/{id}/sessions"), json!({"session_id": "a", "permission": "write"}), 404),
        ("GET", "/nowhere".to_owned(), Value::Null, 404),
    ];
    for (method, path, body, expected) in cases {
        let (status, body) = send(&fake, method, &path, body).await;
        assert_eq!((status, &body["success"]), (expected, &json!(false)), "{method} {path}");
    }
    let url = format!("{}/sandbox", fake.base_url());
    for key in ["", "csb_v1_other"] {
        assert_eq!(http().get(&url).bearer_auth(key).send().await.unwrap().status(), 401);
    }
    let answer = http().post(format!("{url}/pcz35m/fork")).bearer_auth("csb_v1_fake").body("{").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    // Nothing of it has happened.
    assert_eq!(fake.sandboxes(), [(id, false)]);
}

#[tokio::test]
async fn a_key_can_be_checked() {
    let fake = start(Options::default()).await;
    let (_, body) = send(&fake, "GET", "/meta/info", Value::Null).await;
    assert_eq!(body["auth"]["scopes"][3], "vm_manage");
    assert_eq!(body["rate_limits"]["concurrent_vms"], json!({"limit": 100, "remaining": 100}));
    let open = http().get(format!("{}/meta/info", fake.base_url())).send().await.unwrap();
    assert!(!open.text().await.unwrap().contains("scopes"));
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused() {
    let fake = start(Options { scopes: vec!["sandbox_read".to_owned()], ..Options::default() }).await;
    assert_eq!(send(&fake, "GET", "/sandbox", Value::Null).await.0, 200);
    assert_eq!(send(&fake, "POST", "/sandbox/pcz35m/fork", json!({})).await.0, 403);
}

#[tokio::test]
async fn budgets_are_told_and_kept() {
    let options = Options { requests_hourly: 5, sandboxes_hourly: 2, concurrent_vms: 1, ..Options::default() };
    let fake = start(options).await;
    let (one, two) = (fork(&fake).await, fork(&fake).await);
    let header = |response: &reqwest::Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let third = response(&fake, "POST", "/sandbox/pcz35m/fork", json!({})).await.unwrap();
    assert_eq!(third.status(), 429);
    assert_eq!(header(&third, "x-csb-sandbox-hourly-remaining"), "0");
    assert_eq!(header(&third, "x-csb-rate-hourly-remaining"), "2");
    assert_eq!(header(&third, "x-csb-rate-hourly-used"), "3");
    assert!(header(&third, "x-csb-rate-hourly-reset").ends_with('Z'));
    boot(&fake, &one, json!({})).await;
    let start = response(&fake, "POST", &format!("/vm/{two}/start"), json!({})).await.unwrap();
    assert_eq!((start.status().as_u16(), header(&start, "x-csb-vms-remaining").as_str()), (429, "0"));
    let (status, body) = send(&fake, "GET", "/sandbox", Value::Null).await;
    assert_eq!((status, body), (429, json!({"success": false, "errors": ["Rate limit exceeded"]})));
}

#[tokio::test]
async fn what_nobody_uses_hibernates_and_what_is_kept_active_does_not() {
    let fake = start(Options::default()).await;
    let id = fork(&fake).await;
    let started = boot(&fake, &id, json!({"hibernation_timeout_seconds": 2})).await;
    let mut agent = Agent::join(&started).await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        agent.call("system/update", json!({})).await.unwrap();
    }
    assert_eq!(fake.sandboxes(), [(id.clone(), true)]);
    agent.wait("system/hibernate", |_| true).await;
    assert_eq!(agent.next().await, Err(1001));
    assert_eq!(fake.sandboxes(), [(id.clone(), false)]);
    assert!(Agent::connect(&started).await.unwrap_err().contains("401"));
    assert_eq!(boot(&fake, &id, json!({})).await["bootup_type"], "RESUME");
}

#[tokio::test]
async fn ports_of_a_private_sandbox_need_a_token_that_is_valid() {
    let fake = start(Options::default()).await;
    let body = json!({"private_preview": true, "start_options": {"automatic_wakeup_config": {"http": true}}});
    let (_, made) = send(&fake, "POST", "/sandbox/pcz35m/fork", body).await;
    let id = made["data"]["id"].as_str().unwrap();
    let mut agent = Agent::join(&made["data"]["start_response"]).await;
    let server = "import http.server as h
class S(h.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(self.path.encode())
h.HTTPServer(('127.0.0.1', 0), S).serve_forever()";
    agent.write("server.py", server.as_bytes()).await.unwrap();
    agent.call("shell/create", json!({"command": "python3 server.py"})).await.unwrap();
    let list = agent.wait("port/changed", |params| params["list"] != json!([])).await["list"].clone();
    let port = list[0]["port"].as_u64().unwrap();
    assert_eq!(list[0]["url"], format!("https://{id}-{port}.csb.app"));
    let (_, token) = send(&fake, "POST", &format!("/sandbox/{id}/tokens"), json!({"expires_at": null})).await;
    let token = token["data"]["token"].clone();
    let ask = async |name: &str, value: &str| {
        let request = http().get(format!("http://{}/x?a=1", fake.agents_address()));
        let request = request.header("host", format!("{id}-{port}.csb.app")).header(name, value);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (whole, cookie) =
        (token["token"].as_str().unwrap(), format!("csb_preview_token={}", token["token"].as_str().unwrap()));
    assert_eq!(ask("csb-preview-token", "prv_wrong").await.0, 401);
    assert_eq!(ask("csb-preview-token", whole).await, (200, "/x?a=1".to_owned()));
    // A request from outside wakes the sandbox, whose server goes on where it was.
    assert_eq!(send(&fake, "POST", &format!("/vm/{id}/hibernate"), Value::Null).await.0, 200);
    assert_eq!(ask("cookie", &cookie).await, (200, "/x?a=1".to_owned()));
    assert_eq!(fake.sandboxes(), [(id.to_owned(), true)]);
    let past = json!({"expires_at": "2020-01-01T00:00:00Z"});
    let path = format!("/sandbox/{id}/tokens/{}", token["token_id"].as_str().unwrap());
    assert_eq!(send(&fake, "PATCH", &path, past).await.0, 200);
    assert_eq!(ask("csb-preview-token", whole).await.0, 401);
}

#[tokio::test]
async fn hosts_of_previews_are_kept() {
    let fake = start(Options::default()).await;
    send(&fake, "POST", "/workspace/preview_hosts", json!({"hosts": ["a.example", "b.example"]})).await;
    let (_, body) = send(&fake, "PUT", "/workspace/preview_hosts", json!({"hosts": ["c.example"]})).await;
    assert_eq!(body["data"]["preview_hosts"][0]["host"], "c.example");
    let (_, body) = send(&fake, "GET", "/workspace/preview_hosts", Value::Null).await;
    assert_eq!(body["data"]["preview_hosts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_template_is_forked_by_its_tag_and_its_alias() {
    let fake = start(Options::default()).await;
    let (_, made) = send(&fake, "POST", "/templates", json!({"forkOf": "pcz35m", "title": "mine"})).await;
    let tag = made["data"]["tag"].as_str().unwrap();
    let (status, alias) = send(&fake, "PUT", "/vm/alias/team/node", json!({"tag_id": tag})).await;
    assert_eq!((status, &alias["data"]["tag_alias"]), (200, &json!("team@node")));
    for name in [tag, "team@node"] {
        assert_eq!(send(&fake, "POST", &format!("/sandbox/{name}/fork"), json!({})).await.0, 201);
    }
    assert_eq!(send(&fake, "PUT", "/vm/alias/team/node", json!({"tag_id": "pt_none"})).await.0, 404);
}

#[tokio::test]
async fn no_more_start_at_once_than_may_run() {
    let boot_time = Duration::from_millis(200);
    let fake = start(Options { concurrent_vms: 2, boot_time, ..Options::default() }).await;
    let mut starts = Vec::new();
    for _ in 0..5 {
        let path = format!("/vm/{}/start", fork(&fake).await);
        let url = format!("{}{path}", fake.base_url());
        starts.push(http().post(url).bearer_auth("csb_v1_fake").send());
    }
    let answers = futures_util::future::join_all(starts).await;
    let started = answers.into_iter().filter(|answer| answer.as_ref().unwrap().status() == 200).count();
    assert_eq!(started, 2);
}
