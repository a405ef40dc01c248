//! Commands in a sandbox.

use std::time::Duration;

use pcoder_fake_codesandbox::{Options, SetupStep, Task};
use serde_json::{Value, json};

use crate::client::{Agent, boot, send, start};

#[tokio::test]
async fn a_command_runs_on_a_terminal_and_ends_with_its_code() {
    let fake = start(Options::default()).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    assert_eq!(agent.run("tty; echo err >&2; exit 7").await.1, 7);
    assert_eq!(agent.run("kill -9 $$").await.1, 137);
    assert_eq!(
        agent.run("stty size; tty | cut -c1-8; pwd; echo $HOME").await.0,
        "24 128\r\n/dev/pts\r\n/project/workspace\r\n/root\r\n"
    );
    assert_eq!(agent.run("printf 'grüße'").await, ("grüße".to_owned(), 0));
    let (long, _) = agent.run("seq 1 20000").await;
    assert_eq!(long.lines().count(), 20_000);
    let methods: Vec<_> =
        fake.messages().into_iter().take(2).map(|message| (message.sandbox, message.method)).collect();
    assert_eq!(methods, [(id.clone(), "client/join".to_owned()), (id, "shell/create".to_owned())]);
}

#[tokio::test]
async fn both_types_of_shells_have_their_records() {
    let fake = start(Options::default()).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    let params = json!({"command": "exit 3", "type": "COMMAND", "cwd": "/tmp", "size": {"cols": 80, "rows": 20}});
    let command = agent.call("shell/create", params).await.unwrap();
    assert_eq!((&command["shellType"], &command["startCommand"]), (&json!("COMMAND"), &json!("exit 3")));
    assert_eq!((&command["status"], &command["buffer"]), (&json!("RUNNING"), &json!([])));
    let exit = agent.wait("shell/exit", |_| true).await;
    assert_eq!(exit, json!({"shellId": command["shellId"], "shellType": "COMMAND", "exitCode": 3}));
    let shells = agent.call("shell/list", json!({})).await.unwrap()["shells"].clone();
    assert_eq!((&shells[0]["status"], &shells[0]["exitCode"]), (&json!("ERROR"), &json!(3)));
    let terminal = agent.call("shell/create", json!({"type": "TERMINAL", "isSystemShell": false})).await.unwrap();
    assert_eq!((&terminal["ownerUsername"], &terminal["isSystemShell"]), (&json!("root"), &json!(false)));
    let shell = terminal["shellId"].clone();
    let size = json!({"cols": 99, "rows": 33});
    agent.call("shell/in", json!({"shellId": shell, "input": "stty size; exit 5\r", "size": size})).await.unwrap();
    let exit = agent.wait("shell/exit", |params| params["shellId"] == shell).await;
    assert_eq!(exit["exitCode"], 5);
    assert!(agent.output(&shell).contains("33 99"));
    let closed = agent.call("shell/in", json!({"shellId": shell, "input": "x", "size": size})).await.unwrap_err();
    assert_eq!(closed.code, 201);
    assert_eq!(agent.call("shell/open", json!({"shellId": "none", "size": size})).await.unwrap_err().code, 204);
}

#[tokio::test]
async fn a_shell_that_is_terminated_is_killed_and_everybody_hears_of_it() {
    let fake = start(Options::default()).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    let mut other = Agent::join(&boot(&fake, &id, json!({})).await).await;
    let shell = agent.call("shell/create", json!({"command": "trap '' TERM; echo up; sleep 1000"})).await.unwrap();
    let shell = shell["shellId"].clone();
    agent.wait("shell/out", |params| params["shellId"] == shell).await;
    let record = agent.call("shell/terminate", json!({"shellId": shell})).await.unwrap();
    assert_eq!(record["status"], "KILLED");
    other.wait("shell/terminate", |params| params["shellId"] == shell && params["author"] == "root").await;
    assert_eq!(agent.run("ps -e -o args | grep -c '[s]leep 1000'").await.0, "0\r\n");
    // Its output was only for who created it.
    assert_eq!(other.output(&shell), "");
}

