use pcoder_sdk::testing::{FakeHost, FakeStdio};
use pcoder_sdk::{Command, Setting};

use super::*;

fn options() -> BootOptions {
    BootOptions {
        image: None,
        name: None,
        ttl_seconds: None,
        ttl_action: None,
        project: Some("/p".to_owned()),
        options: Vec::new(),
    }
}

#[test]
fn there_is_one_instance_and_it_is_ready() {
    let host = FakeHost::new();
    let booted = Local.boot(host.provider(), options()).unwrap();
    assert_eq!((booted.id.as_str(), booted.status.as_str()), ("local", "ready"));
    assert_eq!(Local.get(host.provider(), "local"), Ok(booted.clone()));
    assert_eq!(Local.list(host.provider()), Ok(vec![booted]));
    assert_eq!(Local.terminate(host.provider(), "local"), Ok(()));
    assert_eq!(Local.terminate(host.provider(), "gone"), Ok(()));
    assert!(host.calls().is_empty());
}

#[test]
fn what_a_machine_that_runs_cannot_take_is_refused() {
    let host = FakeHost::new();
    for wrong in [
        BootOptions { image: Some("i".to_owned()), ..options() },
        BootOptions { ttl_seconds: Some(1), ..options() },
        BootOptions { ttl_action: Some("stop".to_owned()), ..options() },
        BootOptions { options: vec![Setting::new("cpus", "2")], ..options() },
    ] {
        assert_eq!(Local.boot(host.provider(), wrong).unwrap_err().code, "invalid");
    }
    let code = |result: Result<()>| result.map_err(|error| error.code);
    let unsupported = Err("unsupported".to_owned());
    assert_eq!(code(Local.stop(host.provider(), "local")), unsupported);
    assert_eq!(code(Local.resume(host.provider(), "local").map(drop)), unsupported);
    assert_eq!(code(Local.fork(host.provider(), "local").map(drop)), unsupported);
}

#[test]
fn a_command_goes_to_the_host_unchanged() {
    let host = FakeHost::new();
    host.answer("process.run", Ok(Output::new(7, "out", "err")));
    let mut spec = CommandSpec::argv("tool", ["a b"]).in_dir("~/x").with_env("K", "v").with_path_entry("/p").named("n");
    let stdio = FakeStdio::new("in").with_terminal(80, 24);
    let status = Local.exec(host.provider(), "local", spec.clone(), stdio.handle()).unwrap();
    assert_eq!(status, ExitStatus::Exited(7));
    assert_eq!((stdio.written(), stdio.written_to_error()), (b"out".to_vec(), b"err".to_vec()));
    assert_eq!(host.calls()[0].spec.as_ref(), Some(&spec));
    spec.command = Command::Shell("a | b".to_owned());
    Local.exec(host.provider(), "local", spec.clone(), FakeStdio::new("").handle()).unwrap();
    assert_eq!(host.calls()[1].spec.as_ref(), Some(&spec));
}

#[test]
fn files_are_those_of_the_call() {
    let host = FakeHost::new();
    let on = host.provider();
    let path = "~/a b/it's";
    let mode = WriteOptions::plain().with_mode(0o600).with_parents();
    Local.write_file(on, "local", path, b"one", WriteOptions::plain()).unwrap();
    Local.write_file_atomic(on, "local", path, b"three", mode).unwrap();
    assert_eq!(Local.read_file(on, "local", path).unwrap(), b"three");
    assert!(Local.file_exists(on, "local", path).unwrap());
    Local.create_directory(on, "local", "/d", Some(0o700)).unwrap();
    Local.delete_file(on, "local", path).unwrap();
    Local.delete_file(on, "local", path).unwrap();
    assert!(!Local.file_exists(on, "local", path).unwrap());
    Local.delete_directory(on, "local", "/gone").unwrap();
    assert_eq!(Local.read_file(on, "local", path).unwrap_err().code, "not-found");
    assert_eq!(host.calls()[1].to_string(), "files.write-atomic called:~/a b/it's mode 600 parents 5 bytes");
    assert!(host.calls().iter().all(|call| call.subject.starts_with("called:")));
}

#[test]
fn other_failures_are_not_swallowed() {
    let host = FakeHost::new();
    host.fail("files.stat", Error::new(code::DENIED, "files.stat", "no"));
    assert_eq!(Local.file_exists(host.provider(), "local", "/x").unwrap_err().code, "denied");
    host.fail("files.remove", Error::new(code::IO, "files.remove", "no"));
    assert_eq!(Local.delete_file(host.provider(), "local", "/x").unwrap_err().code, "io");
}

#[test]
fn another_instance_is_not_there() {
    let host = FakeHost::new();
    let stdio = FakeStdio::new("");
    let spec = CommandSpec::argv("x", [""; 0]);
    assert_eq!(Local.get(host.provider(), "x").unwrap_err().code, "not-found");
    assert_eq!(Local.exec(host.provider(), "x", spec, stdio.handle()).unwrap_err().code, "not-found");
    assert_eq!(Local.read_file(host.provider(), "x", "/f").unwrap_err().code, "not-found");
    assert!(host.calls().is_empty());
}

#[test]
fn ports_are_there_already() {
    let host = FakeHost::new();
    assert_eq!(Local.expose(host.provider(), "local", 8080).as_deref(), Ok("http://127.0.0.1:8080"));
    assert_eq!(Local.expose(host.provider(), "local", 0).unwrap_err().code, "invalid");
}
