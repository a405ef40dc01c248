//! Values that programs print.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use pcoder_secrets::Error;

use crate::{error, reference, resolver, value, wrong};

#[tokio::test]
async fn the_words_are_split_as_posix_does_and_no_shell_sees_them() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[]);
    assert_eq!(
        value(&resolver, "command:printf '%s|' a 'b c' \"d'e\" f\\ g $HOME '*' ';' '>x'").await,
        "a|b c|d'e|f g|$HOME|*|;|>x|"
    );
    assert_eq!(value(&resolver, "command:printf 'two\\nlines\\n\\n'").await, "two\nlines\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_command_gets_the_environment_and_the_folder_that_are_given_and_no_input() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let resolver = resolver(&base, &[("KEY", "given")]);
    assert_eq!(value(&resolver, "command:env").await, "KEY=given\nPATH=/usr/bin:/bin");
    assert_eq!(value(&resolver, "command:pwd -P").await, base.to_str().unwrap());
    assert_eq!(wrong(&resolver, "command:cat").await, "command:cat: it is empty");
}

#[tokio::test]
async fn a_program_is_looked_up_on_the_path_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, says: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\necho {says}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    };
    script("bin/get-key", "of the path");
    script("home/bin/get-key", "of the home");
    script("get-key", "of the base");
    fs::write(folder.path().join("bin/no-program"), "").unwrap();
    let mut resolver = resolver(folder.path(), &[]);
    // A folder that is not absolute would be another one everywhere.
    assert_eq!(wrong(&resolver, "command:get-key").await, "command:get-key: there is no such program on the PATH");
    resolver.path = Some(format!("{0}/nothing::.:{0}/bin", folder.path().display()).into());
    assert_eq!(value(&resolver, "command:get-key").await, "of the path");
    assert_eq!(value(&resolver, "command:./get-key").await, "of the base");
    assert_eq!(value(&resolver, "command:~/bin/get-key").await, "of the home");
    assert_eq!(
        wrong(&resolver, "command:no-program x").await,
        "command:no-program …: there is no such program on the PATH"
    );
    let missing = wrong(&resolver, "command:./missing").await;
    assert!(missing.starts_with("command:./missing: cannot start it: "), "{missing}");
    resolver.path = None;
    assert!(matches!(error(&resolver, "command:get-key").await, Error::NoProgram { .. }));
}

#[tokio::test]
async fn a_command_that_fails_gives_no_value_and_is_told_by_its_status_alone() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[]);
    assert_eq!(
        wrong(&resolver, "command:sh -c 'echo out; echo err >&2; exit 3'").await,
        "command:sh …: the command failed (exit status: 3)"
    );
    let killed = wrong(&resolver, "command:sh -c 'echo out; kill -9 $$'").await;
    assert!(killed.starts_with("command:sh …: the command failed (signal: 9"), "{killed}");
    assert_eq!(wrong(&resolver, "command:true").await, "command:true: it is empty");
}

#[tokio::test]
async fn an_output_without_end_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[]);
    let started = Instant::now();
    assert_eq!(wrong(&resolver, "command:cat /dev/zero").await, "command:cat …: it is longer than 64 KiB");
    assert_eq!(wrong(&resolver, "command:head -c 65537 /dev/zero").await, "command:head …: it is longer than 64 KiB");
    assert_eq!(value(&resolver, "command:printf %065536d 1").await.len(), 64 * 1024);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_command_that_closes_its_output_must_still_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[]);
    assert_eq!(
        wrong(&resolver, "command:sh -c 'echo key; exec >&-; exit 4'").await,
        "command:sh …: the command failed (exit status: 4)"
    );
}

/// A process that the command started, once it is there, by the file in which the command writes its number.
#[cfg(target_os = "linux")]
async fn written_number(path: &Path) -> u32 {
    let look = async {
        loop {
            // The line end says that the number is whole.
            if let Some(number) = fs::read_to_string(path).ok().and_then(|it| it.strip_suffix('\n')?.parse().ok()) {
                return number;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.expect("the command starts its child")
}

/// Waits until a process has ended. What is killed is gone a moment later, and stays as a zombie where nobody reaps it.
#[cfg(target_os = "linux")]
async fn gone(pid: u32) {
    let look = async {
        while fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|it| !it.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with(['Z', 'X'])))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), look).await.expect("the command's child is gone");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_command_that_hangs_ends_at_the_deadline_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = resolver(folder.path(), &[]);
    resolver.command_deadline = Duration::from_secs(2);
    let started = Instant::now();
    assert_eq!(
        wrong(&resolver, "command:sh -c 'sleep 600 & echo $! >child; echo $$ >own; wait'").await,
        "command:sh …: the command did not answer within 2 s"
    );
    assert!(started.elapsed() >= Duration::from_secs(2) && started.elapsed() < Duration::from_secs(30));
    gone(written_number(&folder.path().join("child")).await).await;
    gone(written_number(&folder.path().join("own")).await).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_caller_that_no_longer_waits_leaves_no_command_behind() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[]);
    let waits = reference("command:sh -c 'sleep 600 & echo $! >child; wait'");
    let child = folder.path().join("child");
    let pid = tokio::select! {
        _ = resolver.resolve(&waits) => panic!("it ended by itself"),
        pid = written_number(&child) => pid,
    };
    gone(pid).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_child_in_the_background_that_keeps_the_output_open_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[]);
    let started = Instant::now();
    assert_eq!(value(&resolver, "command:sh -c 'sleep 600 & echo $! >child; echo key'").await, "key");
    gone(written_number(&folder.path().join("child")).await).await;
    // One that left the group is somebody else's to end, and is not waited for either.
    let leaves = "setsid sh -c 'echo $$ >other; exec sleep 60' & until test -s other; do sleep 0.01; done; echo key";
    fs::write(folder.path().join("leaves"), leaves).unwrap();
    assert_eq!(value(&resolver, "command:sh leaves").await, "key");
    assert!(started.elapsed() < Duration::from_secs(20));
    let other = written_number(&folder.path().join("other")).await;
    assert!(std::process::Command::new("kill").arg(other.to_string()).status().unwrap().success());
}
