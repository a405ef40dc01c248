//! What a process goes through: start, end, restart, stop, delete, and what is told of it meanwhile.

use std::fs;
use std::thread;

use pcoder_sdk::{CommandSpec, ProcessManager as _, ProcessSpec, Restart, RestartLimits, setting};
use process_pm2::Pm2;

use crate::machine::{Home, kill, until};

#[test]
fn a_process_starts_is_listed_says_something_stops_and_is_deleted() {
    for home in Home::of_each_shell() {
        from_start_to_delete(&home);
    }
}

fn from_start_to_delete(home: &Home) {
    let machine = home.machine();
    assert_eq!(machine.list(), []);
    assert!(!home.path(".pm2").exists(), "asking for a list changes nothing");

    let script = "echo one; echo two; echo bad >&2; exec sleep 1000";
    let started = machine.start("my run", CommandSpec::shell(script)).unwrap();
    assert_eq!((started.name.as_str(), started.status.as_str()), ("my-run", "online"));
    let info = machine.info("my-run");
    assert_eq!((info.status.as_str(), info.exit_code, info.restarts), ("online", None, Some(0)));
    assert!(fs::exists(format!("/proc/{}", info.pid.unwrap())).unwrap());
    assert!(info.started_ms.unwrap() > 1_600_000_000_000);
    assert_eq!(setting(&info.details, "pm-id"), Some("0"));

    let logs = until("it says it", || {
        Pm2.logs(machine.host(), "my-run", 100).ok().filter(|logs| !logs.err.is_empty() && logs.out.contains("two"))
    });
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("one\ntwo\n", "bad\n"));
    let last = Pm2.logs(machine.host(), "my run", 1).unwrap();
    assert_eq!((last.out.as_str(), last.err.as_str()), ("two\n", "bad\n"));
    assert_eq!(Pm2.logs(machine.host(), "my-run", 0).unwrap().out, "");

    Pm2.stop(machine.host(), "my-run").unwrap();
    let info = machine.info("my-run");
    assert_eq!((info.status.as_str(), info.pid, info.exit_code), ("stopped", None, Some(130)));
    Pm2.stop(machine.host(), "my-run").unwrap();

    Pm2.delete(machine.host(), "my-run").unwrap();
    assert_eq!(machine.list(), []);
    assert_eq!(fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().count(), 0);
    Pm2.delete(machine.host(), "my-run").unwrap();
    for error in [
        Pm2.stop(machine.host(), "my-run").unwrap_err(),
        Pm2.logs(machine.host(), "my-run", 1).map(|_| ()).unwrap_err(),
    ] {
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("not-found", Some("my-run")));
    }
}

#[test]
fn how_a_process_ended_is_known_even_after_a_signal() {
    for home in Home::of_each_shell() {
        ends_are_known(&home);
    }
}

fn ends_are_known(home: &Home) {
    let machine = home.machine();
    for (name, script, status, code) in [
        ("good", "exit 0", "finished", 0),
        ("bad", "exit 3", "errored", 3),
        ("missing", "exec no-such-program-here", "errored", 127),
        ("killed", "kill -9 $$", "errored", 137),
        ("ended", "kill -15 $$", "errored", 143),
        ("interrupted", "kill -2 $$", "errored", 130),
    ] {
        machine.start(name, CommandSpec::shell(script)).unwrap();
        let info = until(name, || Some(machine.info(name)).filter(|info| info.pid.is_none()));
        assert_eq!((info.status.as_str(), info.exit_code), (status, Some(code)), "{name}");
        assert_eq!(info.restarts, Some(0), "{name}");
    }
    machine.start("nowhere", CommandSpec::shell("touch ran").in_dir("/no/such folder")).unwrap();
    let info = machine.until_status("nowhere", "errored");
    assert!(info.exit_code.unwrap() != 0);
    assert!(Pm2.logs(machine.host(), "nowhere", 9).unwrap().err.contains("/no/such folder"));
    assert!(!home.path("ran").exists());
    // Its supervisor is gone too, and nobody wrote down how it ended.
    let pid = machine.start("lost", CommandSpec::argv("sleep", ["660001"])).unwrap().pid.unwrap();
    let command =
        until("it runs", || Home::processes("sleep 660001").into_iter().find(|(_, line)| line == "sleep 660001"));
    kill(pid);
    let info = until("lost", || Some(machine.info("lost")).filter(|info| info.pid.is_none()));
    assert_eq!((info.status.as_str(), info.exit_code), ("stopped", None));
    kill(command.0);
}

