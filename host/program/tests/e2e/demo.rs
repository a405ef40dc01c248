//! `pcoder demo`: what a newcomer sees first.

use std::io::BufRead as _;
use std::process::Command;

use crate::support::{Outcome, World, finish, wait};

/// What is to be shown, in this order, for each agent.
const SHOWN: [(&str, &str); 5] = [
    ("command", "reply"),
    ("command", "change a file"),
    ("acp", "reply"),
    ("acp", "ask, then change a file"),
    ("acp", "cancel a turn"),
];

fn shows_everything(outcome: &Outcome) {
    outcome.printed();
    let shown = outcome.json();
    let found: Vec<_> = shown["shown"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| ["tool", "by", "what"].map(|name| it[name].as_str().expect("a text").to_owned()))
        .collect();
    let expected: Vec<_> = ["claude", "codex"]
        .iter()
        .flat_map(|tool| SHOWN.map(|(by, what)| [tool, by, what].map(str::to_owned)))
        .collect();
    assert_eq!(found, expected);
    assert!(shown["model_requests"].as_u64().is_some_and(|count| count >= 10), "{shown}");
}

/// The registry of a test's environment is one where nobody listens, so a download would fail.
#[test]
fn it_shows_both_agents_twice_and_downloads_nothing() {
    let world = World::new();
    shows_everything(&finish(world.pcoder(&["demo", "--json"]), ""));
    shows_everything(&finish(world.pcoder(&["demo", "--json"]), ""));
    let left: Vec<_> = std::fs::read_dir(world.path("tmp")).expect("a folder").collect();
    assert!(left.is_empty(), "temporary projects are removed: {left:?}");
}

#[test]
fn it_says_what_it_shows() {
    let world = World::new();
    let outcome = finish(world.pcoder(&["demo", "codex"]), "");
    let filters = [(r"\d+ times", "N times")];
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!(outcome.printed(), @r"
        ok  codex   command line  reply                    hello from the real engine
        ok  codex   command line  change a file            by-command.txt: written by a tool call
        ok  codex   over ACP      reply                    hello over ACP
        ok  codex   over ACP      ask, then change a file  by-acp.txt: allowed
        ok  codex   over ACP      cancel a turn            cancelled

        All of it ran offline: the engines asked the model server in this program N times.
        Try your own account: `pcoder run claude`
        ") });
}

#[test]
fn an_agent_without_a_script_is_refused() {
    let world = World::without_engines();
    insta::assert_snapshot!(finish(world.pcoder(&["demo", "emacs"]), "").shown(), @r"
        exit 3
        -- stderr
        error: the demo has no script for this agent
          in demo: emacs

        hint: choose from claude, codex
        ");
}

/// What it prints is all that a shell needs, and it takes its files with it.
#[cfg(unix)]
#[test]
fn the_model_server_can_be_used_by_hand() {
    let world = World::new();
    let mut serving =
        world.pcoder(&["demo", "--serve"]).stdout(std::process::Stdio::piped()).spawn().expect("pcoder starts");
    let mut lines = std::io::BufReader::new(serving.stdout.take().expect("a pipe")).lines();
    let mut exports = Vec::new();
    while !exports.iter().any(|(name, _)| name == "NO_BROWSER") {
        let line = lines.next().expect("it prints them all").expect("text");
        if let Some((name, value)) = line.strip_prefix("export ").and_then(|it| it.split_once('=')) {
            exports.push((name.to_owned(), value.trim_matches('\'').to_owned()));
        }
    }
    for (tool, args) in [("claude", ["-p"].as_slice()), ("codex", &["exec", "--skip-git-repo-check", "-"])] {
        let mut command = world.run(tool, &world.project("p"), args);
        command.envs(exports.clone());
        assert_eq!(finish(command, "@say by hand").printed().trim(), "by hand");
    }
    assert!(!world.asked("by hand"), "it was the program's own server");
    let pid = rustix::process::Pid::from_child(&serving);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let ended = wait("it has ended", move || serving.wait().expect("a child"));
    assert_eq!(ended.code(), Some(0));
    // What else is there is the engines' own.
    let entries = std::fs::read_dir(world.path("tmp")).expect("a folder");
    let names: Vec<_> = entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with("pcoder-")), "{names:?}");
}

/// The proof that nothing else is reached: there is nothing else.
#[cfg(target_os = "linux")]
#[test]
fn it_needs_no_network_but_loopback() {
    let possible = Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("notice: not tested, because `unshare -rn` and `ip` do not work here (no user namespaces?)");
        return;
    }
    let world = World::new();
    let script = "ip link set lo up && exec \"$0\" demo --json";
    let command = world.command("unshare", &["-rn", "sh", "-c", script, env!("CARGO_BIN_EXE_pcoder")]);
    shows_everything(&finish(command, ""));
}
