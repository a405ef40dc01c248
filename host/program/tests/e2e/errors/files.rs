//! Errors of settings, of the audit, of files, and of command lines.

use std::os::unix::ffi::OsStringExt as _;

use super::Told;
use crate::support::World;

#[test]
fn errors_of_settings() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    told.fails(&["config", "get", "colour"]).fails(&["config", "set", "colour", "red"]);
    told.fails(&["config", "unset", "colour"]).fails(&["config", "get", "profile"]);
    told.fails(&["config", "set", "tool", "No Name"]).fails(&["config", "set", "install", "maybe"]);
    told.fails(&["config", "set", "otlp-endpoint", "nowhere"]);
    told.fails(&["config", "set", "secrets.KEY", "sk-ant-canary-0123456789"]);
    told.fails(&["config", "set", "profile.No Name", "work"]);
    told.set("PCODER_INSTALL", "maybe").fails(&["config"]).unset("PCODER_INSTALL");
    told.set("PCODER_TOOL", "No Name").fails(&["config"]).unset("PCODER_TOOL");
    told.fails(&["setup"]).fails(&["setup", "--default-tool", "emacs"]);
    told.fails(&["setup", "--auth", "claude=telepathy"]).fails(&["setup", "--auth", "claude"]);
    told.fails(&["setup", "--auth", "emacs=oauth"]);
    for (what, text) in [
        ("a field that a project may not set", "provider = \"local\"\n"),
        ("a field that nobody knows", "colour = \"red\"\n"),
        ("no TOML", "tool = = 1\n"),
    ] {
        std::fs::write(world.path("project/pcoder.toml"), text).expect("the project's file");
        told.note(&format!("the project's file: {what}")).fails(&["run", "--no-install"]);
    }
    std::fs::remove_file(world.path("project/pcoder.toml")).expect("the project's file");
    for (what, text) in [
        ("a newer one", "version = 9\n"),
        ("a field that nobody knows", "version = 1\ncolour = \"red\"\n"),
        ("no TOML", "version = 1\ntool = = 1\n"),
        ("a wrong value", "version = 1\ninstall = \"maybe\"\n"),
        ("a key that is written out", "version = 1\n[secrets]\nKEY = \"value:sk-canary\"\n"),
    ] {
        told.note(&format!("settings.toml: {what}")).write("settings.toml", text).fails(&["config"]);
    }
    told.are("settings");
}

#[test]
fn errors_of_the_audit() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    told.fails(&["list-tools", "--otlp-endpoint", "nowhere"]);
    told.fails(&["list-tools", "--otlp-endpoint", "http://user:canary@collector.example.com"]);
    told.fails(&["list-tools", "--otlp-endpoint", "http://collector.example.com"]);
    told.fails(&["audit", "verify", "--head", "xyz"]);
    told.make(&["list-tools"]);
    told.make(&["list-tools"]);
    let audit = world.path("pcoder/audit.jsonl");
    let whole = std::fs::read_to_string(&audit).expect("the audit");
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() > 3, "{whole}");
    let record = |at: usize| lines[at].to_owned();
    let joined = |lines: &[String]| lines.join("\n") + "\n";
    let all: Vec<String> = lines.iter().map(|&it| it.to_owned()).collect();
    let mut reordered = all.clone();
    reordered.swap(1, 2);
    let mut missing = all.clone();
    missing.remove(1);
    let mut changed = all.clone();
    changed[1] = record(1).replacen("agent", "agenT", 1);
    let mut newer = all.clone();
    newer[0] = record(0).replacen("\"schema_version\":1", "\"schema_version\":99", 1);
    for (what, text) in [
        ("a line was changed", joined(&changed)),
        ("a line is missing", joined(&missing)),
        ("two lines were exchanged", joined(&reordered)),
        ("the last line is missing", joined(&all[..all.len() - 1])),
        ("a line that is no record", whole.clone() + "nonsense\n"),
        ("a line of a newer pcoder", joined(&newer)),
    ] {
        std::fs::write(&audit, text).expect("the audit");
        told.note(what).fails(&["audit", "verify"]);
    }
    std::fs::write(&audit, &whole).expect("the audit");
    told.note("as it was").fails(&["audit", "verify", "--head", &"f".repeat(64)]);
    std::fs::remove_file(&audit).expect("the audit");
    std::fs::create_dir(&audit).expect("a folder in its place");
    told.note("a folder in its place").fails(&["audit", "show"]).fails(&["audit", "verify"]);
    told.are("audit");
}

#[test]
fn errors_of_files_and_folders() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    std::fs::write(world.path("project/a file"), "").expect("a file");
    told.fails(&["man", "--to", "a file"]).fails(&["man", "--to", "a file/below"]);
    told.without = &["HOME", "USERPROFILE", "PCODER_HOME", "XDG_DATA_HOME"];
    told.note("no home").fails(&["config"]);
    told.without = &[];
    told.set("PCODER_HOME", world.path("project/a file").to_str().expect("a path"));
    told.note("pcoder's folder is a file").fails(&["config", "set", "tool", "codex"]);
    told.unset("PCODER_HOME");

    // Another process holds the lock of the settings, and does not end.
    told.make(&["config", "set", "tool", "codex"]);
    let locks = world.path("pcoder/locks");
    let lock = locks.read_dir().expect("a folder").map(|it| it.expect("an entry").path());
    let lock = lock.into_iter().find(|it| it.to_string_lossy().contains("settings")).expect("its lock");
    let held = std::fs::File::options().write(true).open(lock).expect("the lock");
    held.lock().expect("locked");
    told.note("its lock is held").fails(&["config", "set", "tool", "claude"]);
    drop(held);

    let mut full = told.command(&["config", "--json"]);
    full.stdout(std::fs::File::options().write(true).open("/dev/full").expect("a device"));
    told.note("standard output is full").fails_full("config --json", full);

    let gone = world.path("gone");
    std::fs::create_dir(&gone).expect("a folder");
    let program = env!("CARGO_BIN_EXE_pcoder");
    let script = "rmdir \"$PWD\" && exec \"$0\" config";
    let mut command = world.command("sh", &["-c", script, program]);
    command.current_dir(&gone);
    told.note("the working folder was deleted").fails_as("config", command, "");
    told.are("files");
}

impl Told<'_> {
    fn fails_full(&mut self, typed: &str, mut command: std::process::Command) {
        let output = command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn();
        let output = output.and_then(std::process::Child::wait_with_output).expect("pcoder starts");
        let code = output.status.code().expect("an exit code");
        self.text +=
            &format!("$ pcoder {typed}\nexit {code}\n-- stderr\n{}\n", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn errors_of_command_lines() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    told.fails(&["fly"]).fails(&["run", "--fly"]).fails(&["profile", "create"]).fails(&["profile"]);
    told.fails(&["run", "--mode", "telepathy"]).fails(&["completions", "csh"]);
    told.fails(&["audit", "show", "--all", "-n", "3"]).fails(&["audit", "show", "-n", "some"]);
    told.fails(&["profile", "create", "x", "--tool", "claude", "--env", "nothing"]);
    told.fails(&["profile", "create", "x", "--tool", "claude", "--wall-seconds", "0"]);
    told.fails(&["auth", "login", "claude", "--paste", "--api-key", "env:K"]);
    let mut command = told.command(&["run"]);
    command.arg(std::ffi::OsString::from_vec(vec![b'a', 0xff]));
    told.fails_as("run [a byte that is no text]", command, "");
    told.are("command-lines");
}
