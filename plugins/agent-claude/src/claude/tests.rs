use pcoder_sdk::testing::{self, FakeHost};
use pcoder_sdk::{Command, Restart, Setting, setting};

use super::*;

fn launch(args: &[&str]) -> Launch {
    let mut launch = testing::launch(&["claude", "claude-agent-acp", "node"], args);
    launch.env = vec![Setting::new("K", "v")];
    launch
}

fn with_option(mut launch: Launch, name: &str, value: &str) -> Launch {
    launch.options.push(Setting::new(name, value));
    launch
}

fn session(prompt: &str) -> SessionInput {
    testing::session(prompt, launch(&[]))
}

fn script(input: SessionInput) -> String {
    let spec = Claude.to_process_spec(FakeHost::new().agent(), input).unwrap();
    let Command::Shell(script) = spec.command.command else { panic!("a script") };
    script
}

#[test]
fn a_command_is_the_engine_with_the_users_arguments() {
    let spec = Claude.command(FakeHost::new().agent(), launch(&["-p", "$(x) it's", ""])).unwrap();
    let expected = CommandSpec::argv("/engines/claude/it's bin", ["-p", "$(x) it's", ""])
        .in_dir("/work")
        .with_env("K", "v")
        .with_env("DISABLE_AUTOUPDATER", "1")
        .with_path_entry("/engines/claude/path")
        .named("claude");
    assert_eq!(spec, expected);
}

#[test]
fn only_a_sandbox_is_called_one() {
    let host = FakeHost::new();
    let sandbox = |launch| {
        let spec = Claude.command(host.agent(), launch).unwrap();
        setting(&spec.env, "IS_SANDBOX").map(str::to_owned)
    };
    assert_eq!(sandbox(launch(&[])), None);
    assert_eq!(sandbox(with_option(launch(&[]), "super-user", "true")), None);
    assert_eq!(sandbox(with_option(launch(&[]), "sandboxed", "yes")), None);
    assert_eq!(sandbox(with_option(launch(&[]), "sandboxed", "true")), Some("1".to_owned()));
}

#[test]
fn self_updates_are_refused_unless_they_are_allowed() {
    let host = FakeHost::new();
    for word in ["update", "upgrade", "install"] {
        let error = Claude.command(host.agent(), launch(&[word, "--force"])).unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("unsupported", Some("claude")));
        let allowed = with_option(launch(&[word]), "allow-tool-update", "true");
        assert!(Claude.command(host.agent(), allowed).is_ok());
    }
    let refused = Claude.to_process_spec(host.agent(), testing::session("x", launch(&["update"])));
    assert_eq!(refused.unwrap_err().code, "unsupported");
}

/// Each line was tried with the real program.
#[test]
fn a_self_update_is_found_wherever_claude_finds_one_and_nowhere_else() {
    let host = FakeHost::new();
    let refused = |line: &str| {
        let args: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        Claude.command(host.agent(), launch(&args)).is_err()
    };
    for line in [
        "--verbose update",
        "--debug=api update",
        "--model opus update",
        "--model=opus install",
        "--max-turns 3 update",
        "--add-dir=a upgrade",
        "--allowedTools=A update",
        "--resume x update",
        "-rx update",
        "-c update",
        "-cp update",
        "--effort high update",
        "--dangerously-skip-permissions install latest",
        "--worktree x update",
        "-- update",
        "update -- -p",
        "--not-known-yet x update",
    ] {
        assert!(refused(line), "{line}");
    }
    for line in [
        "",
        "-p update",
        "--print install",
        "update -p",
        "--model x -p update",
        "-p -- update",
        "fix update",
        "mcp install",
        "plugin update x",
        "--debug update",
        "-d update",
        "-cd update",
        "-r update",
        "-w update",
        "--add-dir a update",
        "--allowedTools Bash update",
        "--mcp-config a b install",
        "--append-system-prompt update",
    ] {
        assert!(!refused(line), "{line}");
    }
    assert!(Claude.command(host.agent(), launch(&["update the docs"])).is_ok());
}

#[test]
fn acp_is_node_with_the_adapter() {
    let spec = Claude.acp(FakeHost::new().agent(), launch(&[])).unwrap();
    assert_eq!(
        spec.command,
        CommandSpec::argv("/engines/node/it's bin", ["/engines/claude-agent-acp/it's bin"]).command
    );
    assert_eq!(setting(&spec.env, "CLAUDE_CODE_EXECUTABLE"), Some("/engines/claude/it's bin"));
    assert_eq!(setting(&spec.env, "DISABLE_AUTOUPDATER"), Some("1"));
    assert_eq!(spec.path_entries, ["/engines/claude/path", "/engines/claude-agent-acp/path", "/engines/node/path"]);
}