#[tokio::test]
async fn a_shell_goes_on_without_its_connection_and_can_be_opened_by_another() {
    let fake = start(Options::default()).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    let shell = agent.call("shell/create", json!({"command": "echo one; read x; echo two $x"})).await.unwrap();
    let shell = shell["shellId"].clone();
    agent.wait("shell/out", |_| true).await;
    drop(agent);
    let mut agent = Agent::join(&boot(&fake, &id, json!({})).await).await;
    let size = json!({"cols": 128, "rows": 24});
    let opened = agent.call("shell/open", json!({"shellId": shell, "size": size})).await.unwrap();
    assert_eq!(opened["buffer"], json!(["one\r\n"]));
    agent.call("shell/in", json!({"shellId": shell, "input": "more\n", "size": size})).await.unwrap();
    assert_eq!(agent.wait("shell/exit", |_| true).await["exitCode"], 0);
    assert!(agent.output(&shell).ends_with("two more\r\n"));
    agent.call("shell/rename", json!({"shellId": shell, "name": "new"})).await.unwrap();
    agent.wait("shell/rename", |params| params["shell"]["name"] == "new").await;
    agent.call("shell/restart", json!({"shellId": shell})).await.unwrap();
    agent.wait("shell/restart", |_| true).await;
    assert_eq!(agent.call("shell/list", json!({})).await.unwrap()["shells"][0]["status"], "RUNNING");
}

#[tokio::test]
async fn processes_stop_while_the_sandbox_hibernates_and_go_on_after() {
    let fake = start(Options::default()).await;
    let (id, mut agent) = Agent::fresh(&fake).await;
    let line = "while true; do date +%s%N >>/tmp/ticks; sleep 0.01; done";
    agent.call("shell/create", json!({"command": line})).await.unwrap();
    while agent.read("/tmp/ticks").await.is_err() {}
    assert_eq!(send(&fake, "POST", &format!("/vm/{id}/hibernate"), Value::Null).await.0, 200);
    agent.wait("system/hibernate", |_| true).await;
    assert_eq!(agent.next().await, Err(1001));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut agent = Agent::join(&boot(&fake, &id, json!({})).await).await;
    // It goes on: there is a tick after now.
    assert_eq!(
        agent.run("now=$(date +%s%N); until [ $(tail -n 1 /tmp/ticks) -gt $now ]; do sleep 0.01; done").await.1,
        0
    );
    let gap = "awk 'NR > 1 && $1 - last > 400000000 { found = 1 } { last = $1 } END { exit !found }' /tmp/ticks";
    assert_eq!(agent.run(gap).await.1, 0);
}

#[tokio::test]
async fn a_set_up_that_fails_stops() {
    let step = |name: &str, command: &str| SetupStep { name: name.to_owned(), command: command.to_owned() };
    let setup = vec![step("first", "echo 1 >done"), step("second", "exit 4"), step("third", "echo 3 >done")];
    let fake = start(Options { setup, late_setup: true, ..Options::default() }).await;
    let (status, body) = send(&fake, "POST", "/sandbox", json!({"files": {}})).await;
    assert_eq!(status, 201);
    let started = boot(&fake, body["data"]["id"].as_str().unwrap(), json!({})).await;
    let mut agent = Agent::join(&started).await;
    assert_eq!(
        agent.call("setup/get", json!({})).await.unwrap(),
        json!({"state": "IDLE", "steps": [], "currentStepIndex": 0})
    );
    let progress = agent.wait("setup/progress", |params| params["state"] == "STOPPED").await;
    let finish: Vec<_> =
        progress["steps"].as_array().unwrap().iter().map(|step| step["finishStatus"].clone()).collect();
    assert_eq!(finish, [json!("SUCCEEDED"), json!("FAILED"), Value::Null]);
    assert_eq!(progress["currentStepIndex"], 1);
    assert_eq!(agent.read("done").await.unwrap(), b"1\n");
}

#[tokio::test]
async fn a_task_runs_and_is_stopped() {
    let tasks = vec![Task { name: "dev".to_owned(), command: "sleep 1000".to_owned(), port: Some(3000) }];
    let fake = start(Options { tasks, ..Options::default() }).await;
    let (_, mut agent) = Agent::fresh(&fake).await;
    let list = agent.call("task/list", json!({})).await.unwrap();
    assert_eq!(
        (&list["tasks"]["dev"]["shell"], &list["tasks"]["dev"]["preview"]["port"]),
        (&Value::Null, &json!(3000))
    );
    let running = agent.call("task/run", json!({"taskId": "dev"})).await.unwrap();
    assert_eq!(running["shell"]["status"], "RUNNING");
    let stopped = agent.call("task/stop", json!({"taskId": "dev"})).await.unwrap();
    assert_eq!(stopped["shell"]["status"], "KILLED");
    assert_eq!(agent.call("task/run", json!({"taskId": "none"})).await.unwrap_err().code, 601);
}
