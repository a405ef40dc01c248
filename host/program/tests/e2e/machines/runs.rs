//! Agents in virtual machines.

use pcoder_model_server::environment::OFFLINE_KEY;

use super::Machines;
use crate::support::finish;

#[test]
fn claude_works_in_a_virtual_machine_and_its_changes_come_back() {
    let machines = Machines::with_profiles();
    let project = machines.world.project("a b/it's");
    std::fs::write(project.join("notes.txt"), "from here\n").expect("a file");
    let script =
        "@sh cat notes.txt > seen.txt; echo more >> notes.txt; id -un > who.txt; uname -n >> who.txt\n@say done";
    let args = ["run", "claude", "--mode", "linux-portable", "--profile", "offline", "--project", "a b/it's", "--"];
    let args = [&args[..], &["--dangerously-skip-permissions", "-p", script]].concat();
    let outcome = machines.run(&args);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "done\n"), "{outcome:#?}");
    let read = |name: &str| std::fs::read_to_string(project.join(name)).expect("a file");
    assert_eq!((read("seen.txt"), read("notes.txt")), ("from here\n".to_owned(), "from here\nmore\n".to_owned()));
    let who = read("who.txt");
    assert!(who.starts_with("pcoder\n") && who.lines().count() == 2, "{who}");
    // What is wrong there is the agent's own exit code here.
    let outcome = machines.run(&[&args[..9], &["--no-such-option"]].concat());
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    machines.terminate_all();
}

#[test]
fn codex_works_in_a_virtual_machine_and_its_changes_come_back() {
    let machines = Machines::with_profiles();
    let project = machines.world.project("p");
    let args = ["run", "codex", "--mode", "linux-portable", "--profile", "codex", "--project", "p", "--", "exec"];
    let more = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-"];
    let mut command = machines.world.pcoder(&[&args[..], &more].concat());
    command.env("OFFLINE_KEY", OFFLINE_KEY);
    let outcome = finish(command, "@sh echo from codex > made.txt\n@say done");
    assert_eq!((outcome.code, outcome.stdout.trim()), (Some(0), "done"), "{outcome:#?}");
    assert_eq!(std::fs::read_to_string(project.join("made.txt")).expect("a file"), "from codex\n");
    machines.terminate_all();
}
