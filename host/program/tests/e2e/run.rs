//! `pcoder run` with pipes: replies, exit codes, projects, and what goes wrong before anything is started.

use std::path::Path;

use crate::support::{Outcome, World, finish};

/// A snapshot of a whole outcome, with the test's own folder as `[WORLD]`.
macro_rules! snapshot {
    ($world:expr, $outcome:expr, @$expected:literal) => {
        let shown = $outcome.shown().replace(&$world.path("").display().to_string(), "[WORLD]/");
        insta::assert_snapshot!(shown, @$expected);
    };
}

fn codex_exec(world: &World, project: &Path, args: &[&str], prompt: &str) -> Outcome {
    let mut all = vec!["exec", "--skip-git-repo-check"];
    all.extend(args);
    all.push("-");
    finish(world.run("codex", project, &all), prompt)
}

#[test]
fn claude_answers_a_prompt_on_its_command_line() {
    let world = World::new();
    let outcome = finish(world.run("claude", &world.project("a b/it's"), &["-p", "say hi"]), "");
    assert_eq!(outcome.printed().trim(), "offline model: say hi");
    assert_eq!(outcome.stderr, "", "pcoder itself says nothing");
    assert!(
        world
            .server()
            .requests()
            .iter()
            .all(|it| it.credentials.are("sk-offline-not-a-secret") || it.prompt.is_empty())
    );
}

#[test]
fn where_no_virtual_machine_can_be_started_auto_is_this_machine_and_says_so() {
    let world = World::new();
    let mut command =
        world.pcoder(&["run", "claude", "--mode", "auto", "--project", ".", "--", "-p", "@say without one"]);
    command.env("PCODER_QEMU", "/nowhere/qemu");
    let outcome = finish(command, "");
    assert_eq!(outcome.printed().trim(), "without one");
    assert!(outcome.stderr.starts_with("note: it runs on this machine, without isolation: "), "{outcome:#?}");
    assert!(outcome.stderr.contains("/nowhere/qemu"), "{outcome:#?}");
}

#[test]
fn standard_input_goes_through_to_the_agent() {
    let world = World::new();
    let outcome = finish(world.run("claude", &world.project("p"), &["-p"]), "@say from a pipe");
    assert_eq!(outcome.printed().trim(), "from a pipe");
    let outcome = codex_exec(&world, &world.project("p"), &[], "@say from a pipe, too");
    assert_eq!(outcome.printed().trim(), "from a pipe, too");
}

#[test]
fn a_large_standard_input_arrives_whole() {
    let world = World::new();
    let prompt = "abcdefg ".repeat(40_000);
    let outcome = finish(world.run("claude", &world.project("p"), &["-p"]), &prompt);
    assert_eq!(outcome.printed().trim(), format!("offline model: {}", prompt.trim()));
}

#[test]
fn arguments_reach_the_agent_as_they_are() {
    let world = World::new();
    let prompt = "it's \"two\"\nlines; $HOME `id` \\ * 日本 🦀";
    let outcome = finish(world.run("claude", &world.project("p"), &["-p", prompt]), "");
    assert_eq!(outcome.printed().trim(), format!("offline model: {prompt}"));
}

#[test]
fn any_name_of_a_project_works() {
    let names = ["a b/it's", "\"quoted\" $HOME `id` \\ *", "line\nend", "日本 é 🦀", "-p", " x"];
    let world = World::new();
    for name in names {
        let project = world.project(name);
        let shown = project.display();
        let outcome = finish(world.run("claude", &project, &["-p"]), "@sh pwd\n@say it is in <$RESULT>");
        assert_eq!(outcome.printed().trim(), format!("it is in <{shown}>"));
        let outcome =
            codex_exec(&world, &project, &["--sandbox", "workspace-write"], "@sh echo made > by-codex.txt\n@say done");
        assert_eq!(outcome.printed().trim(), "done");
        assert_eq!(std::fs::read_to_string(project.join("by-codex.txt")).expect("a file"), "made\n");
    }
}

