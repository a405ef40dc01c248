//! Processes that are left behind, and calls that end before what they run.
//!
//! A process is known to be gone when its end of a pipe is closed: nobody sleeps here, and nobody looks at a process
//! id that may be somebody else's by now.

use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::CommandSpec;
use pcoder_tests::{Grant, House, argv, called};
use rustix::fs::{Mode, OFlags};
use tokio_util::sync::CancellationToken;

use crate::streams::{piped, read_line, read_to_end};

const AS_CALLED: &str = "[[exec]]\nprogram = \"as called\"\n";

/// Ways to get out of a process group, its session, and the sight of its parent.
const ESCAPES: [(&str, &str); 5] = [
    ("background", "sh -c 'echo ready; exec sleep 1000' &"),
    ("nohup", "nohup sh -c 'echo ready; exec sleep 1000' &"),
    ("setsid", "setsid sh -c 'echo ready; exec sleep 1000' &"),
    ("double fork", "( ( setsid sh -c 'echo ready; exec sleep 1000' & ) & )"),
    ("ignores signals", "( trap '' HUP INT TERM; setsid sh -c 'echo ready; exec sleep 1000' & )"),
];

/// Also gives up the name that its call gave it.
const NAMELESS: &str = "( setsid env -i /bin/sh -c 'echo ready; exec sleep 1000' & )";

fn house() -> House {
    House::provider(AS_CALLED, Grant::All)
}

fn sh(script: &str) -> CommandSpec {
    argv("/bin/sh", &["-c", script])
}

fn fifo(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    path
}

/// Opens it without waiting for somebody who writes, and reads as from any pipe.
fn reader_of(fifo: &Path) -> PipeReader {
    let pipe = rustix::fs::open(fifo, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).expect("a pipe");
    rustix::fs::fcntl_setfl(&pipe, OFlags::empty()).expect("a pipe that waits");
    pipe.into()
}

