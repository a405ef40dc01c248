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

const ENDPOINT: (&str, &str) = ("endpoint", "https://models.example/it's");

fn with_options(launch: Launch, options: &[(&str, &str)]) -> Launch {
    options.iter().fold(launch, |launch, (name, value)| with_option(launch, name, value))
}

fn variables(spec: &CommandSpec) -> Vec<(&str, &str)> {
    spec.env.iter().map(|setting| (setting.name.as_str(), setting.value.as_str())).collect()
}

#[test]
fn the_account_is_in_the_environment_of_every_command_behind_the_users_settings() {
    let host = FakeHost::new();
    let mut launch = with_options(launch(&["x"]), &[("config-dir", "/a b"), ("auth", "api"), ENDPOINT, ("model", "m")]);
    launch.env.push(Setting::new("ANTHROPIC_MODEL", "of the user"));
    let process = Claude.to_process_spec(host.agent(), testing::session("x", launch.clone())).unwrap();
    for spec in [
        Claude.command(host.agent(), launch.clone()).unwrap(),
        process.command,
        Claude.acp(host.agent(), launch.clone()).unwrap(),
        Claude.auth_status_command(host.agent(), launch.clone()).unwrap(),
        Claude.login_command(host.agent(), launch.clone()).unwrap(),
        Claude.logout_command(host.agent(), launch.clone()).unwrap(),
    ] {
        let expected = [
            ("K", "v"),
            ("ANTHROPIC_MODEL", "of the user"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("CLAUDE_CONFIG_DIR", "/a b"),
            ("ANTHROPIC_BASE_URL", "https://models.example/it's"),
            ("ANTHROPIC_MODEL", "m"),
        ];
        assert_eq!(variables(&spec)[..6], expected, "{:?}", spec.name);
        assert_eq!(setting(&spec.env, "ANTHROPIC_MODEL"), Some("m"));
    }
}

#[test]
fn a_login_is_never_sent_to_an_address_from_elsewhere() {
    let host = FakeHost::new();
    let oauth = with_option(launch(&[]), "auth", "oauth");
    assert!(Claude.command(host.agent(), oauth.clone()).is_ok());
    let mut by_variable = oauth.clone();
    by_variable.env.push(Setting::new("ANTHROPIC_BASE_URL", "https://models.example"));
    for refused in [with_options(oauth, &[ENDPOINT]), by_variable] {
        for result in [
            Claude.command(host.agent(), refused.clone()),
            Claude.acp(host.agent(), refused.clone()),
            Claude.login_command(host.agent(), refused.clone()),
            Claude.to_process_spec(host.agent(), testing::session("x", refused.clone())).map(|spec| spec.command),
        ] {
            let error = result.unwrap_err();
            assert_eq!(
                (error.code.as_str(), error.message.as_str()),
                ("invalid", "the login's token would be sent there")
            );
        }
    }
}

#[test]
fn the_account_variables_hold_the_key_the_tokens_and_the_address() {
    let info = Claude.info();
    let chosen = |name: &str| {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        info.account_environment.iter().any(fits)
    };
    for name in [
        info.api_key_variable.as_deref().unwrap(),
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_MODEL",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
        "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CONFIG_DIR",
    ] {
        assert!(chosen(name), "{name}");
    }
    for name in ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "CLAUDE_CODE_MAX_RETRIES", "HTTPS_PROXY", "AWS_PROFILE"] {
        assert!(!chosen(name), "{name}");
    }
}

#[test]
fn the_model_of_a_session_is_its_own_or_the_launchs_or_the_default() {
    let mut input = session("x");
    assert!(script(input.clone()).contains(" --model sonnet"));
    input.launch = with_option(input.launch, "model", "opus");
    assert!(script(input.clone()).contains(" --model opus"));
    input.model = Some("haiku".to_owned());
    assert!(script(input).contains(" --model haiku"));
}

#[test]
fn logging_in_and_out_is_the_agents_own() {
    let host = FakeHost::new();
    let spec = Claude.login_command(host.agent(), launch(&["--console"])).unwrap();
    let expected = CommandSpec::argv("/engines/claude/it's bin", ["auth", "login", "--console"])
        .in_dir("/work")
        .with_env("K", "v")
        .with_env("DISABLE_AUTOUPDATER", "1")
        .with_path_entry("/engines/claude/path")
        .named("claude-auth-login");
    assert_eq!(spec, expected);
    let spec = Claude.logout_command(host.agent(), launch(&[])).unwrap();
    assert_eq!(spec.command, CommandSpec::argv("/engines/claude/it's bin", ["auth", "logout"]).command);
}
