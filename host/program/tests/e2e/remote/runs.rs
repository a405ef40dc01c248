//! `run … --provider NAME`: the project goes there, and what the agent did comes back.

use pcoder_fake_morph::Options;
use pcoder_model_server::environment::OFFLINE_KEY;
use rustix::process::Signal;

use super::smoke::profile;
use super::{Morph, programs};
use crate::support::{Outcome, Running, World, finish, start, until};

fn morph() -> Morph {
    let world = World::new();
    let (shared, environment) = programs(&world, None);
    let morph = Morph::new(world, Options { shared, environment, ..Options::default() });
    profile(&morph.world);
    morph
}

impl Morph {
    /// Runs the agent on an instance with this prompt.
    fn agent(&self, more: &[&str], prompt: &str) -> Outcome {
        self.begin(more, prompt).finish()
    }

    fn begin(&self, more: &[&str], prompt: &str) -> Running {
        let project = self.world.project("app");
        let project = project.to_str().expect("a path");
        let mut args = vec!["run", "claude", "--provider", "morph", "--profile", "offline", "--project", project];
        args.extend(more);
        args.extend(["--", "--dangerously-skip-permissions", "-p", prompt]);
        let mut command = self.pcoder(&args);
        command.env("OFFLINE_KEY", OFFLINE_KEY);
        start(command, "")
    }
}

#[test]
fn the_agent_finds_the_project_there_and_its_changes_come_back() {
    let morph = morph();
    let project = morph.world.project("app");
    std::fs::write(project.join("notes.txt"), "from here\n").expect("a file");
    std::fs::create_dir_all(project.join(".git")).expect("a folder");
    std::fs::write(project.join(".git/config"), "mine\n").expect("a file");
    let script = "@sh cat notes.txt > seen.txt; echo more >> notes.txt; ls -A > list.txt\n@say it is done";
    let outcome = morph.agent(&[], script);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "it is done\n"), "{outcome:#?}");
    let read = |name: &str| std::fs::read_to_string(project.join(name)).expect("a file");
    assert_eq!((read("seen.txt"), read("notes.txt")), ("from here\n".to_owned(), "from here\nmore\n".to_owned()));
    assert!(!read("list.txt").contains(".git"), "{}", read("list.txt"));
    assert_eq!(read(".git/config"), "mine\n");
    // It was booted for the run, so it ended with it.
    assert_eq!(morph.json(&["instance", "list", "--json"])["instances"].as_array().map(Vec::len), Some(0));
}

#[test]
fn an_instance_that_is_kept_is_used_again_and_gets_only_what_changed() {
    let morph = morph();
    let project = morph.world.project("app");
    std::fs::write(project.join("a"), "one\n").expect("a file");
    let outcome = morph.agent(&["--keep"], "@sh cat a > b\n@say first");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "first\n"), "{outcome:#?}");
    let list = morph.json(&["instance", "list", "--json"]);
    let id = list["instances"][0]["id"].as_str().expect("an instance").to_owned();
    // Changed on both sides: both stay.
    std::fs::write(project.join("a"), "two\n").expect("a file");
    morph.run(&["instance", "exec", &id, "--shell", "echo theirs > projects/app/a"]).printed();
    let outcome = morph.agent(&["--instance", &id], "@say second");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "second\n"), "{outcome:#?}");
    assert!(outcome.stderr.contains("changed on both sides"), "{outcome:#?}");
    assert_eq!(std::fs::read_to_string(project.join("a")).expect("a file"), "two\n");
    let aside = std::fs::read_dir(&project).expect("a folder").filter_map(|it| it.ok()?.file_name().into_string().ok());
    assert!(aside.into_iter().any(|name| name == format!("a.from-{id}")), "nothing was kept aside");
    // Not brought back when that is said.
    let outcome = morph.agent(&["--instance", &id, "--no-sync-back"], "@sh echo x > c\n@say third");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(!project.join("c").exists());
    morph.run(&["instance", "terminate", &id]).printed();
}

#[test]
fn a_run_that_is_interrupted_brings_back_what_was_done_and_leaves_no_instance() {
    let morph = morph();
    let project = morph.world.project("app");
    std::fs::write(project.join("a"), "here\n").expect("a file");
    let booting = morph.begin(&[], "@say nothing");
    morph.until_booting(0);
    booting.signal(Signal::INT);
    let outcome = booting.finish();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(130), ""), "{outcome:#?}");
    assert_eq!(morph.count(), 0);

    let working = morph.begin(&[], "@sh echo there > b; sleep 1000\n@say never");
    // The agent says nothing while it works; what it made is seen on the instance.
    let list = || morph.json(&["instance", "list", "--json"])["instances"][0]["id"].as_str().map(str::to_owned);
    until("the agent works", || {
        let id = list()?;
        let made = morph.run(&["instance", "exec", &id, "--", "cat", "projects/app/b"]);
        (made.stdout == "there\n").then_some(())
    });
    working.signal(Signal::INT);
    let outcome = working.finish();
    assert_eq!(outcome.code, Some(130), "{outcome:#?}");
    assert_eq!(std::fs::read_to_string(project.join("b")).expect("it was brought back"), "there\n");
    assert_eq!(morph.count(), 0);
}

