//! Commands.

use futures_util::StreamExt;
use http_body_util::BodyExt;
use pcoder_fake_morph::{ExecReading, Options, SseFormat};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::{KEY, LONG, call, exec, fake, fake_with, open, output, post, start};

async fn words(fake: &pcoder_fake_morph::FakeMorph, id: &str, command: &[&str]) -> Value {
    post(fake, &format!("/instance/{id}/exec"), &json!({ "command": command }).to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn elements_are_joined_for_a_shell() {
    let fake = fake().await;
    let id = start(&fake).await;
    let done = words(&fake, &id, &["bash", "-lc", "echo a b && echo c"]).await;
    assert_eq!(done, json!({ "exit_code": 0, "stdout": "\nc\n", "stderr": "" }));
    let done = words(&fake, &id, &["echo $0 $HOME $PWD; echo err >&2; exit 3"]).await;
    assert_eq!(done, json!({ "exit_code": 3, "stdout": "bash /root /root\n", "stderr": "err\n" }));
    assert_eq!(exec(&fake, &id, "cat; echo end").await["stdout"], "end\n");
    assert_eq!(exec(&fake, &id, "no-such-program").await["exit_code"], 127);
    assert_eq!(exec(&fake, &id, "kill -9 $$").await["exit_code"], -1);
    assert_eq!(exec(&fake, &id, "sh -c 'kill -9 $$'; exit $?").await["exit_code"], 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn elements_are_arguments_when_read_strictly() {
    let fake = fake_with(Options { exec: ExecReading::Strict, ..Options::default() }).await;
    let id = start(&fake).await;
    let done = words(&fake, &id, &["bash", "-c", "echo a b && echo \"$0\"", "x y"]).await;
    assert_eq!(done, json!({ "exit_code": 0, "stdout": "a b\nx y\n", "stderr": "" }));
    assert_eq!(words(&fake, &id, &["echo hello"]).await["exit_code"], 127);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_as_long_as_linux_takes() {
    let fake = fake().await;
    let id = start(&fake).await;
    let line = |length: usize| format!("echo ok #{}", "x".repeat(length - "echo ok #".len()));
    assert_eq!(exec(&fake, &id, &line(131_071)).await["stdout"], "ok\n");
    let done = exec(&fake, &id, &line(131_072)).await;
    assert_eq!((&done["exit_code"], &done["stdout"]), (&json!(1), &json!("")));
    assert!(done["stderr"].as_str().unwrap().contains("Argument list too long"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_replaced() {
    let fake = fake().await;
    let id = start(&fake).await;
    assert_eq!(output(&fake, &id, "printf 'a\\377b\\303\\251'").await, "a\u{fffd}bé");
    let long = output(&fake, &id, "head -c 3000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(long.len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_waits_for_whoever_holds_the_output() {
    let fake = fake().await;
    let id = start(&fake).await;
    // The shell ends at once; what it left behind ends when the file appears.
    let line = "(until [ -e go ]; do sleep 0.01; done; echo late) & echo early; touch said";
    let go = "until [ -e said ]; do sleep 0.01; done; touch go";
    let (done, _) = tokio::join!(exec(&fake, &id, line), exec(&fake, &id, go));
    assert_eq!(done["stdout"], "early\nlate\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_on_when_its_client_leaves() {
    let fake = fake().await;
    let id = start(&fake).await;
    let body =
        json!({ "command": ["mkfifo /tmp/p; echo on >started; read line </tmp/p; echo $line >done"] }).to_string();
    let path = format!("/instance/{id}/exec");
    let base = fake.base_url();
    let leaving = tokio::spawn(async move { open(&base, "POST", &path, KEY, &body).await.map(drop) });
    output(&fake, &id, "until [ -s started ]; do sleep 0.01; done").await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    assert_eq!(
        output(&fake, &id, "echo word >/tmp/p; until [ -s done ]; do sleep 0.01; done; cat done").await,
        "word\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_instance_is_rebooted_has_lost_its_connection() {
    let fake = fake().await;
    let id = start(&fake).await;
    let path = format!("/instance/{id}/exec");
    let waiting = call(&fake, "POST", &path, r#"{"command":["echo on >started; exec sleep 1000"]}"#);
    let rebooting = async {
        output(&fake, &id, "until [ -s started ]; do sleep 0.01; done").await;
        post(&fake, &format!("/instance/{id}/reboot"), "").await;
    };
    let (answer, ()) = tokio::join!(waiting, rebooting);
    assert_eq!(answer.status, 500, "{}", answer.text());
}

async fn streamed(format: SseFormat, line: &str) -> String {
    let fake = fake_with(Options { sse: format, ..Options::default() }).await;
    let id = start(&fake).await;
    let body = json!({ "command": [line] }).to_string();
    let answer = call(&fake, "POST", &format!("/instance/{id}/exec/sse"), &body).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    answer.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_either_form() {
    // A program that writes once.
    let line = "echo YQpiCg== | base64 -d; echo e >&2; exit 3";
    let expected = "data: {\"content\":\"a\\nb\\n\",\"type\":\"stdout\"}\n\n\
                    data: {\"content\":\"e\\n\",\"type\":\"stderr\"}\n\n\
                    data: {\"content\":3,\"type\":\"exit_code\"}\n\ndata: [DONE]\n\n";
    let mut events: Vec<_> =
        streamed(SseFormat::Unnamed, line).await.split_inclusive("\n\n").map(str::to_owned).collect();
    // Two pipes have no order.
    events[..2].sort_by_key(|event| !event.contains("stdout"));
    let wanted: Vec<_> = expected.split_inclusive("\n\n").map(str::to_owned).collect();
    let read = |event: &String| serde_json::from_str::<Value>(event.trim_start_matches("data: ")).ok();
    assert_eq!(events.iter().map(read).collect::<Vec<_>>(), wanted.iter().map(read).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap(), "data: [DONE]\n\n");

    let named = streamed(SseFormat::Named, "echo YQ0KYg== | base64 -d; exit 3").await;
    assert_eq!(named, "event: stdout\ndata: a\ndata: b\n\nevent: exit\ndata: 3\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_while_the_command_runs_and_keeps_characters_whole() {
    let fake = fake().await;
    let id = start(&fake).await;
    let line = "mkfifo /tmp/p; printf 'one\\303'; read line </tmp/p; printf '\\251'; exit 0";
    let path = format!("/instance/{id}/exec/sse");
    let body = json!({ "command": [line] }).to_string();
    let response = open(&fake.base_url(), "POST", &path, KEY, &body).await.unwrap();
    let mut events = response.into_body().into_data_stream();
    let mut next = async || {
        let event = timeout(LONG, events.next()).await.expect("in time").expect("an event").unwrap();
        String::from_utf8(event.to_vec()).unwrap()
    };
    assert!(next().await.contains("\"one\""));
    output(&fake, &id, "until [ -p /tmp/p ]; do sleep 0.01; done; echo >/tmp/p").await;
    assert!(next().await.contains("\"é\""));
    assert!(next().await.contains("exit_code"));
}
