//! Agents in virtual machines.

use pcoder_model_server::environment::OFFLINE_KEY;

use super::Machines;
use crate::remote::smoke::TOKEN;
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

/// The check after setting up. The image has no process manager, and the model is on this host.
#[test]
fn smoke_goes_from_boot_to_an_agents_answer_in_a_virtual_machine() {
    let machines = Machines::with_profiles();
    for (tool, profile, more) in [
        ("claude", "offline", &["--network", "restricted", "--credentials", "claude/oauth-token"][..]),
        ("codex", "codex", &[]),
    ] {
        let args = ["smoke", "--tool", tool, "--profile", profile, "--json"];
        let mut command = machines.world.pcoder(&[&args[..], more].concat());
        command.env("CLAUDE_ACCESS_TOKEN", TOKEN);
        let outcome = finish(command, "");
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(![TOKEN, OFFLINE_KEY].iter().any(|secret| said.contains(secret)), "{outcome:#?}");
        let report = outcome.json();
        let steps = report["steps"].as_array().expect("steps");
        let names: Vec<_> = steps.iter().map(|it| it["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["boot", "exec", "tools", "credentials", "files", "run", "cleanup"]);
        assert!(steps.iter().all(|it| it["outcome"] == "ok"), "{report:#}");
        let detail = |name: &str| steps.iter().find(|it| it["name"] == name).expect("a step")["detail"].to_string();
        assert!(detail("tools").contains(&format!("/opt/pcoder/engines/bin/{tool}, ")), "{report:#}");
        assert!(detail("run").contains("pineapple"), "{report:#}");
        assert!(machines.statuses().is_empty());
    }
    // An agent that does not answer is told, and the machine ends all the same.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port");
    let endpoint = format!("http://{nobody}");
    let args = ["profile", "create", "gone", "--tool", "claude", "--key", "env:OFFLINE_KEY", "--endpoint", &endpoint];
    let quiet = ["CLAUDE_CODE_MAX_RETRIES=value:0", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=value:1"];
    machines.run(&[&args[..], &["--env", quiet[0], "--env", quiet[1]]].concat()).printed();
    let outcome = machines.run(&["smoke", "--profile", "gone", "--json"]);
    let report = outcome.json();
    let steps = report["steps"].as_array().expect("steps");
    let failed: Vec<_> = steps.iter().filter(|it| it["outcome"] == "failed").collect();
    assert!(matches!(failed.as_slice(), [step] if step["name"] == "run"), "{report:#}");
    assert!(failed[0]["detail"].to_string().contains("the agent ended with"), "{report:#}");
    assert_eq!((outcome.code, machines.statuses().len()), (Some(1), 0), "{report:#}");
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
