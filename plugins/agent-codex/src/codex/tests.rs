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

/// `/tmp` is on the machine, wherever the folder is.
#[test]
fn in_a_portable_folder_commands_get_no_slash_tmp() {
    const SETTING: &str = "sandbox_workspace_write.exclude_slash_tmp=true";
    let host = FakeHost::new();
    let mut portable = launch(&["exec", "-"]);
    portable.options.push(Setting::new("portable", "true"));
    let spec = Codex.command(host.agent(), portable.clone()).unwrap();
    let Command::Argv(argv) = &spec.command else { panic!("no shell") };
    assert_eq!(argv.args, ["-c", SETTING, "exec", "-"]);
    let spec = Codex.acp(host.agent(), portable.clone()).unwrap();
    let config = setting(&spec.env, "CODEX_CONFIG").unwrap();
    assert_eq!(config, r#"{"sandbox_workspace_write":{"exclude_slash_tmp":true}}"#);
    assert!(script(testing::session("p", portable)).contains(SETTING));
    assert!(!script(session("p")).contains(SETTING));
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

fn with_options(mut launch: Launch, options: &[(&str, &str)]) -> Launch {
    launch.options.extend(options.iter().map(|(name, value)| Setting::new(*name, *value)));
    launch
}

fn line(launch: Launch) -> Vec<String> {
    let Command::Argv(argv) = Codex.command(FakeHost::new().agent(), launch).unwrap().command else { panic!("words") };
    argv.args
}

const OURS: [&str; 7] = [
    r#"model="it's \"5\"""#,
    r#"model_provider="pcoder""#,
    r#"model_providers.pcoder.name="API""#,
    r#"model_providers.pcoder.base_url="https://models.example/v1""#,
    r#"model_providers.pcoder.wire_api="responses""#,
    r#"model_providers.pcoder.env_key="CODEX_API_KEY""#,
    "features.shell_snapshot=false",
];
const OPTIONS: [(&str, &str); 3] =
    [("config-dir", "/a b"), ("endpoint", "https://models.example/v1"), ("model", "it's \"5\"")];

#[test]
fn a_key_and_a_model_are_options_in_front_of_the_users() {
    let ours = OURS.map(|setting| ["-c", setting]).concat();
    let expected = [&ours[..], &["exec", "x"]].concat();
    assert_eq!(line(with_options(launch(&["exec", "x"]), &OPTIONS)), expected);
    let spec = Codex.command(FakeHost::new().agent(), with_options(launch(&[]), &OPTIONS)).unwrap();
    assert_eq!(setting(&spec.env, "CODEX_HOME"), Some("/a b"));
    let api = line(with_options(launch(&[]), &[("auth", "api")]));
    assert!(api.contains(&r#"model_providers.pcoder.base_url="https://api.openai.com/v1""#.to_owned()), "{api:?}");
    assert_eq!(line(with_options(launch(&["x"]), &[("auth", "oauth"), ("model", "m")])), ["-c", "model=\"m\"", "x"]);
    let both = with_options(launch(&[]), &[("auth", "oauth"), OPTIONS[1]]);
    assert_eq!(Codex.command(FakeHost::new().agent(), both).unwrap_err().code, "invalid");
}

/// With 0.128.0 the settings of the innermost subcommand that has any are the only ones. Ours are written as `@`.
#[test]
fn our_settings_are_wherever_the_users_would_replace_them() {
    for (args, expected) in [
        ("", "@"),
        ("fix it", "@ fix it"),
        ("-c a=1 exec x", "@ -c a=1 exec x"),
        ("exec -c a=1 -c b=2 x", "@ exec @ -c a=1 -c b=2 x"),
        ("-c a=1 exec -cb=2 x", "@ -c a=1 exec @ -cb=2 x"),
        ("e --json --config=b=2 -", "@ e --json @ --config=b=2 -"),
        ("exec -s read-only resume --last -c b=2", "@ exec -s read-only resume --last @ -c b=2"),
        ("exec -c a=1 resume --config b=2 --last", "@ exec @ -c a=1 resume @ --config b=2 --last"),
        ("resume -c a=1", "@ resume @ -c a=1"),
        ("-m exec -c a=1", "@ -m exec -c a=1"),
        ("exec -- -c a=1", "@ exec -- -c a=1"),
        ("sandbox bash -c x", "@ sandbox bash -c x"),
        ("sandbox exec -c x", "@ sandbox exec -c x"),
        ("exec -m -c a=1", "@ exec -m -c a=1"),
        ("exec -c", "@ exec @ -c"),
    ] {
        let args: Vec<&str> = args.split(' ').filter(|word| !word.is_empty()).collect();
        let line = line(with_options(launch(&args), &[("model", "m")])).join(" ");
        assert_eq!(line.replace("-c model=\"m\"", "@"), expected);
    }
}

#[test]
fn a_session_has_the_key_and_the_model_too() {
    let mut input = session("x");
    input.launch = with_options(input.launch, &OPTIONS);
    input.launch.args = vec!["-c".to_owned(), "a=1".to_owned()];
    let spec = Codex.to_process_spec(FakeHost::new().agent(), input.clone()).unwrap();
    assert_eq!(setting(&spec.command.env, "CODEX_HOME"), Some("/a b"));
    let ours = OURS.map(|setting| format!("-c {}", pcoder_sdk::shell::quote(setting))).join(" ");
    assert!(script(input.clone()).ends_with(&format!(" exec {ours} --json --skip-git-repo-check -c 'a=1' -")));
    input.model = Some("own".to_owned());
    assert!(script(input).contains(&format!(" exec {ours} --json --skip-git-repo-check -m own ")));
}

#[test]
fn the_adapter_gets_the_key_and_the_model_in_variables() {
    let host = FakeHost::new();
    let plain = Codex.acp(host.agent(), launch(&[])).unwrap();
    assert_eq!([setting(&plain.env, "CODEX_CONFIG"), setting(&plain.env, "MODEL_PROVIDER")], [None, None]);
    let mut launch = with_options(launch(&[]), &OPTIONS);
    let user = r#"{"model":"x","analytics":{"enabled":false},"model_providers":{"mine":{"name":"M"}}}"#;
    launch.env.push(Setting::new("CODEX_CONFIG", user));
    let spec = Codex.acp(host.agent(), launch.clone()).unwrap();
    assert_eq!(spec.command, plain.command);
    assert_eq!(setting(&spec.env, "CODEX_HOME"), Some("/a b"));
    assert_eq!(setting(&spec.env, "MODEL_PROVIDER"), Some("pcoder"));
    let config: serde_json::Value = serde_json::from_str(setting(&spec.env, "CODEX_CONFIG").unwrap()).unwrap();
    let expected = serde_json::json!({
        "model": "it's \"5\"",
        "analytics": { "enabled": false },
        "features": { "shell_snapshot": false },
        "model_provider": "pcoder",
        "model_providers": {
            "mine": { "name": "M" },
            "pcoder": {
                "name": "API",
                "base_url": "https://models.example/v1",
                "wire_api": "responses",
                "env_key": "CODEX_API_KEY",
            },
        },
    });
    assert_eq!(config, expected);
    for wrong in ["[]", "no", r#"{"model_providers":1}"#] {
        launch.env.push(Setting::new("CODEX_CONFIG", wrong));
        let error = Codex.acp(host.agent(), launch.clone()).unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("invalid", Some("CODEX_CONFIG")));
    }
}

#[test]
fn logging_in_and_out_is_the_agents_own() {
    let host = FakeHost::new();
    let launch = |args: &[&str]| with_options(launch(args), &[("config-dir", "/a b"), ("model", "m")]);
    let spec = Codex.login_command(host.agent(), launch(&["--device-auth"])).unwrap();
    let expected = CommandSpec::argv("/engines/codex/it's bin", ["login", "--device-auth"])
        .in_dir("/work")
        .with_env("K", "v")
        .with_env("CODEX_HOME", "/a b")
        .with_path_entry("/engines/codex/path")
        .named("codex-login");
    assert_eq!(spec, expected);
    let spec = Codex.logout_command(host.agent(), launch(&[])).unwrap();
    assert_eq!(spec.command, CommandSpec::argv("/engines/codex/it's bin", ["logout"]).command);
    let spec = Codex.auth_status_command(host.agent(), launch(&[])).unwrap();
    assert_eq!(setting(&spec.env, "CODEX_HOME"), Some("/a b"));
    let api = with_options(launch(&[]), &[("auth", "api")]);
    assert_eq!(Codex.auth_status_command(host.agent(), api).unwrap_err().code, "unsupported");
}

#[test]
fn the_account_variables_hold_the_key_and_the_folder() {
    let info = Codex.info();
    assert!(info.account_environment.contains(info.api_key_variable.as_ref().unwrap()));
    for name in ["CODEX_HOME", "CODEX_CONFIG", "MODEL_PROVIDER", "OPENAI_*"] {
        assert!(info.account_environment.iter().any(|it| it == name), "{name}");
    }
}
