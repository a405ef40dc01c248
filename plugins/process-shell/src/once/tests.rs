use pcoder_sdk::testing::FakeHost;
use pcoder_sdk::{CommandSpec, RestartLimits, Setting};

use super::*;

fn start(host: &FakeHost, spec: ProcessSpec) -> Result<ProcessInfo> {
    Once.start(host.process_manager(), spec)
}

#[test]
fn a_command_runs_once_as_it_is() {
    for command in [
        CommandSpec::argv("tool", ["a b", "$(x)"])
            .in_dir("~/p")
            .with_env("K", "it's")
            .with_path_entry("/x")
            .named("my run"),
        CommandSpec::shell("a | b").named("my run"),
    ] {
        let host = FakeHost::new();
        let info = start(&host, ProcessSpec::once(command.clone())).unwrap();
        assert_eq!((info.name.as_str(), info.status.as_str(), info.exit_code), ("my-run", "finished", Some(0)));
        let calls = host.calls();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].operation, "target.run");
        assert_eq!(calls[0].spec, Some(command));
        assert_eq!(calls[0].content.as_deref(), Some(b"".as_slice()));
    }
}

#[test]
fn a_failure_is_an_error_with_its_code_and_the_end_of_what_it_said() {
    let host = FakeHost::new();
    let stderr = format!("{}boom\n", "noise\n".repeat(1000));
    host.answer("target.run", Ok(Output::new(3, "out", stderr.clone())));
    let error = start(&host, ProcessSpec::once(CommandSpec::argv("x", [""; 0]))).unwrap_err();
    assert_eq!((error.code.as_str(), error.subject.as_deref()), ("process", Some("process")));
    assert_eq!(
        error.message,
        format!(
            "it ended with exit code 3 and {} bytes on standard error: noise / noise / noise / noise / boom",
            stderr.len()
        )
    );
    let killed = Output { status: ExitStatus::Signaled(9), stdout: Vec::new(), stderr: Vec::new() };
    host.answer("target.run", Ok(killed));
    let error = start(&host, ProcessSpec::once(CommandSpec::argv("x", [""; 0]))).unwrap_err();
    assert_eq!(error.message, "it ended with signal 9 and 0 bytes on standard error");
    host.answer("target.run", Ok(Output::new(1, "", "x".repeat(100_000))));
    let error = start(&host, ProcessSpec::once(CommandSpec::argv("x", [""; 0]))).unwrap_err();
    assert!(error.message.chars().count() < 700);
}

#[test]
fn what_it_cannot_do_is_refused_before_anything_runs() {
    let limits = RestartLimits { max_restarts: Some(3), min_uptime_ms: None };
    let spec = || ProcessSpec::once(CommandSpec::argv("x", [""; 0]));
    for (spec, code) in [
        (ProcessSpec { restart: Restart::OnExit(limits), ..spec() }, "unsupported"),
        (ProcessSpec { instances: Some(2), ..spec() }, "unsupported"),
        (ProcessSpec { instances: Some(0), ..spec() }, "unsupported"),
        (ProcessSpec { max_memory: Some(1), ..spec() }, "unsupported"),
        (ProcessSpec { options: vec![Setting::new("watch", "true")], ..spec() }, "invalid"),
    ] {
        let host = FakeHost::new();
        assert_eq!(start(&host, spec).unwrap_err().code, code);
        assert!(host.calls().is_empty());
    }
    assert!(start(&FakeHost::new(), ProcessSpec { instances: Some(1), ..spec() }).is_ok());
}

#[test]
fn the_targets_own_error_keeps_its_code() {
    let host = FakeHost::new();
    host.fail("target.run", Error::new(code::DENIED, "target.run", "no grant").hint("`pcoder plugin grant`"));
    let error = start(&host, ProcessSpec::once(CommandSpec::argv("x", [""; 0]))).unwrap_err();
    assert_eq!((error.code.as_str(), error.operation.as_str()), ("denied", "process-manager.start"));
    assert_eq!(error.hint.as_deref(), Some("`pcoder plugin grant`"));
}

#[test]
fn there_is_nothing_to_list_stop_or_read() {
    let host = FakeHost::new();
    assert_eq!(Once.list(host.process_manager()), Ok(Vec::new()));
    assert_eq!(Once.stop(host.process_manager(), "x"), Ok(()));
    assert_eq!(Once.delete(host.process_manager(), "x"), Ok(()));
    assert_eq!(Once.logs(host.process_manager(), "x", 9).map(|logs| logs.out), Ok(String::new()));
    assert!(host.calls().is_empty());
    assert!(Once.info().features.is_empty());
}
