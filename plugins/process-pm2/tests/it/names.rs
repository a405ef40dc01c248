//! Names: unique, safe, and those that mean something else to PM2.

use std::thread;

use pcoder_sdk::{CommandSpec, ProcessManager as _};
use process_pm2::Pm2;

use crate::machine::{Home, until};

fn sleep() -> CommandSpec {
    CommandSpec::argv("sleep", ["1000"])
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_process_stays() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    let first = machine.start("a/b", sleep()).unwrap();
    for name in ["a/b", "a-b", "a  b"] {
        let error = machine.start(name, sleep()).unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("already-exists", Some("a-b")));
    }
    assert_eq!(machine.list().into_iter().map(|info| info.pid).collect::<Vec<_>>(), [first.pid]);
    let folders = std::fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().count();
    assert_eq!(folders, 1, "what was refused leaves nothing");
    Pm2.stop(machine.host(), "a-b").unwrap();
    assert_eq!(machine.start("a-b", sleep()).unwrap_err().code, "already-exists");
    Pm2.delete(machine.host(), "a/b").unwrap();
    machine.start("a-b", sleep()).unwrap();
}

#[test]
fn of_two_starts_of_one_name_at_once_one_succeeds() {
    let Some(home) = Home::new() else { return };
    let results: Vec<_> = thread::scope(|scope| {
        let start = || home.machine().start("same", sleep()).map(|_| ()).map_err(|error| error.code);
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|code| code == "already-exists"));
    assert_eq!(home.machine().list().len(), 1);
    assert_eq!(home.machine().info("same").status, "online");
}

#[test]
fn names_that_mean_something_to_pm2_or_to_us_are_names() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    let mut safe = Vec::new();
    for (name, expected) in [
        ("sh", "sh"),
        ("bash", "bash"),
        ("default", "default"),
        ("all", "n-all"),
        ("0", "n-0"),
        ("lock", "lock"),
        ("--help", "help"),
        ("x; touch pwned", "x-touch-pwned"),
        ("$(touch pwned)", "touch-pwned"),
        ("日本", "unnamed"),
    ] {
        assert_eq!(machine.start(name, sleep()).unwrap().name, expected);
        safe.push(expected);
    }
    let listed: Vec<_> = machine.list().into_iter().map(|info| info.name).collect();
    assert_eq!(listed, safe);
    assert!(!home.path("pwned").exists());
    // `default` is the namespace of all of them.
    Pm2.stop(machine.host(), "default").unwrap();
    Pm2.delete(machine.host(), "0").unwrap();
    let states: Vec<_> = machine.list().into_iter().filter(|info| info.status != "online").collect();
    assert_eq!(states.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["default"]);
    assert_eq!(machine.list().len(), listed.len() - 1);
}

#[test]
fn somebody_elses_process_is_listed_and_ended_but_its_files_stay() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    machine.start("x-y", CommandSpec::shell("echo mine; exec sleep 1000")).unwrap();
    home.pm2(&["start", "sh", "--name", "x y", "-s", "--", "-c", "echo theirs; exec sleep 1000"]);
    assert_eq!(machine.info("x y").status, "online");
    let theirs = until("it says it", || Some(machine.out("x y")).filter(|out| !out.is_empty()));
    assert_eq!(theirs, "theirs\n");
    Pm2.stop(machine.host(), "x y").unwrap();
    assert_eq!(machine.info("x y").status, "stopped");
    Pm2.delete(machine.host(), "x y").unwrap();
    assert!(home.path(".pm2/logs/x-y-out.log").exists());
    assert_eq!(
        machine.list().into_iter().map(|info| (info.name, info.status)).collect::<Vec<_>>(),
        [("x-y".to_owned(), "online".to_owned())]
    );
    assert_eq!(machine.out("x-y"), "mine\n");
}
