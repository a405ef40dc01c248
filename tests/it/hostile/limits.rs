//! Plugins that use up whatever they can get, and plugins that crash.

use std::time::{Duration, Instant};

use pcoder_runtime::Error;
use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::agent::Launch;
use pcoder_tests::{Grant, House};
use tokio_util::sync::CancellationToken;

use super::code;
use crate::http::{Server, ok};
use crate::logs;

const SMALL: &str =
    "[limits]\ncpu-seconds = 1\nmemory-mib = 16\nwall-seconds = 30\noutput-mib = 1\nhandles = 32\nlog-lines = 20\n";

fn context() -> CallContext {
    CallContext::default()
}

async fn ends(house: &House, step: &[&str]) -> Error {
    house.script(context(), &[step]).await.expect_err("it does not end well")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_loop_is_stopped_and_others_go_on_meanwhile() {
    let house = House::provider(SMALL, Grant::All);
    let looping = async {
        let error = ends(&house, &["loop"]).await;
        (Instant::now(), error)
    };
    let others = async {
        for _ in 0..20 {
            house.goes_on().await;
        }
        Instant::now()
    };
    let ((stopped, error), answered) = tokio::join!(looping, others);
    assert!(error.is("limit") && error.message.contains("computed for longer than its limit of 1 s"), "{error:?}");
    assert!(error.hint.is_some());
    assert!(answered < stopped, "the others waited for the loop");
    house.goes_on().await;
}

#[tokio::test]
async fn a_loop_is_stopped_by_its_deadline_and_by_its_caller_too() {
    let house = House::provider("", Grant::All);
    let deadline = CallContext { deadline: Some(Some(Duration::from_millis(100))), ..context() };
    let error = house.script(deadline, &[&["loop"]]).await.expect_err("too long");
    assert!(error.is("timeout"), "{error:?}");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error =
        house.script(CallContext { cancel: Some(cancel), ..context() }, &[&["loop"]]).await.expect_err("stopped");
    assert!(error.is("cancelled"), "{error:?}");
    house.goes_on().await;
}

#[tokio::test]
async fn a_wait_in_the_host_is_stopped_by_the_deadline() {
    let house = House::provider("[limits]\nwall-seconds = 1\n", Grant::All);
    let error = ends(&house, &["wait"]).await;
    assert!(error.is("timeout") && error.message.contains("within 1 s"), "{error:?}");
    house.goes_on().await;
}

#[tokio::test]
async fn memory_without_end_is_a_limit() {
    let house = House::provider(SMALL, Grant::All);
    let error = ends(&house, &["allocate"]).await;
    assert!(error.is("limit") && error.message.contains("more memory than its limit of 16 MiB"), "{error:?}");
    house.goes_on().await;
}

#[tokio::test]
async fn a_crash_is_one_calls_end() {
    logs::capture();
    let house = House::provider(SMALL, Grant::All);
    for (step, reason) in [
        (&["panic", "mark-of-a-panic"][..], "unreachable"),
        (&["unreachable"], "unreachable"),
        (&["overflow"], "out of bounds memory access"),
        (&["descend"], "call stack exhausted"),
    ] {
        let error = ends(&house, step).await;
        assert!(error.is("internal") && error.message.contains(reason), "{step:?}: {error:?}");
        assert!(error.hint.is_some());
        house.goes_on().await;
    }
    assert!(logs::with("mark-of-a-panic").iter().any(|line| line.contains("ERROR")), "a panic's message is in the log");
}

#[tokio::test]
async fn too_many_handles_are_a_limit() {
    let house = House::provider(SMALL, Grant::All);
    assert_eq!(house.step(context(), &["handles", "16"]).await, "ok 16");
    let error = ends(&house, &["handles", "100"]).await;
    assert!(error.is("limit") && error.message.contains("32"), "{error:?}");
    house.goes_on().await;
}

#[tokio::test]
async fn giant_values_are_a_limit() {
    let house = House::provider("", Grant::All);
    let error = ends(&house, &["giant", "20000000"]).await;
    assert!(error.is("limit"), "{error:?}");
    let provider = house.plugin.provider().expect("a provider");
    let error = provider.list(context()).await.expect_err("a giant list");
    assert!(error.is("limit"), "{error:?}");
    let error = provider.read_file(context(), "hostile", "40000000").await.expect_err("a giant file");
    assert!(error.is("limit"), "{error:?}");
    let error = ends(&house, &["random", &u64::from(u32::MAX).to_string()]).await;
    assert!(error.is("internal") || error.is("limit"), "{error:?}");
    house.goes_on().await;
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_counted() {
    logs::capture();
    let house = House::provider(SMALL, Grant::All);
    let steps: [&[&str]; 2] = [&["log.flood", "5000", "mark-of-a-flood"], &["log", "mark-of-a-flood after"]];
    house.script(context(), &steps).await.expect("the call goes on");
    assert_eq!(logs::with("mark-of-a-flood").len(), 20);
    assert_eq!(logs::with("4981 further log lines were dropped").len(), 1);
    // One long line is cut, and terminals are not spoken to.
    house.step(context(), &["log.long", "1000000", "mark-of-length"]).await;
    let lines = logs::with("mark-of-length");
    assert!(lines.len() == 1 && lines[0].len() < 5000, "{} lines", lines.len());
    house.step(context(), &["log", "mark-of-escape \u{1b}[2J\u{202e} one\nmark-of-escape ERROR two\r\n"]).await;
    let lines = logs::with("mark-of-escape");
    assert!(lines.len() == 1 && !lines[0].contains(['\u{1b}', '\u{202e}', '\r']), "{lines:?}");
}

#[tokio::test]
async fn a_flood_of_output_is_a_limit_and_ends_the_program() {
    let yes = "[[exec]]\nprogram = \"/usr/bin/yes\"\nargs = [\"\"]\n[[exec]]\nprogram = \"as called\"\n";
    let house = House::provider(&format!("{yes}{SMALL}"), Grant::All);
    let answer = house.step(context(), &["process.capture", "/usr/bin/yes"]).await;
    assert_eq!(code(&answer), "limit", "{answer}");
    // It floods, and then it waits for ever with its other stream open.
    let script = "trap '' PIPE; yes | head -c 4000000; exec 1>&-; exec sleep 1000";
    let command = pcoder_tests::argv("/bin/sh", &["-c", script]);
    let context = pcoder_tests::called(&command);
    let answer = house.step(context, &["process.capture", "/bin/sh", "-c", script]).await;
    assert_eq!(code(&answer), "limit", "{answer}");
    house.goes_on().await;
}

#[tokio::test]
async fn everything_that_is_moved_comes_out_of_one_budget() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("large"), vec![b'x'; 700 << 10]).expect("a file");
    let large = "x".repeat(700 << 10);
    let answer = large.clone();
    let server = Server::start(move |head| ok(if head.starts_with("GET ") { &answer } else { "" }));
    let request = format!(
        "[[files]]\nroot = \"box\"\naccess = \"read-write\"\n\
         [[exec]]\nprogram = \"/usr/bin/head\"\nargs = [\"<any> <any>\"]\n\
         [[net]]\nurl = \"{}\"\nmethods = [\"GET\", \"POST\"]\naddresses = [\"loopback\"]\n{SMALL}",
        server.url("/")
    );
    let house = House::provider(&request, Grant::All);
    let context = || CallContext { roots: [("box".to_owned(), folder.path().to_owned())].into(), ..context() };
    let url = server.url("/");
    let moves: [&[&str]; 4] = [
        &["files.read", "box", "large"],
        &["files.write", "box", "other", &large],
        &["http", "GET", &url],
        &["http.large-body", "POST", &url, "", "700000"],
    ];
    for first in moves {
        // Each is within the budget by itself, and the call goes on when the second one is not.
        for second in moves {
            let answers = house.script(context(), &[first, second, &["clock"]]).await.expect("the call itself");
            let codes: Vec<_> = answers.iter().map(|it| code(it)).collect();
            assert_eq!(codes, ["ok", "limit", "ok"], "{} then {}: {answers:.100?}", first[0], second[0]);
        }
    }
    house.goes_on().await;
}