#[test]
fn the_project_is_the_working_folder_when_none_is_named_and_relative_ones_begin_there() {
    let world = World::new();
    let project = world.project("here");
    let script = "@sh pwd\n@say $RESULT";
    let mut command = world.pcoder(&["run", "claude", "--", "-p"]);
    command.current_dir(&project);
    assert_eq!(finish(command, script).printed().trim(), project.display().to_string());
    let mut command = world.pcoder(&["run", "claude", "--project", "../here", "--", "-p"]);
    command.current_dir(world.project("there"));
    assert_eq!(finish(command, script).printed().trim(), project.display().to_string());
}

#[test]
fn a_failure_of_the_agent_is_the_exit_code() {
    let world = World::new();
    let project = world.project("p");
    let outcome = finish(world.run("claude", &project, &["-p"]), "@error 400 invalid_request_error");
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stdout.starts_with("API Error: 400"), "{outcome:#?}");
    let outcome = finish(world.run("codex", &project, &["exec", "--no-such-flag"]), "");
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    assert!(outcome.stderr.contains("--no-such-flag"), "the agent's own words: {outcome:#?}");
}

#[test]
fn json_is_one_object_with_both_streams_and_the_exit_code() {
    let world = World::new();
    let project = world.project("p");
    let run = |args: &[&str], input: &str| {
        let mut command = world.pcoder(&["run", "claude", "--json", "--project"]);
        command.arg(&project).arg("--").args(args);
        let outcome = finish(command, input);
        let mut object = outcome.json();
        assert!(object["duration_ms"].take().is_u64(), "{outcome:#?}");
        assert_eq!(outcome.stderr, "", "{outcome:#?}");
        (outcome.code, serde_json::to_string_pretty(&object).expect("JSON"))
    };
    let (code, object) = run(&["-p"], "@say captured");
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(object, @r#"
        {
          "schema_version": 1,
          "exit_code": 0,
          "signal": null,
          "stdout": "captured\n",
          "stdout_truncated": false,
          "stderr": "",
          "stderr_truncated": false,
          "duration_ms": null
        }
        "#);
    let (code, object) = run(&["--no-such-flag"], "");
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(object, @r#"
        {
          "schema_version": 1,
          "exit_code": 1,
          "signal": null,
          "stdout": "",
          "stdout_truncated": false,
          "stderr": "error: unknown option '--no-such-flag'\n",
          "stderr_truncated": false,
          "duration_ms": null
        }
        "#);
}

#[test]
fn an_unknown_tool_is_named_with_the_known_ones() {
    let world = World::without_engines();
    snapshot!(world, finish(world.pcoder(&["run", "cluade"]), ""), @r"
        exit 3
        -- stderr
        error: there is no tool of that name
          in plugin: cluade

        hint: choose one of `claude`, `codex`; `pcoder list-tools` shows them
        ");
}

#[test]
fn an_unknown_provider_is_named_with_the_known_ones() {
    let world = World::without_engines();
    snapshot!(world, finish(world.pcoder(&["run", "claude", "--provider", "moon"]), ""), @r"
        exit 3
        -- stderr
        error: there is no provider of that name
          in plugin: moon

        hint: choose one of `codesandbox`, `local`, `morph`, `qemu`; `pcoder plugin list` shows them
        ");
}

#[test]
fn a_project_that_is_not_there_is_named() {
    let world = World::without_engines();
    snapshot!(world, finish(world.pcoder(&["run", "claude", "--project", "no\nsuch \u{1b}[31mfolder"]), ""), @r"
        exit 3
        -- stderr
        error: the project's folder is not there
          in run: [WORLD]/project/no\nsuch \u{1b}[31mfolder

        hint: create it, or give another one: `--project FOLDER`
        ");
}

#[test]
fn a_project_that_is_a_file_is_named() {
    let world = World::without_engines();
    std::fs::write(world.path("project/file"), "").expect("a file");
    snapshot!(world, finish(world.pcoder(&["run", "claude", "--project", "file"]), ""), @r"
        exit 2
        -- stderr
        error: the project is a file, not a folder
          in run: [WORLD]/project/file

        hint: give the folder that it is in: `--project FOLDER`
        ");
    snapshot!(world, finish(world.pcoder(&["run", "claude", "--project", "file/below"]), ""), @r"
        exit 3
        -- stderr
        error: the project's folder is not there
          in run: [WORLD]/project/file/below

        hint: create it, or give another one: `--project FOLDER`
        ");
}

#[cfg(target_os = "linux")]
#[test]
fn a_project_whose_name_is_not_unicode_is_refused_with_what_to_do() {
    use std::os::unix::ffi::OsStrExt as _;
    let world = World::new();
    let project = world.path("project").join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&project).expect("a folder");
    snapshot!(world, finish(world.run("claude", &project, &["-p"]), ""), @r"
        exit 2
        -- stderr
        error: the path is not Unicode, and agents cannot work there
          in run: [WORLD]/project/caf�

        hint: rename the folder, or make a link to it with a plain name
        ");
}

#[test]
fn a_missing_engine_fails_at_once_where_nobody_watches() {
    let world = World::without_engines();
    snapshot!(world, finish(world.pcoder(&["run", "claude", "--", "-p", "x"]), ""), @r"
        exit 3
        -- stderr
        error: `claude` 0.3.316 is not installed
          in engine: claude

        hint: `pcoder engine install claude`
        ");
    assert!(!world.path("pcoder/engines/claude").exists(), "nothing was downloaded");
    // Another version than the default one must be named.
    let other = ["run", "claude", "--engine-version", "0.3.156", "--", "-p", "x"];
    snapshot!(world, finish(world.pcoder(&other), ""), @r"
        exit 3
        -- stderr
        error: `claude` 0.3.156 is not installed
          in engine: claude

        hint: `pcoder engine install claude --version 0.3.156`
        ");
}

#[test]
fn an_unknown_version_is_named_with_the_known_ones() {
    let world = World::without_engines();
    snapshot!(world, finish(world.pcoder(&["run", "codex", "--engine-version", "9.9.9"]), ""), @r"
        exit 2
        -- stderr
        error: `codex` 9.9.9 is not in engines.lock
          in engine: codex

        hint: versions of `codex` are `0.128.0`, `0.166.0`; newer ones come with a newer pcoder
        ");
}

#[test]
fn an_agent_may_not_replace_its_verified_engine() {
    let world = World::new();
    snapshot!(world, finish(world.pcoder(&["run", "claude", "--", "update"]), ""), @r"
        exit 3
        -- stderr
        error: `claude update` would replace the engine, and pcoder keeps engines at verified versions
          in agent.command: claude

        hint: `pcoder engine install claude --version VERSION` installs another version; `PCODER_ALLOW_TOOL_UPDATE=1` allows it anyway
        ");
    for line in
        [&["run", "claude", "--", "--model", "opus", "update"][..], &["run", "codex", "--", "-c", "x=y", "update"]]
    {
        assert_eq!(finish(world.pcoder(line), "").code, Some(3), "{line:?}");
    }
    assert!(!world.asked(""), "nothing was started");
    // A prompt is a prompt.
    let outcome = finish(world.run("claude", &world.project("p"), &["-p", "update"]), "");
    assert_eq!(outcome.printed().trim(), "offline model: update");
    let outcome = finish(world.run("codex", &world.project("p"), &["exec", "--skip-git-repo-check", "update"]), "");
    assert_eq!(outcome.printed().trim(), "offline model: update");
}

#[test]
fn errors_are_json_on_standard_error_where_json_was_asked_for() {
    let world = World::without_engines();
    let outcome = finish(world.pcoder(&["run", "claude", "--json", "--", "-p", "x"]), "");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(3), ""));
    let error: serde_json::Value = serde_json::from_str(&outcome.stderr).expect("JSON");
    insta::assert_snapshot!(serde_json::to_string_pretty(&error).expect("JSON"), @r#"
        {
          "schema_version": 1,
          "error": {
            "code": "not-found",
            "message": "`claude` 0.3.316 is not installed",
            "operation": "engine",
            "subject": "claude",
            "hint": "`pcoder engine install claude`"
          }
        }
        "#);
}