#[test]
fn a_process_is_started_again_as_often_as_was_asked() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    let limits = |max_restarts, min_uptime_ms| Restart::OnExit(RestartLimits { max_restarts, min_uptime_ms });
    let spec = |name: &str, script: &str, restart| ProcessSpec {
        restart,
        ..ProcessSpec::once(CommandSpec::shell(script).named(name))
    };
    let script = |name: &str| format!("echo x >>{}; exit 7", home.path(name).display());
    let count = |name: &str| fs::read_to_string(home.path(name)).unwrap_or_default().lines().count();
    for (name, most) in [("none", 0), ("three", 3), ("seventeen", 17)] {
        Pm2.start(machine.host(), spec(name, &script(name), limits(Some(most), None))).unwrap();
        let info = machine.until_status(name, "errored");
        assert_eq!((info.exit_code, info.restarts), (Some(7), Some(most)), "{name}");
        assert_eq!(count(name), most as usize + 1, "{name}");
    }
    // Runs of at least 50 ms are no failures, so that two in a row never come together.
    let slow = format!("echo x >>{}; sleep 0.2; exit 7", home.path("slow").display());
    Pm2.start(machine.host(), spec("slow", &slow, limits(Some(1), Some(50)))).unwrap();
    Pm2.start(machine.host(), spec("ever", &script("ever"), limits(None, None))).unwrap();
    until("without end", || (count("ever") > 20 && count("slow") > 4).then_some(()));
    let info = until("it is seen", || Some(machine.info("slow")).filter(|info| info.status == "online"));
    assert_eq!(info.exit_code, Some(7), "a run before this one ended so");
    // What is started again and again can be stopped.
    Pm2.stop(machine.host(), "ever").unwrap();
    Pm2.stop(machine.host(), "slow").unwrap();
    for name in ["ever", "slow"] {
        assert_eq!(machine.info(name).status, "stopped");
    }
}

#[test]
fn several_copies_are_one_process() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    let command = CommandSpec::shell("echo hello; exec sleep 1000").named("copies");
    Pm2.start(machine.host(), ProcessSpec { instances: Some(3), ..ProcessSpec::once(command) }).unwrap();
    let mut pids: Vec<_> = machine.list().into_iter().map(|info| (info.name, info.status, info.pid.unwrap())).collect();
    assert!(pids.iter().all(|(name, status, _)| name == "copies" && status == "online"), "{pids:?}");
    pids.dedup();
    assert_eq!(pids.len(), 3);
    until("all say it", || (machine.out("copies") == "hello\nhello\nhello\n").then_some(()));
    assert_eq!(machine.start("copies", CommandSpec::shell("true")).unwrap_err().code, "already-exists");
    Pm2.stop(machine.host(), "copies").unwrap();
    let states: Vec<_> = machine.list().into_iter().map(|info| (info.status, info.exit_code)).collect();
    assert_eq!(states, vec![("stopped".to_owned(), Some(130)); 3]);
    Pm2.delete(machine.host(), "copies").unwrap();
    assert_eq!(machine.list(), []);
}

#[test]
fn memory_is_measured_where_it_is_used() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    let spec = |name: &str, script: &str| ProcessSpec {
        max_memory: Some(300_000_000),
        ..ProcessSpec::once(CommandSpec::argv("sh", ["-c", script]).named(name))
    };
    let info = Pm2.start(machine.host(), spec("bounded", "exec sleep 1234567")).unwrap();
    let command = until("it is the command", || {
        let line = fs::read(format!("/proc/{}/cmdline", info.pid.unwrap())).unwrap();
        (line == b"sleep\x001234567\0").then_some(line)
    });
    assert!(!command.is_empty());
    assert!(home.pm2(&["jlist", "-s"]).contains("\"max_memory_restart\":300000000"));
    Pm2.stop(machine.host(), "bounded").unwrap();
    assert_eq!(machine.info("bounded").status, "stopped");
    Pm2.start(machine.host(), spec("failing", "exit 5")).unwrap();
    assert_eq!(machine.until_status("failing", "errored").exit_code, Some(5));
}

