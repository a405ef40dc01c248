//! What WASI has beyond the worlds is there for components that import it, and holds nothing.

use pcoder_runtime::Error;
use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::Command;
use pcoder_runtime::contract::agent::Launch;
use pcoder_runtime::inspect::inspect;
use pcoder_tests::{Grant, House};

use crate::double::secrets;
use crate::logs;

/// A secret of the call.
const VALUE: &str = "value-of-the-key-in-a-line";

fn house() -> House {
    House::load("hostile-wasi", "[limits]\nlog-lines = 20\n", Grant::All)
}

/// Makes one attempt and says what it found.
async fn attempt(house: &House, attempt: &[&str]) -> Result<String, Error> {
    let launch = Launch {
        engines: Vec::new(),
        args: attempt.iter().map(|&it| it.to_owned()).collect(),
        cwd: "/".to_owned(),
        home_dir: "/".to_owned(),
        env: Vec::new(),
        options: Vec::new(),
    };
    let broker = secrets(&[]);
    broker.issue_for_command("KEY", VALUE.into()).expect("a placeholder");
    let context = CallContext { secrets: broker, ..CallContext::default() };
    let spec = house.plugin.agent().expect("an agent").command(context, &launch).await?;
    match spec.command {
        Command::Argv(argv) => Ok(argv.args.concat()),
        Command::Shell(script) => panic!("{script}"),
    }
}

async fn found(house: &House, words: &[&str]) -> String {
    attempt(house, words).await.expect("an answer")
}

#[tokio::test]
async fn there_is_no_environment_no_argument_no_folder_no_input_and_no_terminal() {
    let house = house();
    assert!(std::env::vars().count() > 0 && std::env::args().count() > 0, "there is something that could be seen");
    assert_eq!(found(&house, &["environment"]).await, "[] [] None");
    assert_eq!(found(&house, &["preopens"]).await, "0");
    assert_eq!(found(&house, &["stdin"]).await, "Err(StreamError::Closed)");
    assert_eq!(found(&house, &["terminals"]).await, "false false false");
    assert_eq!(found(&house, &["random"]).await, "8 false");
    assert!(house.audit.records().iter().all(|it| matches!(it.event, pcoder_runtime::audit::Event::Call { .. })));
}

#[tokio::test]
async fn no_socket_is_made_and_no_name_is_looked_up() {
    let house = house();
    for words in [["tcp", "4"], ["tcp", "6"], ["udp", "4"], ["udp", "6"]] {
        let answer = found(&house, &words).await;
        assert!(answer.starts_with("Err(ErrorCode { code: 1, name: \"access-denied\""), "{words:?}: {answer}");
    }
    // An address needs no lookup, and is refused all the same.
    for name in ["localhost", "example.com", "127.0.0.1", "::1", "169.254.169.254"] {
        let answer = found(&house, &["resolve", name]).await;
        assert!(answer.contains("permanent-resolver-failure") || answer.contains("access-denied"), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_forged_handle_ends_the_call_and_reaches_nothing() {
    let house = house();
    for handle in ["0", "1", "2", "3", "4294967295"] {
        for words in [
            ["forged-descriptor", handle, "open"],
            ["forged-descriptor", handle, "read"],
            ["forged-descriptor", handle, "write"],
            ["forged-descriptor", handle, "unlink"],
            ["forged-descriptor", handle, "list"],
            ["forged-descriptor", handle, "stat"],
            ["mistaken-descriptor", handle, "open"],
            ["forged-tcp", handle, "bind"],
            ["forged-tcp", handle, "connect"],
            ["forged-tcp", handle, "listen"],
            ["forged-udp", handle, "bind"],
            ["forged-udp", handle, "stream"],
            ["forged-network", handle, "-"],
        ] {
            let error = attempt(&house, &words).await.expect_err("it is no handle");
            assert!(error.is("internal") && error.message.contains("crashed"), "{words:?}: {error:?}");
        }
    }
    assert_eq!(found(&house, &["preopens"]).await, "0");
}

#[tokio::test]
async fn exit_is_the_end_of_one_call_with_the_reason() {
    let house = house();
    for (words, code) in
        [(["exit", "ok"], 0), (["exit", "error"], 1), (["exit-with-code", "0"], 0), (["exit-with-code", "77"], 77)]
    {
        let error = attempt(&house, &words).await.expect_err("it ended itself");
        assert!(error.is("internal"), "{error:?}");
        let reason = format!("crashed: it ended itself with the exit code {code}");
        assert!(error.message.contains(&reason), "{error:?}");
        assert_eq!(found(&house, &["preopens"]).await, "0");
    }
}

#[tokio::test]
async fn what_it_prints_is_its_log_with_the_limits_of_a_log() {
    logs::capture();
    let house = house();
    found(&house, &["stdout", "mark-of-wasi one\nmark-of-", "wasi two\r\nmark-of-wasi \u{1b}[2J three"]).await;
    let lines = logs::with("mark-of-wasi");
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, end) in lines.iter().zip(["mark-of-wasi one", "mark-of-wasi two", "three"]) {
        assert!(line.contains("INFO") && line.contains("pcoder::plugin") && line.contains("hostile-wasi"), "{line}");
        assert!(line.contains(end) && !line.contains(['\r', '\u{1b}']), "{line}");
    }
    found(&house, &["stderr", "mark-of-wasi-errors\n"]).await;
    assert!(logs::with("mark-of-wasi-errors")[0].contains("WARN"));
    // A secret that it came across is taken out, also when it comes in pieces.
    found(&house, &["stdout", "mark-of-wasi-key value-of-", "the-key-in-a-line\n"]).await;
    assert!(logs::with("mark-of-wasi-key").len() == 1 && logs::with(VALUE).is_empty());
    // One limit for both ways: twenty lines, and the rest is counted.
    found(&house, &["flood", "5000"]).await;
    assert_eq!(logs::with("4980 further log lines were dropped").len(), 1);
}

#[tokio::test]
async fn what_it_can_never_do_does_not_shrink_by_what_holds_nothing() {
    let inspection = inspect(&pcoder_tests::component("hostile-wasi")).expect("a plugin");
    assert!(inspection.imports.iter().any(|it| it.starts_with("wasi:filesystem/types")), "{:?}", inspection.imports);
    assert!(inspection.imports.iter().any(|it| it.starts_with("wasi:sockets/tcp")), "{:?}", inspection.imports);
    let impossible = inspection.impossible();
    for what in ["run programs on this host", "read or write files of this host", "reach the network"] {
        assert!(impossible.contains(&what), "{impossible:?}");
    }
}
