use pcoder_sdk::testing::{Call, FakeHost};
use pcoder_sdk::{ExitStatus, Output};
use serde_json::{Value, json};

use super::*;

/// The folder of the first run: the fake host's random numbers are always the same.
fn folder() -> String {
    format!("/home/user/.pm2/pcoder/run/fix-tests.{:016x}", FakeHost::new().process_manager().random().bits())
}

fn element(name: &str, id: u64, status: &str) -> Value {
    let pid = if status == "online" { 100 + id } else { 0 };
    json!({ "pid": pid, "name": name, "pm_id": id, "pm2_env": {
        "status": status, "autorestart": false, "restart_time": 0, "TOKEN": "TOP SECRET", "exit_code": 0,
        "PCODER_PM2_RUN": format!("{name}.0123456789abcdef"), "pm_pid_path": format!("/h/pids/{name}-{id}.pid"),
        "pm_out_log_path": format!("/h/{name}/out.log"), "pm_err_log_path": format!("/h/{name}/err.log"),
    } })
}

fn listed(elements: &[Value]) -> Output {
    Output::new(0, Value::from(elements).to_string(), "")
}

/// A host that answers these commands, one after the other.
fn host(answers: impl IntoIterator<Item = Output>) -> FakeHost {
    let host = FakeHost::new();
    for answer in answers {
        host.answer("target.run", Ok(answer));
    }
    host
}

/// The words of each command behind `sh -c SCRIPT pcoder-pm2`.
fn verbs(host: &FakeHost) -> Vec<Vec<String>> {
    let words = |call: &Call| match &call.spec.as_ref()?.command {
        pcoder_sdk::Command::Argv(argv) => Some(argv.args[2..].to_vec()),
        pcoder_sdk::Command::Shell(_) => panic!("the plugin quotes nothing"),
    };
    host.calls().iter().filter_map(words).collect()
}

fn spec() -> ProcessSpec {
    ProcessSpec::once(CommandSpec::argv("tool", ["x"]).with_env("TOKEN", "placeholder").named("fix tests"))
}

#[test]
fn starting_writes_the_environment_and_starts() {
    let host = host([
        Output::new(0, format!("a shell's greeting\n{}\n", folder()), ""),
        listed(&[element("other", 0, "online"), element("fix-tests", 1, "online")]),
    ]);
    let info = Pm2.start(host.process_manager(), spec()).unwrap();
    assert_eq!((info.name.as_str(), info.status.as_str(), info.pid), ("fix-tests", "online", Some(101)));
    let calls = host.calls();
    let operations: Vec<_> = calls.iter().map(|call| call.operation).collect();
    assert_eq!(operations, ["target.run", "target.write-file-atomic", "target.run"]);
    assert_eq!(calls[1].subject, format!("{}/environment", folder()));
    assert_eq!(calls[1].options, Some(WriteOptions::plain().with_mode(0o600)));
    let content = String::from_utf8(calls[1].content.clone().unwrap()).unwrap();
    assert!(content.contains(" TOKEN\nplaceholder\n"), "{content}");
    let verbs = verbs(&host);
    assert_eq!(verbs[0][..2], ["pcoder-pm2", "prepare"]);
    assert!(verbs[0][2].starts_with("fix-tests.") && verbs[0][2].len() == "fix-tests.".len() + 16);
    assert_eq!(verbs[1][..4], ["pcoder-pm2", "start", &folder(), "fix-tests"]);
    assert_eq!(verbs[1].last().unwrap(), "--no-autorestart");
    for call in [&calls[0], &calls[2]] {
        assert!(!call.subject.contains("placeholder"), "no variable is in a command line");
    }
}

#[test]
fn what_cannot_be_right_is_refused_before_anything_runs() {
    let host = FakeHost::new();
    let wrong = ProcessSpec { instances: Some(0), ..spec() };
    assert_eq!(Pm2.start(host.process_manager(), wrong).unwrap_err().code, "invalid");
    assert!(host.calls().is_empty());
}