#[tokio::test]
async fn a_folder_with_more_names_than_may_be_moved_is_a_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..5000 {
        std::fs::write(folder.path().join(format!("{number:0>200}")), "").expect("a file");
    }
    let house = House::provider(&format!("[[files]]\nroot = \"box\"\naccess = \"read\"\n{SMALL}"), Grant::All);
    let context = CallContext { roots: [("box".to_owned(), folder.path().to_owned())].into(), ..context() };
    let answer = house.step(context, &["files.list", "box", ""]).await;
    assert_eq!(code(&answer), "limit", "{answer}");
}

#[tokio::test]
async fn asking_without_end_is_a_limit_and_does_not_fill_the_audit() {
    let house = House::provider("", Grant::Nothing);
    let answer = house.step(context(), &["until", "limit", "files.read", "box", "x"]).await;
    assert_eq!(code(&answer), "ok", "{answer}");
    assert!(house.audit.records().len() < 200_000, "{} records", house.audit.records().len());
    house.goes_on().await;
}

#[tokio::test]
async fn an_error_is_shown_and_not_obeyed() {
    let house = House::provider("", Grant::All);
    let nasty = format!("\u{1b}]0;title\u{7}\u{202e}{}", "x".repeat(100_000));
    let provider = house.plugin.provider().expect("a provider");
    let error = provider.terminate(context(), &nasty).await.expect_err("its own error");
    for text in [
        error.code.as_ref(),
        &error.message,
        &error.operation,
        error.subject.as_deref().unwrap_or_default(),
        error.hint.as_deref().unwrap_or_default(),
    ] {
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
        assert!(text.len() < 5000, "{} bytes", text.len());
    }
}

#[tokio::test]
async fn an_agent_can_harm_only_itself() {
    let house = House::load("hostile-agent", SMALL, Grant::All);
    let agent = house.plugin.agent().expect("an agent");
    for (attack, code) in [("loop", "limit"), ("allocate", "limit"), ("panic", "internal"), ("giant", "limit")] {
        let launch = Launch {
            engines: Vec::new(),
            args: vec![attack.to_owned()],
            cwd: "/".to_owned(),
            home_dir: "/".to_owned(),
            env: Vec::new(),
            options: Vec::new(),
        };
        let error = agent.command(context(), &launch).await.expect_err("it does not end well");
        assert!(error.is(code), "{attack}: {error:?}");
        assert_eq!(agent.info(context()).await.expect("the host goes on").name, "hostile");
    }
}