#[test]
fn a_process_that_does_not_want_to_end_ends_with_all_that_it_started() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    for (name, delete) in [("stubborn", false), ("deleted", true)] {
        let mark = format!("77{}", if delete { 1 } else { 2 });
        let script = format!(
            "trap '' INT TERM HUP; sleep {mark}1 & setsid sleep {mark}2 & (trap '' INT TERM; sleep {mark}3) & \
             echo ready; sleep {mark}4; sleep {mark}5"
        );
        machine.start(name, CommandSpec::shell(script)).unwrap();
        until("they run", || {
            (machine.out(name) == "ready\n" && Home::processes(&format!("sleep {mark}")).len() >= 5).then_some(())
        });
        if delete {
            Pm2.delete(machine.host(), name).unwrap();
        } else {
            Pm2.stop(machine.host(), name).unwrap();
            let info = machine.info(name);
            assert_eq!((info.status.as_str(), info.pid), ("stopped", None));
        }
        assert_eq!(Home::processes(&format!("sleep {mark}")), []);
    }
}

#[test]
fn a_process_ends_where_there_is_no_ps() {
    let Some(home) = Home::new() else { return };
    let home = home.with_programs_but(&["ps"]);
    let machine = home.machine();
    let script = "trap '' INT; sleep 88123 & echo ready; wait; sleep 88124";
    machine.start("small", CommandSpec::shell(script)).unwrap();
    until("it runs", || (machine.out("small") == "ready\n").then_some(()));
    Pm2.stop(machine.host(), "small").unwrap();
    assert_eq!(Home::processes("sleep 8812"), []);
    assert_eq!(machine.info("small").status, "stopped");
}

#[test]
fn what_a_dead_daemon_left_running_ends_when_its_name_is_deleted_or_taken() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    let children = || Home::processes("sleep 8833").into_iter().filter(|(_, line)| line.starts_with("sleep")).count();
    for name in ["deleted", "taken"] {
        machine.start(name, CommandSpec::shell("sleep 88331 & sleep 88332")).unwrap();
        until("it runs", || (children() == 2).then_some(()));
        kill(home.daemon());
        assert_eq!(machine.list(), []);
        assert_eq!(children(), 2);
        if name == "deleted" {
            Pm2.delete(machine.host(), name).unwrap();
        } else {
            machine.start(name, CommandSpec::argv("sleep", ["1000"])).unwrap();
        }
        assert_eq!(children(), 0, "{name}");
    }
    assert_eq!(fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().count(), 1);
}

#[test]
fn standard_input_is_empty_and_node_has_no_parent_to_talk_to() {
    let Some(home) = Home::new() else { return };
    let machine = home.machine();
    let script = "cat; node -p 'typeof process.send'; readlink /proc/$$/fd/3 || echo closed";
    machine.start("reads", CommandSpec::shell(script)).unwrap();
    machine.until_status("reads", "finished");
    assert_eq!(machine.out("reads"), "undefined\nclosed\n");
}

#[test]
fn first_calls_at_once_all_come_back() {
    for missing in [&[][..], &["flock"], &["timeout"]] {
        let Some(home) = Home::new() else { return };
        let home = if missing.is_empty() { home } else { home.with_programs_but(missing) };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|index| {
                    let home = &home;
                    scope.spawn(move || {
                        let machine = home.machine();
                        machine.start(&format!("p{index}"), CommandSpec::argv("sleep", ["1000"])).unwrap();
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        let mut names: Vec<_> = home.machine().list().into_iter().map(|info| (info.name, info.status)).collect();
        names.sort();
        let expected: Vec<_> = (0..4).map(|index| (format!("p{index}"), "online".to_owned())).collect();
        assert_eq!(names, expected);
        let daemons = Home::processes(&format!("God Daemon ({})", home.path(".pm2").display()));
        assert_eq!(daemons.len(), 1, "{daemons:?}");
    }
}