/// Starts a script that says `ready` and then stays; gives what it takes to see its end.
async fn started(reader: PipeReader) -> PipeReader {
    let (line, reader) = read_line(reader).await;
    assert_eq!(line, "ready");
    reader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_leaves_behind_ends_with_it() {
    for (name, script) in ESCAPES {
        let house = house();
        // The command itself waits until what it leaves behind has begun.
        let folder = tempfile::tempdir().expect("a folder");
        let path = fifo(&folder);
        let script = script.replace("echo ready", &format!("echo ready; echo >{}", path.display()));
        let command = sh(&format!("{script}\nread line <{}", path.display()));
        let (stdio, reader) = piped();
        let provider = house.plugin.provider().expect("a provider");
        let status = provider.exec(called(&command), "as it is", &command, stdio).await.expect("it ends");
        assert_eq!(status, pcoder_runtime::contract::ExitStatus::Exited(0), "{name}");
        assert_eq!(read_to_end(reader).await, "ready\n", "{name}");
        house.goes_on().await;
    }
}

/// While a process becomes another program there is a moment in which it has no environment, and so no call's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_just_becoming_another_program_ends_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipe, again) = (fifo(&folder), folder.path().join("again"));
    // It becomes itself, as often as takes minutes.
    let script = format!("[ $1 -eq 0 ] || exec sh '{}' $(($1 - 1))", again.display());
    std::fs::write(&again, script).expect("a script");
    let script = format!(
        "( setsid sh -c 'echo ready; echo >{0}; exec sh {1} 200000' & )\nread line <{0}",
        pipe.display(),
        again.display()
    );
    let (house, command) = (house(), sh(&script));
    for _ in 0..60 {
        let (stdio, reader) = piped();
        let provider = house.plugin.provider().expect("a provider");
        provider.exec(called(&command), "as it is", &command, stdio).await.expect("it ends");
        let rest = tokio::time::timeout(Duration::from_secs(20), read_to_end(reader)).await;
        assert_eq!(rest.expect("somebody is left"), "ready\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_command_ends_when_it_ends_and_not_when_its_children_do() {
    let house = house();
    for (name, script) in ESCAPES {
        let script = format!("{script}\necho done");
        let command = sh(&script);
        let step = ["process.capture", "/bin/sh", "-c", &script];
        let call = house.step(called(&command), &step);
        let answer = tokio::time::timeout(Duration::from_secs(20), call).await;
        let answer = answer.unwrap_or_else(|_| panic!("{name}: it waits for what was left behind"));
        assert!(answer.starts_with("ok 0 ") && answer.contains("done\n"), "{name}: {answer}");
    }
    house.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_ends_what_is_running() {
    for (name, script) in ESCAPES.into_iter().chain([("itself", "echo ready; exec sleep 1000")]) {
        let house = house();
        let command = sh(&format!("{script}\nwait; exec sleep 1000"));
        let (stdio, reader) = piped();
        let cancel = CancellationToken::new();
        let context = CallContext { cancel: Some(cancel.clone()), ..called(&command) };
        let provider = house.plugin.provider().expect("a provider");
        let call = provider.exec(context, "as it is", &command, stdio);
        let stop = async {
            let reader = started(reader).await;
            cancel.cancel();
            reader
        };
        let (result, reader) = tokio::join!(call, stop);
        assert!(result.expect_err("it was stopped").is("cancelled"), "{name}");
        assert_eq!(read_to_end(reader).await, "", "{name}");
        let outcomes: Vec<String> = house.effects().into_iter().map(|it| it.2).collect();
        assert_eq!(outcomes, ["abandoned"], "{name}");
        house.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_call_ends_what_is_running() {
    for (name, script) in ESCAPES {
        let house = house();
        let command = sh(&format!("{script}\nexec sleep 1000"));
        let (stdio, reader) = piped();
        let provider = house.plugin.provider().expect("a provider");
        let call = provider.exec(called(&command), "as it is", &command, stdio);
        // Whichever is first: the call never ends by itself.
        let reader = tokio::select! {
            result = call => panic!("{name}: it ended: {result:?}"),
            reader = started(reader) => reader,
        };
        assert_eq!(read_to_end(reader).await, "", "{name}");
        house.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_what_is_running() {
    let house = house();
    let command = sh("setsid sh -c 'echo ready; exec sleep 1000' & exec sleep 1000");
    let (stdio, reader) = piped();
    let context = CallContext { deadline: Some(Some(Duration::from_secs(1))), ..called(&command) };
    let provider = house.plugin.provider().expect("a provider");
    let error = provider.exec(context, "as it is", &command, stdio).await.expect_err("too long");
    assert!(error.is("timeout"), "{error:?}");
    assert!(["ready\n", ""].contains(&read_to_end(reader).await.as_str()));
    house.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_crashes_or_loops_after_it_started_something_leaves_nothing() {
    let house = House::provider(&format!("{AS_CALLED}[limits]\ncpu-seconds = 1\n"), Grant::All);
    for (attack, code) in [("loop", "limit"), ("panic", "internal")] {
        // Its output goes to a pipe that the test reads: the call's own output never comes back.
        let folder = tempfile::tempdir().expect("a folder");
        let path = fifo(&folder);
        let script = format!("setsid sh -c 'echo ready; exec sleep 1000' >{} & read line <{0}", path.display());
        let command = sh(&script);
        let steps: [&[&str]; 2] = [&["process.capture", "/bin/sh", "-c", &script], &[attack, "on purpose"]];
        let error = house.script(called(&command), &steps).await.expect_err(attack);
        assert!(error.is(code), "{attack}: {error:?}");
        // The end comes when nobody has the pipe open for writing any more.
        assert_eq!(read_to_end(reader_of(&path)).await, "", "{attack}");
        house.goes_on().await;
    }
}

/// Runs scripts in a process that adopts orphans.
fn sole_parent(mode: &str, scripts: &[&str]) -> (Vec<String>, usize) {
    let output = Command::new(env!("CARGO_BIN_EXE_sole-parent")).arg(mode).args(scripts).output().expect("the helper");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let answers = value["answers"].as_array().expect("answers");
    let answers = answers.iter().map(|it| it.as_str().unwrap_or_default().to_owned()).collect();
    (answers, value["children"].as_array().expect("children").len())
}

#[test]
fn a_daemon_that_gives_up_its_name_does_not_get_away_from_its_sole_parent() {
    let nameless = format!("{NAMELESS}\necho done");
    let mut scripts = vec![nameless.as_str()];
    let others: Vec<String> = ESCAPES.iter().map(|(_, script)| format!("{script}\necho done")).collect();
    scripts.extend(others.iter().map(String::as_str));
    let (answers, children) = sole_parent("sole", &scripts);
    for answer in &answers {
        assert!(answer.starts_with("ok 0 ") && answer.contains("done\n"), "{answers:?}");
    }
    assert_eq!(children, 0, "somebody is left");
}

#[test]
fn a_sole_parent_does_not_end_the_processes_of_other_calls() {
    // Short ones that leave something behind, so that there is always somebody who cleans up, beside ones that start
    // all the time and must come to their end.
    let leaves = format!("{NAMELESS}\ntrue");
    let works = "i=0; while [ $i -lt 5 ]; do i=$((i + 1)); /bin/true || exit 9; done; echo whole";
    let scripts: Vec<&str> = (0..60).map(|index| if index % 3 == 0 { leaves.as_str() } else { works }).collect();
    let (answers, children) = sole_parent("sole", &scripts);
    for (index, answer) in answers.iter().enumerate().filter(|(index, _)| index % 3 != 0) {
        assert_eq!(answer, "ok 0 whole\n", "call {index}");
    }
    assert_eq!(children, 0, "somebody is left");
}

/// What takes too long has stopped.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(done.send(work())));
    wait.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

#[test]
fn a_guard_ends_what_a_killed_process_ran() {
    let (itself, plain) = (("itself", "sh -c 'echo ready; exec sleep 1000'"), "sh -c 'echo ready; exec sleep 1000' &");
    for (name, script) in ESCAPES.into_iter().chain([itself, ("its own group", plain)]) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = fifo(&folder);
        // All of it has the pipe open, and tells on it.
        let script = format!("exec >{}; {script}\nexec sleep 1000", path.display());
        let mut helper = Command::new(env!("CARGO_BIN_EXE_sole-parent"));
        // In a group of its own, so that all of the group can be killed.
        std::os::unix::process::CommandExt::process_group(&mut helper, 0);
        let mut helper = helper.args(["guarded", &script]).spawn().expect("the helper");
        let mut pipe = in_time("it runs", move || {
            let mut pipe = std::fs::File::open(path).expect("a pipe");
            let mut ready = [0; 6];
            std::io::Read::read_exact(&mut pipe, &mut ready).expect("a line");
            assert_eq!(&ready, b"ready\n");
            pipe
        });
        let group = rustix::process::Pid::from_child(&helper);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).expect("it runs");
        helper.wait().expect("it was killed");
        in_time(name, move || std::io::copy(&mut pipe, &mut std::io::sink()).expect("the pipe's end"));
    }
}

#[test]
fn a_guard_ends_with_what_it_guards() {
    let (answers, children) = sole_parent("guarded", &["echo one", "echo two", &format!("{NAMELESS}\necho three")]);
    assert_eq!(answers.len(), 3);
    assert_eq!(children, 0, "somebody is left");
}
