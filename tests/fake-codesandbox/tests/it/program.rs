//! The fake as a program.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::client::http;

#[tokio::test]
async fn the_program_says_where_it_is_and_ends_with_its_input_and_its_folders() {
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-codesandbox"));
    command.args(["--until-eof", "--key", "csb_other", "--fault", "vm.start=503", "--agent", "pint", "--root"]);
    command.arg(root.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let url = ready["base_url"].as_str().unwrap();
    let post = async |path: &str| {
        let answer = http().post(format!("{url}{path}")).bearer_auth("csb_other").send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap())
    };
    let (status, made) = post("/sandbox/pcz35m/fork").await;
    assert_eq!(status, 201);
    let start = format!("/vm/{}/start", made["data"]["id"].as_str().unwrap());
    assert_eq!(post(&start).await.0, 503);
    assert_eq!(post(&start).await.1["data"]["vm_agent_type"], "pint");
    assert_eq!(root.path().read_dir().unwrap().count(), 1);
    drop(child.stdin.take());
    assert!(child.wait().await.unwrap().success());
    assert_eq!(root.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn the_program_refuses_what_is_no_fault() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-codesandbox"));
    let output = command.args(["--fault", "vm.start=explode"]).output().await.unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("`vm.start=explode` is no fault"));
}
