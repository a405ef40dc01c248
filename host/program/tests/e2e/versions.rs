//! The engine versions that are supported besides the default ones: each answers, and changes a file by a tool call.

use std::path::Path;

use crate::support::{World, finish};

/// A reply and a tool call, with one version of one agent.
fn works(tool: &str, version: &str) {
    let world = World::new();
    let project = world.project("p");
    let run = |args: &[&str], prompt: &str| {
        let mut command = world.pcoder(&["run", tool, "--engine-version", version, "--project"]);
        command.arg(&project).arg("--").args(args);
        finish(command, prompt).printed().trim().to_owned()
    };
    let says = run(&["--version"], "");
    let reported = version.replacen("0.3.", "2.1.", usize::from(tool == "claude"));
    assert!(says.contains(&reported), "it is the version that was asked for: {says}");
    let (reply, change): (&[&str], &[&str]) = match tool {
        "claude" => (&["-p"], &["-p", "--permission-mode", "acceptEdits"]),
        _ => (
            &["exec", "--skip-git-repo-check", "-"],
            &["exec", "--skip-git-repo-check", "--sandbox", "workspace-write", "-"],
        ),
    };
    assert_eq!(run(reply, "@say hello from the past"), "hello from the past");
    let file = |name: &str| if tool == "claude" { project.join(name) } else { Path::new(name).to_owned() };
    let script = format!("@patch {} by a tool\n@say done", file("changed.txt").display());
    assert_eq!(run(change, &script), "done");
    assert_eq!(std::fs::read_to_string(project.join("changed.txt")).expect("the file"), "by a tool\n");
}

#[test]
fn claude_0_3_156() {
    works("claude", "0.3.156");
}

#[test]
fn codex_0_128_0() {
    works("codex", "0.128.0");
}
