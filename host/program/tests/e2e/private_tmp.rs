//! `run --private-tmp`: the agent's `/tmp` is its own, and what was in the real one is still there.

use std::path::PathBuf;

use crate::support::{World, finish};

/// Where a system lets nobody have namespaces, as in many containers, there is nothing to test.
pub(crate) fn possible(world: &World) -> bool {
    let probed = finish(world.pcoder(&["__private-tmp", "--probe"]), "");
    if probed.code != Some(0) {
        eprintln!("notice: not tested, {}", probed.stderr.trim());
    }
    probed.code == Some(0)
}

#[test]
fn what_an_agent_makes_in_its_own_tmp_is_gone_with_it_and_what_is_there_is_real() {
    let world = World::new();
    if !possible(&world) {
        return;
    }
    let project = world.project("p");
    // In the machine's, on purpose.
    let there = tempfile::Builder::new().prefix("pcoder-e2e-").tempdir_in("/tmp").expect("a folder");
    let file = there.path().join("file");
    std::fs::write(&file, "from before").expect("a file");
    let made = PathBuf::from(format!("{}-made", there.path().display()));
    let script = format!(
        "@sh cat {file} > seen.txt; echo changed > {file}; echo new > {made}; cp {made} made.txt\n@say done",
        file = file.display(),
        made = made.display()
    );
    let run = |more: &[&str]| {
        let mut command = world.pcoder(&["run", "codex", "--project"]);
        command.arg(&project).args(more);
        command.args(["--", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "-"]);
        finish(command, &script).printed().to_owned()
    };
    run(&["--private-tmp"]);
    let read = |name: &str| std::fs::read_to_string(project.join(name)).expect("the agent wrote it");
    assert_eq!((read("seen.txt").as_str(), read("made.txt").as_str()), ("from before", "new\n"));
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "changed\n", "what is there is the real one");
    assert!(!made.exists(), "what is made beside it is nobody else's");

    // Without it, it is the machine's.
    run(&[]);
    assert!(made.exists());
    std::fs::remove_file(made).expect("a file");
}

/// A signal goes to the agent, whose exit code is the run's, as without.
#[test]
fn signals_and_exit_codes_are_the_agents_own() {
    let world = World::new();
    if !possible(&world) {
        return;
    }
    let mut command = world.pcoder(&["run", "claude", "--private-tmp", "--project"]);
    command.arg(world.project("p")).args(["--", "-p"]);
    let claude = crate::support::start(command, "@say one moment\n@sleep 600\n@say too late");
    world.wait_for_prompt("@sleep 600");
    claude.signal(rustix::process::Signal::INT);
    let outcome = claude.finish();
    assert_eq!(outcome.code, Some(0), "as Claude Code takes an interruption: {outcome:#?}");
    world.wait_until_all_is_gone();
    let wrong = finish(world.pcoder(&["run", "claude", "--private-tmp", "--", "--no-such-option"]), "");
    let plain = finish(world.pcoder(&["run", "claude", "--", "--no-such-option"]), "");
    assert_eq!((wrong.code, wrong.stderr), (plain.code, plain.stderr));
}

/// Of those of others, Linux follows none in such a folder. Made anew, they would be the agent's own.
#[test]
fn links_of_others_are_left_out() {
    let world = World::new();
    if !possible(&world) || !rustix::process::geteuid().is_root() {
        return;
    }
    let link = tempfile::Builder::new().prefix("pcoder-e2e-").tempdir_in("/tmp").expect("a folder");
    let link = PathBuf::from(format!("{}-link", link.path().display()));
    std::os::unix::fs::symlink("/etc/hostname", &link).expect("a link");
    let listed = |owner: u32| {
        std::os::unix::fs::lchown(&link, Some(owner), None).expect("it is root's to give");
        let mut command = world.pcoder(&["__private-tmp", "--", "readlink"]);
        command.arg(&link);
        finish(command, "").stdout
    };
    assert_eq!(listed(65534), "");
    assert_eq!(listed(0), "/etc/hostname\n");
    std::fs::remove_file(link).expect("the link");
}
