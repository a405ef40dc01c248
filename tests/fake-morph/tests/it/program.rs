//! The program.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client::send;

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_where_it_is_and_ends_with_its_input() {
    let fault = r#"{"what":{"status":{"status":503}}}"#;
    let mut program = Command::new(env!("CARGO_BIN_EXE_fake-morph"))
        .args(["--key", "k", "--boot-polls", "0", "--snapshot", "snapshot_mine", "--fault", fault, "--until-eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(program.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let base = said["base_url"].as_str().unwrap();
    assert_eq!(send(base, "GET", "/image", "k", "").await.unwrap().status, 503);
    assert_eq!(
        send(base, "POST", "/instance?snapshot_id=snapshot_mine", "k", "").await.unwrap().json()["status"],
        "ready"
    );
    assert!(said["ssh_host_key"].as_str().unwrap().starts_with("ssh-ed25519 "));
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
}
