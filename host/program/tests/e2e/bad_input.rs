//! Files that are broken, cut, newer, or cannot be read or written; no home; a full disk; secrets that hang. Each is an
//! error that says what to do, and nothing is damaged.

use std::path::Path;

use crate::component::{PLAIN, third_party};
use crate::support::{Outcome, World, finish};

/// Each file, with a command that reads and would change it.
const FILES: [(&str, &[&str]); 4] = [
    ("settings.toml", &["config", "set", "tool", "codex"]),
    ("auth.toml", &["auth", "login", "claude", "--api-key", "env:KEY"]),
    ("plugins.lock", &["plugin", "add", "it.wasm", "--yes"]),
    ("profiles/work.toml", &["profile", "use", "work"]),
];

fn run(world: &World, args: &[&str]) -> Outcome {
    let mut command = world.pcoder(args);
    command.env("KEY", "sk-test");
    finish(command, "")
}

fn place(world: &World, name: &str) -> std::path::PathBuf {
    let path = world.path("pcoder").join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    path
}

fn refused(outcome: &Outcome, what: &str) {
    assert!(outcome.code.is_some_and(|code| code != 0 && code != 101), "{what}: {outcome:#?}");
    assert!(outcome.stderr.contains("error: ") && outcome.stderr.contains("hint: "), "{what}: {outcome:#?}");
}

#[test]
fn a_file_that_is_broken_cut_or_newer_is_told_and_left_alone() {
    let world = World::without_engines();
    third_party(&world.path("project"), "it.wasm", "1.0.0", PLAIN);
    for (name, args) in FILES {
        let path = place(&world, name);
        for (what, bytes, code) in [
            ("broken", &b"version = 1\nnonsense = [\n"[..], 2),
            ("cut", b"version = 1\n[", 2),
            ("an unknown field", b"version = 1\nno-such-field = true\n", 2),
            ("newer", b"version = 99\nfuture = true\n", 3),
            ("no text", b"\xff\xfe\x00\x01", 2),
        ] {
            std::fs::write(&path, bytes).expect("a file");
            let outcome = run(&world, args);
            assert_eq!(outcome.code, Some(code), "{name}, {what}: {outcome:#?}");
            refused(&outcome, what);
            assert_eq!(run(&world, args).stderr, outcome.stderr, "{name}, {what}: the same twice");
            assert_eq!(std::fs::read(&path).expect("a file"), bytes, "{name}, {what}: it was changed");
        }
        std::fs::remove_file(&path).expect("the file");
        std::fs::create_dir(&path).expect("a folder in its place");
        refused(&run(&world, args), "unreadable");
        std::fs::remove_dir(&path).expect("the folder");
    }
}

#[test]
fn without_a_home_the_error_says_what_to_set() {
    let world = World::without_engines();
    let mut command = world.pcoder(&["config"]);
    for name in ["HOME", "USERPROFILE", "PCODER_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"] {
        command.env_remove(name);
    }
    insta::assert_snapshot!(finish(command, "").shown(), @r"
        exit 2
        -- stderr
        error: `HOME` is not set, so there is no place for pcoder's files
          in layout

        hint: set `PCODER_HOME` to a folder of your choice
        ");
}

/// A file system of this size, mounted for one test; nothing where that cannot be done.
#[cfg(target_os = "linux")]
pub(crate) struct Mounted<'a>(&'a Path);

#[cfg(target_os = "linux")]
impl<'a> Mounted<'a> {
    pub(crate) fn tmpfs(folder: &'a Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a folder");
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(folder).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("notice: not tested, because nothing can be mounted here");
        None
    }

    fn read_only(&self) {
        let mount =
            std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(self.0).status().expect("mount runs");
        assert!(mount.success());
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_the_old_file_stays() {
    let world = World::without_engines();
    let home = world.path("pcoder");
    let Some(_disk) = Mounted::tmpfs(&home, "size=128k") else { return };
    third_party(&world.path("project"), "it.wasm", "1.0.0", PLAIN);
    run(&world, &["config", "set", "tool", "codex"]).printed();
    let before = std::fs::read(home.join("settings.toml")).expect("settings");
    let full = std::fs::write(home.join("filler"), vec![0; 1 << 20]);
    assert!(full.is_err(), "the disk is full");
    for args in [&["config", "set", "tool", "claude"][..], &["profile", "create", "x", "--tool", "claude"], FILES[2].1]
    {
        let outcome = run(&world, args);
        refused(&outcome, "full");
        assert!(outcome.stderr.contains("free some space"), "{args:?}: {outcome:#?}");
    }
    assert_eq!(std::fs::read(home.join("settings.toml")).expect("settings"), before);
    std::fs::remove_file(home.join("filler")).expect("the filler");
    run(&world, &["config", "set", "tool", "claude"]).printed();
    assert!(!home.join("profiles/x.toml").exists() && !home.join("plugins.lock").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_read_only_disk_what_is_there_is_read_and_nothing_more() {
    let world = World::without_engines();
    let home = world.path("pcoder");
    let Some(disk) = Mounted::tmpfs(&home, "size=1m") else { return };
    run(&world, &["config", "set", "tool", "codex"]).printed();
    run(&world, &["profile", "create", "work", "--tool", "claude"]).printed();
    disk.read_only();
    assert!(run(&world, &["config"]).printed().contains("codex"));
    assert!(run(&world, &["profile", "list"]).printed().contains("work"));
    assert!(run(&world, &["list-tools"]).printed().contains("claude"));
    for args in [&["config", "set", "tool", "claude"][..], &["profile", "create", "x", "--tool", "claude"]] {
        refused(&run(&world, args), "read-only");
    }
}

#[cfg(unix)]
#[test]
fn a_command_for_a_secret_that_hangs_is_ended_and_told() {
    let world = World::new();
    let make = ["profile", "create", "slow", "--tool", "claude", "--env", "X=command:sleep 600"];
    run(&world, &make).printed();
    let outcome = run(&world, &["run", "claude", "--profile", "slow", "--", "-p"]);
    assert_eq!(outcome.code, Some(6), "{outcome:#?}");
    assert!(outcome.stderr.contains("did not answer within 30 s"), "{outcome:#?}");
    #[cfg(target_os = "linux")]
    world.wait_until_all_is_gone();
}