#[test]
fn a_run_that_is_killed_is_told_by_the_next_one_until_its_work_is_back() {
    let morph = morph();
    let project = morph.world.project("app");
    let instances = || -> Vec<String> {
        let list = morph.json(&["instance", "list", "--json"]);
        let ids = list["instances"].as_array().expect("a list").iter().map(|it| it["id"].as_str().expect("an id"));
        ids.map(str::to_owned).collect()
    };
    // While it boots, what it will be called is not known here. It is said once.
    let booting = morph.begin(&[], "@say never");
    morph.until_booting(0);
    booting.kill();
    let outcome = morph.agent(&[], "@say done");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "done\n"), "{}", outcome.shown());
    assert!(outcome.stderr.contains("was cut off while its machine booted"), "{}", outcome.shown());
    for id in instances() {
        morph.run(&["instance", "terminate", &id]).printed();
    }

    let working = morph.begin(&[], "@sh echo there > b; sleep 1000\n@say never");
    let id = until("the agent works", || {
        let id = instances().pop()?;
        let made = morph.run(&["instance", "exec", &id, "--", "cat", "projects/app/b"]);
        (made.stdout == "there\n").then_some(id)
    });
    // It goes on, so that there is nothing to say.
    let outcome = morph.agent(&[], "@say second");
    assert!(outcome.code == Some(0) && !outcome.stderr.contains("cut off"), "{}", outcome.shown());
    working.kill();
    let mends = format!("`pcoder run claude --provider morph --instance {id}`");
    for _ in 0..2 {
        let outcome = morph.agent(&[], "@say third");
        assert!(outcome.code == Some(0) && outcome.stderr.contains(&mends), "{}", outcome.shown());
    }
    assert!(!project.join("b").exists());
    // What is not to be brought back is still missed.
    let outcome = morph.agent(&["--instance", &id, "--no-sync-back"], "@say fourth");
    assert_eq!(outcome.code, Some(0), "{}", outcome.shown());
    let outcome = morph.agent(&[], "@say fifth");
    assert!(outcome.stderr.contains(&mends), "{}", outcome.shown());
    let outcome = morph.agent(&["--instance", &id], "@say sixth");
    assert!(outcome.code == Some(0) && !outcome.stderr.contains("cut off"), "{}", outcome.shown());
    assert_eq!(std::fs::read_to_string(project.join("b")).expect("it was brought back"), "there\n");
    let outcome = morph.agent(&[], "@say seventh");
    assert!(outcome.code == Some(0) && !outcome.stderr.contains("cut off"), "{}", outcome.shown());
    assert_eq!(instances(), [id.as_str()]);

    // One whose instance is gone has left nothing.
    let working = morph.begin(&[], "@sh echo more > c; sleep 1000\n@say never");
    let other = until("the agent works", || {
        let id = instances().into_iter().find(|it| *it != id)?;
        let made = morph.run(&["instance", "exec", &id, "--", "cat", "projects/app/c"]);
        (made.stdout == "more\n").then_some(id)
    });
    working.kill();
    morph.run(&["instance", "terminate", &id, &other]).printed();
    let outcome = morph.agent(&[], "@say eighth");
    assert!(outcome.code == Some(0) && !outcome.stderr.contains("cut off"), "{}", outcome.shown());
    let kept = std::fs::read_to_string(morph.world.path("pcoder/runs.toml")).expect("a file");
    assert!(!kept.contains("claude"), "{kept}");
}

#[test]
fn what_only_this_machine_has_is_refused_before_anything_is_booted() {
    let morph = morph();
    let before = morph.requests();
    for more in [&["--private-tmp"][..], &["--engine-version", "0.3.156"]] {
        let outcome = morph.agent(more, "@say no");
        assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    }
    assert_eq!(morph.requests(), before);
    let project = morph.world.project("app");
    let outcome = finish(
        morph.pcoder(&[
            "run",
            "claude",
            "--provider",
            "local",
            "--keep",
            "--project",
            project.to_str().expect("a path"),
        ]),
        "",
    );
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
}

#[test]
fn what_cannot_be_brought_back_stays_on_the_instance_until_it_can() {
    use pcoder_fake_morph::{Fault, FaultKind, Match, Times};
    let morph = morph();
    let project = morph.world.project("app");
    std::fs::write(project.join("a"), "one\n").expect("a file");
    let path = project.to_str().expect("a path").to_owned();
    let prompt = "@sh echo made > made\n@sleep 2\n@say done";
    let args = ["run", "claude", "--provider", "morph", "--profile", "offline", "--project", &path, "--"];
    let mut command = morph.pcoder(&[&args[..], &["--dangerously-skip-permissions", "-p", prompt]].concat());
    command.env("OFFLINE_KEY", OFFLINE_KEY);
    let running = crate::support::start(command, "");
    morph.world.wait_for_prompt("echo made");
    // The agent's own request is under way; every one that comes after it fails.
    let on = Match { operation: Some("instance.exec-sse".to_owned()), ..Match::default() };
    let fault = Fault { on, what: FaultKind::status(503), times: Times::Always };
    morph.fake.faults().push(fault).expect("a fault");
    let outcome = running.finish();
    assert_eq!(outcome.code, Some(4), "{outcome:#?}");
    assert!(outcome.stderr.contains("the agent's changes are still on the instance"), "{outcome:#?}");
    assert!(!project.join("made").exists());
    morph.fake.faults().clear();
    let list = morph.json(&["instance", "list", "--json"]);
    let id = list["instances"][0]["id"].as_str().expect("the instance stayed").to_owned();
    let outcome = morph.agent(&["--instance", &id], "@say again");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(std::fs::read_to_string(project.join("made")).expect("a file"), "made\n");
}

#[test]
fn an_agent_that_is_not_there_is_told_and_the_instance_does_not_stay() {
    let morph = Morph::new(World::new(), Options::default());
    profile(&morph.world);
    let outcome = morph.agent(&[], "@say no");
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(
        outcome.stderr.contains("`claude` is not on the instance") && outcome.stderr.contains("hint:"),
        "{outcome:#?}"
    );
    assert_eq!(morph.json(&["instance", "list", "--json"])["instances"].as_array().map(Vec::len), Some(0));
}