#[test]
fn every_ending_of_the_driver_is_an_error_with_a_code() {
    let mut shown = Vec::new();
    for code in [41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 1, 127] {
        let host = host([Output::new(0, folder(), ""), Output::new(code, "TOP SECRET", "noise\n[PM2][ERROR] boom\n")]);
        let error = Pm2.start(host.process_manager(), spec()).unwrap_err();
        shown.push(format!("{code}: {} {} [{}]", error.code, error.line(), error.hint.unwrap_or_default()));
    }
    insta::assert_snapshot!("errors", shown.join("\n"));
}

#[test]
fn without_pm2_nothing_is_written() {
    let host = host([Output::new(41, "", "")]);
    assert_eq!(Pm2.start(host.process_manager(), spec()).unwrap_err().code, "not-found");
    assert!(host.calls().iter().all(|call| call.operation != "target.write-file-atomic"));
}

#[test]
fn a_start_that_failed_leaves_no_secret_and_one_that_may_have_worked_keeps_it() {
    for (answer, removed) in [
        (Output::new(48, "", ""), true),
        (Output::new(45, "", ""), true),
        (Output::new(44, "", ""), false),
        (Output::new(0, "garbage", ""), false),
    ] {
        let host = host([Output::new(0, folder(), ""), answer.clone()]);
        assert!(Pm2.start(host.process_manager(), spec()).is_err());
        let last = host.log_of_calls().pop().unwrap();
        assert_eq!(last == format!("target.delete-directory {}", folder()), removed, "{answer:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_the_runs_is_not_touched() {
    for answer in ["", "/", "/home/user", "fix-tests.0", "/home/user/.pm2/pcoder/run/other.0123456789abcdef"] {
        let host = host([Output::new(0, answer, "")]);
        assert_eq!(Pm2.start(host.process_manager(), spec()).unwrap_err().code, "integrity");
        assert_eq!(host.calls().len(), 1, "{answer}");
    }
}

#[test]
fn the_targets_own_error_keeps_its_code() {
    let host = FakeHost::new();
    host.fail("target.run", Error::new(code::DENIED, "target.run", "no grant").hint("`pcoder plugin grant`"));
    let error = Pm2.start(host.process_manager(), spec()).unwrap_err();
    assert_eq!((error.code.as_str(), error.operation.as_str()), ("denied", "process-manager.start"));
    assert_eq!(error.hint.as_deref(), Some("`pcoder plugin grant`"));
}

#[test]
fn a_list_that_cannot_be_read_is_empty_and_the_log_says_so_without_what_was_in_it() {
    for garbage in ["", "TOP SECRET", "[PM2] TOP SECRET", "[{\"TOP SECRET\""] {
        let host = host([Output::new(0, garbage, "")]);
        assert_eq!(Pm2.list(host.process_manager()), Ok(Vec::new()));
        let logged = host.logged();
        assert_eq!(logged.len(), 1);
        assert_eq!(logged[0].0, Level::Warn);
        assert!(!logged[0].1.contains("SECRET"));
    }
    let host = host([Output::new(45, "TOP SECRET", "boom")]);
    let error = Pm2.list(host.process_manager()).unwrap_err();
    assert_eq!(error.line(), "process-manager.list: `pm2 list` failed: boom");
}

#[test]
fn stopping_names_the_copies_by_number_and_leaves_out_what_is_over() {
    let entries = [("w", 3, "online"), ("x", 4, "online"), ("w", 5, "online"), ("w", 6, "stopped")];
    let list = entries.map(|(name, id, status)| element(name, id, status));
    let host = host([listed(&list), Output::new(0, "", "")]);
    Pm2.stop(host.process_manager(), "w").unwrap();
    let run = "w.0123456789abcdef";
    let expected = ["pcoder-pm2", "stop", "3", "/h/pids/w-3.pid", run, "5", "/h/pids/w-5.pid", run];
    assert_eq!(verbs(&host)[1], expected);
}

#[test]
fn what_is_started_again_while_it_is_stopped_is_stopped_again() {
    let again = |status| {
        let mut element = element("w", 3, status);
        element["pm2_env"]["autorestart"] = json!(true);
        element
    };
    let running = || listed(&[again("online")]);
    let done = || Output::new(0, "", "");
    let stopped = Output::new(0, format!("{}\npcoder w.0123456789abcdef/stopped.3 \n", json!([again("stopped")])), "");
    let host = host([running(), done(), running(), done(), stopped]);
    Pm2.stop(host.process_manager(), "w").unwrap();
    let stops = |host: &FakeHost| verbs(host).iter().filter(|it| it[1] == "stop").count();
    assert_eq!(stops(&host), 2);
    // Of what somebody else started with PM2, nobody writes down that it was stopped.
    let host = self::host([running(), done(), listed(&[again("stopped")])]);
    Pm2.stop(host.process_manager(), "w").unwrap();
    assert_eq!(stops(&host), 1);
    // Not for ever.
    let host = self::host((0..STOPS).flat_map(|_| [running(), done()]).chain([running()]));
    let error = Pm2.stop(host.process_manager(), "w").unwrap_err();
    assert_eq!((error.code.as_str(), stops(&host)), ("conflict", STOPS));
}

#[test]
fn a_stop_that_fails_is_an_error() {
    let host = host([listed(&[element("w", 3, "online")]), Output::new(45, "TOP SECRET", "[PM2][ERROR] boom")]);
    let error = Pm2.stop(host.process_manager(), "w").unwrap_err();
    assert_eq!(error.line(), "process-manager.stop (w): `pm2 stop` failed: [PM2][ERROR] boom");
    let unreadable = self::host([Output::new(0, "garbage", "")]);
    assert_eq!(Pm2.stop(unreadable.process_manager(), "w").unwrap_err().code, "integrity");
}

#[test]
fn deleting_cleans_up_even_what_pm2_does_not_know() {
    let host = host([listed(&[element("w", 3, "stopped")]), Output::new(0, "", "")]);
    Pm2.delete(host.process_manager(), "w").unwrap();
    assert_eq!(verbs(&host)[1], ["pcoder-pm2", "delete", "w", "3", "/h/pids/w-3.pid", "w.0123456789abcdef"]);
    let host = self::host([listed(&[]), Output::new(0, "", "")]);
    Pm2.delete(host.process_manager(), "w").unwrap();
    assert_eq!(verbs(&host)[1], ["pcoder-pm2", "delete", "w"]);
    // Somebody else's process with a name that is not safe: the safe name may be one of ours.
    let host = self::host([listed(&[element("w w", 3, "stopped")]), Output::new(0, "", "")]);
    Pm2.delete(host.process_manager(), "w w").unwrap();
    assert_eq!(verbs(&host)[1], ["pcoder-pm2", "delete", "", "3", "/h/pids/w w-3.pid", ""]);
}

#[test]
fn logs_are_read_from_the_files_once_each() {
    let list = [element("w", 3, "online"), element("w", 4, "online")];
    let host = host([listed(&list), Output::new(0, "out\n", ""), Output::new(0, b"err\xff\n".as_slice(), "")]);
    let logs = Pm2.logs(host.process_manager(), "w", 50).unwrap();
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("out\n", "err\u{fffd}\n"));
    assert_eq!(verbs(&host)[1..], [["sh", "/h/w/out.log", "50"], ["sh", "/h/w/err.log", "50"]]);
    let killed = Output { status: ExitStatus::Signaled(9), stdout: Vec::new(), stderr: Vec::new() };
    let host = self::host([listed(&list), killed]);
    let error = Pm2.logs(host.process_manager(), "w", 50).map(|_| ()).unwrap_err();
    assert_eq!((error.code.as_str(), error.subject.as_deref()), ("io", Some("/h/w/out.log")));
}

#[test]
fn it_says_what_it_can() {
    let info = Pm2.info();
    assert_eq!((info.name.as_str(), info.features.join(" ")), ("pm2", "daemon restart logs".to_owned()));
}
