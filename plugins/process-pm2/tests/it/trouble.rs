//! What is missing, in the way, or does not answer.

use std::fs;

use pcoder_sdk::{CommandSpec, ProcessManager as _};
use process_pm2::Pm2;

use crate::machine::{Home, kill, until};

fn sleep() -> CommandSpec {
    CommandSpec::argv("sleep", ["1000"])
}

#[test]
fn without_pm2_nothing_is_changed_and_the_hint_says_how_to_get_it() {
    let Some(home) = Home::new() else { return };
    let home = home.with_programs_but(&["pm2"]);
    let machine = home.machine();
    let before = fs::read_dir(home.path("")).unwrap().count();
    for error in [
        machine.start("x", sleep()).map(|_| ()).unwrap_err(),
        Pm2.list(machine.host()).map(|_| ()).unwrap_err(),
        Pm2.stop(machine.host(), "x").unwrap_err(),
        Pm2.delete(machine.host(), "x").unwrap_err(),
        Pm2.logs(machine.host(), "x", 1).map(|_| ()).unwrap_err(),
    ] {
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("not-found", Some("pm2")));
        assert_eq!(error.hint.as_deref(), Some("install it there: `npm install -g pm2`"));
    }
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), before);
}

#[test]
fn a_home_that_is_too_long_for_sockets_is_refused_before_pm2_hangs_in_it() {
    let Some(home) = Home::new() else { return };
    for (length, fits) in [(98, true), (99, false)] {
        let base = home.path("h").to_str().unwrap().to_owned();
        let long = format!("{base}{}", "é".repeat((length - base.len()) / 2));
        let long = format!("{long}{}", "x".repeat(length - long.len()));
        let machine = home.machine().with_env("PM2_HOME", &long);
        let started = machine.start("x", sleep());
        if fits {
            assert_eq!(started.unwrap().status, "online");
            Pm2.delete(machine.host(), "x").unwrap();
            kill(fs::read_to_string(format!("{long}/pm2.pid")).unwrap().trim().parse().unwrap());
        } else {
            let error = started.unwrap_err();
            assert_eq!(error.code, "invalid");
            assert!(!fs::exists(long).unwrap());
        }
    }
}

#[test]
fn a_failure_says_what_pm2_said_and_leaves_nothing() {
    let Some(home) = Home::new() else { return };
    let home = home.with_programs_but(&["pm2"]);
    home.program("pm2", "case $1 in jlist) echo '[]' ;; *) echo '[PM2][ERROR] out of luck' >&2; exit 7 ;; esac");
    let error = home.machine().start("x", sleep()).unwrap_err();
    assert_eq!(error.line(), "process-manager.start (x): `pm2 start` failed: [PM2][ERROR] out of luck");
    assert_eq!(error.code, "process");
    assert_eq!(fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().count(), 0);
    home.program("pm2", "echo garbage");
    let error = home.machine().start("x", sleep()).unwrap_err();
    assert_eq!((error.code.as_str(), error.subject.as_deref()), ("integrity", Some("x")));
    assert_eq!(fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().count(), 0);
}

#[test]
fn banners_in_front_of_the_list_do_no_harm() {
    let Some(home) = Home::new() else { return };
    let home = home.with_programs_but(&[]);
    let real = fs::canonicalize(home.path("bin/pm2")).unwrap();
    // The real banners: without `-s`, and with more than one line of them.
    let script = format!(
        "case $1 in jlist) echo '[PM2] [WARN] banner'; exec {0} jlist ;; *) exec {0} \"$@\" ;; esac",
        real.display()
    );
    home.program("pm2", &script);
    let machine = home.machine();
    assert_eq!(machine.start("x", sleep()).unwrap().status, "online");
    assert_eq!(machine.info("x").status, "online");
    assert_eq!(machine.start("x", sleep()).unwrap_err().code, "already-exists");
    Pm2.delete(machine.host(), "x").unwrap();
    assert_eq!(machine.list(), []);
}

#[test]
fn a_pm2_that_hangs_is_an_error_and_hangs_nobody() {
    for missing in [&["pm2"][..], &["pm2", "timeout"]] {
        let Some(home) = Home::new() else { return };
        let home = home.with_programs_but(missing);
        home.program("pm2", "exec sleep 661");
        // Half a minute is long in a test.
        if missing.len() == 1 {
            let timeout = fs::canonicalize(home.path("bin/timeout")).unwrap();
            home.program("timeout", &format!("shift 3; exec {} -s KILL 1 \"$@\"", timeout.display()));
        } else {
            let sleep = fs::canonicalize(home.path("bin/sleep")).unwrap();
            home.program("sleep", &format!("[ $1 != 30 ] || set 1; exec {} \"$1\"", sleep.display()));
        }
        let error = home.machine().start("x", sleep()).unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("timeout", Some("x")));
        until("it is gone", || Home::processes("sleep 661").is_empty().then_some(()));
    }
}

#[test]
fn a_lock_whose_holder_is_gone_is_taken_over() {
    let Some(home) = Home::new() else { return };
    let home = home.with_programs_but(&["flock"]);
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    fs::create_dir_all(home.path(".pm2/pcoder/lock.d")).unwrap();
    fs::write(home.path(".pm2/pcoder/lock.d/pid"), format!("{}\n", gone.id())).unwrap();
    assert_eq!(home.machine().start("x", sleep()).unwrap().status, "online");
    assert!(!home.path(".pm2/pcoder/lock.d").exists());
}