#[test]
fn a_session_feeds_the_prompt_by_a_pipe() {
    // base64 of "--help".
    assert_eq!(
        script(session("--help")),
        r"printf %s LS1oZWxw | base64 -d | '/engines/claude/it'\''s bin' -p --output-format stream-json --verbose --model sonnet"
    );
    let mut input = session("go on");
    input.model = Some("opus; rm -rf /".to_owned());
    input.resume = Some("0f".to_owned());
    input.system_prompt = Some("be brief".to_owned());
    input.launch.args = vec!["--add-dir".to_owned(), "/a b".to_owned()];
    assert!(script(input).ends_with(
        "--resume 0f --model 'opus; rm -rf /' --append-system-prompt \"$(printf %s YmUgYnJpZWY= | base64 -d)\" --add-dir '/a b'"
    ));
}

#[test]
fn a_session_is_named_runs_once_and_holds_no_secret() {
    let mut input = session("x");
    input.name = Some("fix the tests!".to_owned());
    let spec = Claude.to_process_spec(FakeHost::new().agent(), input).unwrap();
    assert_eq!(spec.command.name.as_deref(), Some("cc-fix-the-tests"));
    assert_eq!(spec.command.cwd.as_deref(), Some("/work"));
    assert_eq!(spec.restart, Restart::Never);
    let names: Vec<_> = spec.command.env.iter().map(|setting| setting.name.as_str()).collect();
    assert_eq!(names, ["K", "DISABLE_AUTOUPDATER"]);
    let spec = Claude.to_process_spec(FakeHost::new().agent(), session("x")).unwrap();
    assert_eq!(spec.command.name.as_deref(), Some("cc-session"));
}

#[test]
fn permissions_are_skipped_only_when_that_is_asked_for() {
    let mode = |mode: &str| {
        let mut input = session("x");
        input.launch = with_option(input.launch, "permission-mode", mode);
        input
    };
    assert!(!script(session("x")).contains("permission"));
    assert!(script(mode("bypass")).contains(" --dangerously-skip-permissions"));
    assert!(script(mode("acceptEdits")).ends_with(" --permission-mode acceptEdits"));
    assert_eq!(Claude.to_process_spec(FakeHost::new().agent(), mode("all")).unwrap_err().code, "invalid");
}

/// The script, run by a real shell with a program in the engine's place that prints what it got.
#[test]
fn prompts_arrive_byte_for_byte() {
    let prompt = "it's \"$(x)\" `y` \\ \n\t! é 日本\n";
    let mut input = session(prompt);
    input.system_prompt = Some(prompt.trim_end().to_owned());
    input.launch.engines[0].entrypoint = "show".to_owned();
    let script = format!("show() {{ cat; for last; do :; done; printf '<%s>' \"$last\"; }}; {}", script(input));
    for program in ["sh", "bash"] {
        let output = std::process::Command::new(program).args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{prompt}<{}>", prompt.trim_end()));
    }
}

#[test]
fn the_answer_tells_whether_it_is_logged_in() {
    let host = FakeHost::new();
    let status = |code, stdout: &str| Claude.auth_status(host.agent(), Output::new(code, stdout, ""));
    let state = status(1, r#"{"loggedIn":false,"authMethod":"none","apiProvider":"firstParty"}"#).unwrap();
    assert_eq!((state.logged_in, state.method.as_str(), state.account), (false, "none", None));
    let state =
        status(0, "{\"loggedIn\": true, \"authMethod\": \"claude.ai\", \"email\": \"a@b.c\", \"planTier\": {}}\n")
            .unwrap();
    assert_eq!((state.logged_in, state.method.as_str(), state.account.as_deref()), (true, "oauth", Some("a@b.c")));
    let method = |method: &str| {
        status(0, &format!(r#"{{"loggedIn":true,"authMethod":"{method}","email":null}}"#)).unwrap().method
    };
    assert_eq!([method("api_key"), method("oauth_token"), method("other")], ["api-key", "token", "other"]);
    for (code, answer) in [(0, ""), (1, "Not logged in"), (127, ""), (0, "{}")] {
        assert_eq!(status(code, answer).unwrap_err().code, "process", "{answer}");
    }
    let spec = Claude.auth_status_command(host.agent(), launch(&["ignored"])).unwrap();
    assert_eq!(spec.command, CommandSpec::argv("/engines/claude/it's bin", ["auth", "status"]).command);
}
