//! Agents in virtual machines.

use pcoder_model_server::environment::OFFLINE_KEY;

use super::Machines;
use crate::support::{finish, start, until};

#[test]
fn claude_works_in_a_virtual_machine_and_its_changes_come_back() {
    let machines = Machines::with_profiles();
    let project = machines.world.project("a b/it's");
    std::fs::write(project.join("notes.txt"), "from here\n").expect("a file");
    let script = "@sh cat notes.txt > seen.txt; echo more >> notes.txt; (id -un; uname -n; nproc) > who.txt\n@say done";
    let args = ["run", "claude", "--mode", "linux-portable", "--profile", "offline", "--project", "a b/it's"];
    let args = [&args[..], &["--option", "cpus=1", "--"]].concat();
    let args = [&args[..], &["--dangerously-skip-permissions", "-p", script]].concat();
    let outcome = machines.run(&args);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "done\n"), "{outcome:#?}");
    let read = |name: &str| std::fs::read_to_string(project.join(name)).expect("a file");
    assert_eq!((read("seen.txt"), read("notes.txt")), ("from here\n".to_owned(), "from here\nmore\n".to_owned()));
    let who = read("who.txt");
    assert!(who.starts_with("pcoder\n") && who.ends_with("\n1\n") && who.lines().count() == 3, "{who}");
    // What is wrong there is the agent's own exit code here.
    let outcome = machines.run(&[&args[..11], &["--no-such-option"]].concat());
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

#[test]
fn a_run_that_is_killed_leaves_its_work_on_a_machine_that_the_next_one_names() {
    let machines = Machines::with_profiles();
    let project = machines.world.project("p");
    let args = ["run", "claude", "--mode", "linux-portable", "--profile", "offline", "--project", "p"];
    let agent = |more: &[&str], prompt: &str| {
        let prompt = ["--", "--dangerously-skip-permissions", "-p", prompt];
        machines.world.pcoder(&[&args[..], more, &prompt].concat())
    };
    let working = start(agent(&[], "@sh echo there > made.txt; sleep 1000\n@say never"), "");
    let ready = || machines.statuses().into_iter().find(|(_, status)| status == "ready");
    let (id, _) = until("it has booted", ready);
    until("the agent works", || {
        let made = machines.run(&["instance", "exec", &id, "--", "cat", "projects/p/made.txt"]);
        (made.stdout == "there\n").then_some(())
    });
    working.kill();
    // With what the first one says, and a machine of its own.
    let outcome = finish(agent(&[], "@say second"), "");
    let mends = format!("`pcoder run claude --provider qemu --instance {id}`");
    assert!(outcome.code == Some(0) && outcome.stderr.contains(&mends), "{}", outcome.shown());
    let outcome = finish(agent(&["--instance", &id], "@say third"), "");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "third\n"), "{}", outcome.shown());
    assert_eq!(std::fs::read_to_string(project.join("made.txt")).expect("it was brought back"), "there\n");
    assert!(machines.statuses().into_keys().eq([id]));
    machines.terminate_all();
}
