use pcoder_sdk::testing::{self, FakeHost};
use pcoder_sdk::{Command, Setting};

use super::*;

fn launch(args: &[&str]) -> Launch {
    let mut launch = testing::launch(&["codex", "codex-acp", "node"], args);
    launch.env = vec![Setting::new("K", "v")];
    launch
}

fn session(prompt: &str) -> SessionInput {
    testing::session(prompt, launch(&[]))
}

fn script(input: SessionInput) -> String {
    let spec = Codex.to_process_spec(FakeHost::new().agent(), input).unwrap();
    let Command::Shell(script) = spec.command.command else { panic!("a script") };
    script
}

#[test]
fn a_command_is_the_engine_with_the_users_arguments() {
    let spec = Codex.command(FakeHost::new().agent(), launch(&["exec", "$(x)", ""])).unwrap();
    let expected = CommandSpec::argv("/engines/codex/it's bin", ["exec", "$(x)", ""])
        .in_dir("/work")
        .with_env("K", "v")
        .with_path_entry("/engines/codex/path")
        .named("codex");
    assert_eq!(spec, expected);
}

#[test]
fn an_update_is_refused_unless_it_is_allowed() {
    let host = FakeHost::new();
    let error = Codex.command(host.agent(), launch(&["update"])).unwrap_err();
    assert_eq!(error.code, "unsupported");
    assert!(error.message.contains("verified versions"));
    let mut allowed = launch(&["update"]);
    allowed.options.push(Setting::new("allow-tool-update", "true"));
    assert!(Codex.command(host.agent(), allowed).is_ok());
}

/// Each line was tried with the real program.
#[test]
fn an_update_is_found_wherever_codex_finds_one_and_nowhere_else() {
    let host = FakeHost::new();
    let refused = |line: &str| {
        let args: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        Codex.command(host.agent(), launch(&args)).is_err()
    };
    for line in [
        "-c x=y update",
        "-cx=y update",
        "--config x=y update",
        "--config=x=y update",
        "--search update",
        "-C /tmp update",
        "-p=x update",
        "-i a -m x update",
        "-ia update",
        "--image=a update",
        "fix update",
        "--not-known-yet x update",
    ] {
        assert!(refused(line), "{line}");
    }
    for line in [
        "",
        "upgrade",
        "-- update",
        "exec update",
        "e update",
        "exec --skip-git-repo-check update",
        "resume update",
        "a update",
        "help update",
        "-m update",
        "-i a update",
        "-i a b update",
        "-c x=y exec update",
    ] {
        assert!(!refused(line), "{line}");
    }
    assert!(Codex.command(host.agent(), launch(&["update the docs"])).is_ok());
}

#[test]
fn acp_asks_the_user_and_finds_the_engine() {
    let host = FakeHost::new();
    let spec = Codex.acp(host.agent(), launch(&[])).unwrap();
    assert_eq!(spec.command, CommandSpec::argv("/engines/node/it's bin", ["/engines/codex-acp/it's bin"]).command);
    assert_eq!(setting(&spec.env, "CODEX_PATH"), Some("/engines/codex/it's bin"));
    assert_eq!(setting(&spec.env, "INITIAL_AGENT_MODE"), Some("workspace-write"));
    assert_eq!(spec.path_entries, ["/engines/codex/path", "/engines/codex-acp/path", "/engines/node/path"]);
    let mut chosen = launch(&[]);
    chosen.env.push(Setting::new("INITIAL_AGENT_MODE", "read-only"));
    let spec = Codex.acp(host.agent(), chosen).unwrap();
    assert_eq!(setting(&spec.env, "INITIAL_AGENT_MODE"), Some("read-only"));
    let mut bare = launch(&[]);
    bare.engines.pop();
    let error = Codex.acp(host.agent(), bare).unwrap_err();
    assert_eq!((error.code.as_str(), error.subject.as_deref()), ("not-found", Some("node")));
}

#[test]
fn a_session_feeds_the_prompt_by_a_pipe() {
    // base64 of "--help".
    assert_eq!(
        script(session("--help")),
        r"printf %s LS1oZWxw | base64 -d | '/engines/codex/it'\''s bin' exec --json --skip-git-repo-check -"
    );
    let mut input = session("go on");
    input.model = Some("gpt-5.5".to_owned());
    input.resume = Some("0199".to_owned());
    input.launch.args = vec!["-c".to_owned(), "a=b c".to_owned()];
    input.launch.options = vec![Setting::new("permission-mode", "workspace-write")];
    assert!(
        script(input)
            .ends_with("exec --json --skip-git-repo-check -m gpt-5.5 -s workspace-write -c 'a=b c' resume 0199 -")
    );
}

#[test]
fn a_session_is_named_and_runs_once_where_it_should() {
    let host = FakeHost::new();
    let mut input = session("x");
    input.name = Some("fix the tests!".to_owned());
    let spec = Codex.to_process_spec(host.agent(), input).unwrap();
    assert_eq!(spec.command.name.as_deref(), Some("cx-fix-the-tests"));
    assert_eq!(spec.command.cwd.as_deref(), Some("/work"));
    assert_eq!(spec.command.path_entries, ["/engines/codex/path"]);
    assert_eq!(spec.restart, pcoder_sdk::Restart::Never);
}

#[test]
fn permissions_are_skipped_only_when_that_is_asked_for() {
    assert!(!script(session("x")).contains("dangerously"));
    let mut input = session("x");
    input.launch.options = vec![Setting::new("permission-mode", "bypass")];
    assert!(script(input).contains("--dangerously-bypass-approvals-and-sandbox"));
    let mut input = session("x");
    input.launch.options = vec![Setting::new("permission-mode", "everything")];
    assert_eq!(Codex.to_process_spec(FakeHost::new().agent(), input).unwrap_err().code, "invalid");
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let refused = |input| Codex.to_process_spec(FakeHost::new().agent(), input).unwrap_err().code;
    assert_eq!(refused(session(" \n")), "invalid");
    let mut input = session("x");
    input.resume = Some("--last".to_owned());
    assert_eq!(refused(input), "invalid");
}

#[test]
fn the_code_tells_whether_it_is_logged_in() {
    let host = FakeHost::new();
    let status = |code, stderr: &str| Codex.auth_status(host.agent(), Output::new(code, "", stderr));
    let state = status(0, "Logged in using an API key - sk-test-***lmnop\n").unwrap();
    assert_eq!((state.logged_in, state.method.as_str(), state.account), (true, "api-key", None));
    assert_eq!(status(0, "API key configured - sk-***\n").unwrap().method, "api-key");
    assert_eq!(status(0, "Logged in using ChatGPT\n").unwrap().method, "oauth");
    assert_eq!(status(0, "").unwrap().method, "unknown");
    let state = status(1, "Not logged in\n").unwrap();
    assert_eq!((state.logged_in, state.method.as_str()), (false, "none"));
    let error = status(127, "no such program\n").unwrap_err();
    assert_eq!(error.code, "process");
    let spec = Codex.auth_status_command(host.agent(), launch(&["ignored"])).unwrap();
    assert_eq!(spec.command, CommandSpec::argv("/engines/codex/it's bin", ["login", "status"]).command);
}
