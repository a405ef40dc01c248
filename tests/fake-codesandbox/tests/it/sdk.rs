//! The official SDK and CLI, from npm.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pcoder_fake_codesandbox::{Agent, FakeCodeSandbox, Options, SetupStep};

use crate::client::{fork, start};

/// The folder in which the SDK is installed; none where that cannot be done, and then the test is left out.
fn installed() -> Option<PathBuf> {
    pcoder_test_npm::installed(Path::new(env!("CARGO_TARGET_TMPDIR")), "@codesandbox/sdk", "2.4.2")
}

/// Runs a program with the fake as the service; what it printed on both streams, and whether it succeeded.
async fn run(fake: &FakeCodeSandbox, folder: &Path, args: &[&str]) -> (String, bool) {
    let mut command = tokio::process::Command::new("node");
    command.args(args).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.env("CSB_API_KEY", "csb_v1_fake").env("CSB_BASE_URL", fake.base_url()).env("NO_COLOR", "1");
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let output = output.expect("an end in two minutes").unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

fn gated_setup() -> Options {
    let command = "until [ -e /tmp/go ]; do sleep 0.05; done; echo set up".to_owned();
    // The SDK names each shell as soon as it knows it; before that, this machine may be slow.
    let exec_delay = Duration::from_secs(2);
    Options { exec_delay, setup: vec![SetupStep { name: "Setup".to_owned(), command }], ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_does_everything() {
    let Some(folder) = installed() else { return };
    let fake = start(gated_setup()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sdk.mjs");
    let (text, succeeded) = run(&fake, &folder, &[script.to_str().unwrap()]).await;
    assert!(succeeded && text.ends_with("all passed\n"), "{text}");
    assert_eq!(fake.sandboxes(), []);
    let requests = fake.requests();
    assert!(requests.iter().all(|request| request.authorized && request.user_agent == "codesandbox-sdk/2.4.2"));
    fake.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_cli_lists_forks_hibernates_and_shuts_down() {
    let Some(folder) = installed() else { return };
    let fake = start(Options::default()).await;
    let csb = folder.join("node_modules/@codesandbox/sdk/dist/bin/codesandbox.mjs");
    let csb = csb.to_str().unwrap();
    let idle = fork(&fake).await;
    let (text, succeeded) = run(&fake, &folder, &[csb, "sandboxes", "fork", "69vrxg"]).await;
    assert!(succeeded, "{text}");
    let (id, _) = fake.sandboxes().into_iter().find(|(id, running)| *running && *id != idle).expect("one that runs");
    assert!(text.contains(&id), "{text}");
    let (text, succeeded) = run(&fake, &folder, &[csb, "sandboxes", "list"]).await;
    assert!(succeeded && text.contains(&id) && text.contains(&idle), "{text}");
    let (text, succeeded) = run(&fake, &folder, &[csb, "sandboxes", "hibernate", &id]).await;
    assert!(succeeded && text.contains("hibernated successfully"), "{text}");
    let (text, succeeded) = run(&fake, &folder, &[csb, "sandboxes", "shutdown", &id]).await;
    assert!(!succeeded && text.contains("Failed to shutdown"), "{text}");
    let tried = fake.requests().iter().filter(|request| request.operation == "vm.shutdown").count();
    assert_eq!(tried, 3);
    crate::client::boot(&fake, &id, serde_json::json!({})).await;
    let (text, succeeded) = run(&fake, &folder, &[csb, "sandboxes", "shutdown", &id]).await;
    assert!(succeeded, "{text}");
    fake.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_reads_and_writes_files_of_the_newer_agent() {
    let Some(folder) = installed() else { return };
    let fake = start(Options { agent: Agent::Pint, ..Options::default() }).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pint.mjs");
    let (text, succeeded) = run(&fake, &folder, &[script.to_str().unwrap()]).await;
    assert!(succeeded && text.ends_with("all passed\n"), "{text}");
    fake.stop().await;
}
