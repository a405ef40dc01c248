//! Profiles and logins: who a run is.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Outcome, Running, World, finish, start};

/// Long after every test.
const FAR: i64 = 4_102_444_800_000;

/// Puts a login to Claude where the tool's own login would put it, and points that folder's settings at the test's
/// model server: the environment must not, and does not, say where a login's token goes.
fn logged_in(world: &World, token: &str) {
    let folder = world.path("pcoder/auth/claude/config");
    std::fs::create_dir_all(&folder).expect("a folder");
    let login = json!({ "claudeAiOauth": {
        "accessToken": token, "refreshToken": "canary-refresh", "expiresAt": FAR,
        "scopes": ["user:inference", "user:profile"], "subscriptionType": "max",
    } });
    std::fs::write(folder.join(".credentials.json"), login.to_string()).expect("a login");
    let settings = json!({ "env": {
        "ANTHROPIC_BASE_URL": world.server().anthropic_url(),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_MAX_RETRIES": "0",
    } });
    std::fs::write(folder.join("settings.json"), settings.to_string()).expect("settings");
}

fn pcoder(world: &World, args: &[&str]) -> Outcome {
    finish(world.pcoder(args), "")
}

fn run(world: &World, tool: &str, profile: &str, args: &[&str], prompt: &str, more: &[(&str, &str)]) -> Running {
    let project = world.project(profile);
    let mut command = world.pcoder(&["run", tool, "--profile", profile, "--project"]);
    command.arg(project).arg("--").args(args);
    command.envs(more.iter().copied());
    start(command, prompt)
}

const CODEX: [&str; 3] = ["exec", "--skip-git-repo-check", "-"];

#[test]
fn a_key_and_a_login_are_used_side_by_side_and_neither_asks_for_the_others_environment() {
    let world = World::new();
    logged_in(&world, "canary-login-token");
    pcoder(&world, &["profile", "create", "login", "--tool", "claude", "--auth", "oauth"]).printed();
    let endpoint = world.server().openai_url();
    let args = ["profile", "create", "key", "--tool", "codex", "--key", "env:WORK_KEY", "--endpoint", &endpoint];
    pcoder(&world, &args).printed();

    // At once. The one with a login gets no key, and a key of the user's that lies about does not win over the login.
    let key = [("WORK_KEY", "canary-work-key"), ("CODEX_API_KEY", "canary-not-this-one")];
    let one = run(&world, "codex", "key", &CODEX, "@say by key", &key);
    let other =
        run(&world, "claude", "login", &["-p"], "@say by login", &[("ANTHROPIC_API_KEY", "canary-not-this-either")]);
    assert_eq!(one.finish().printed().trim(), "by key");
    assert_eq!(other.finish().printed().trim(), "by login");
    let requests = world.server().requests();
    let of =
        |prompt: &str| requests.iter().find(|it| it.prompt.contains(prompt)).expect("it was asked").credentials.clone();
    assert!(of("by key").are("canary-work-key"));
    assert!(of("by login").are("canary-login-token"));

    // The key's variable is missed by the one that uses it, and by no other.
    let missing = run(&world, "codex", "key", &CODEX, "@say never", &[]).finish();
    assert_eq!(missing.code, Some(6), "{missing:#?}");
    assert!(missing.stderr.contains("env:WORK_KEY"), "{missing:#?}");
    assert!(!world.asked("never"));
    assert_eq!(run(&world, "claude", "login", &["-p"], "@say still", &[]).finish().printed().trim(), "still");
}

#[test]
fn the_profile_of_a_tool_is_used_until_another_is() {
    let world = World::new();
    let args = ["profile", "create", "opus", "--tool", "claude", "--model", "test-model-one", "--use"];
    pcoder(&world, &args).printed();
    let model = |prompt: &str, args: &[&str]| {
        let mut command = world.pcoder(&["run", "claude"]);
        command.args(args).args(["--", "-p"]);
        finish(command, &format!("@say {prompt}")).printed();
        let requests = world.server().requests();
        requests.iter().find(|it| it.prompt.contains(prompt)).expect("it was asked").model.clone()
    };
    assert_eq!(model("first", &[]), "test-model-one");
    pcoder(&world, &["profile", "create", "plain", "--tool", "claude", "--model", "test-model-two"]).printed();
    assert_eq!(model("second", &["--profile", "plain"]), "test-model-two");
    assert_eq!(model("third", &[]), "test-model-one");
    pcoder(&world, &["profile", "use", "plain"]).printed();
    assert_eq!(model("fourth", &[]), "test-model-two");
    let list = pcoder(&world, &["profile", "list", "--json"]).json();
    let used: Vec<&Value> = list["profiles"].as_array().expect("a list").iter().map(|it| &it["used"]).collect();
    assert_eq!(used, [&Value::Bool(false), &Value::Bool(true)], "{list}");
}

#[test]
fn a_profile_of_another_tool_or_none_is_refused() {
    let world = World::without_engines();
    pcoder(&world, &["profile", "create", "work", "--tool", "claude"]).printed();
    insta::assert_snapshot!(pcoder(&world, &["run", "codex", "--profile", "work"]).shown(), @r"
        exit 2
        -- stderr
        error: this profile is for the tool `claude`
          in run: work

        hint: `pcoder run claude --profile work`, or another profile
        ");
    insta::assert_snapshot!(pcoder(&world, &["run", "codex", "--profile", "wrok"]).shown(), @r"
        exit 3
        -- stderr
        error: there is no profile of that name
          in profile: wrok

        hint: choose one of `work`; `pcoder profile create NAME --tool claude` makes another
        ");
    insta::assert_snapshot!(pcoder(&world, &["profile", "show", "WORK"]).shown(), @r"
        exit 2
        -- stderr
        error: `WORK` is no name, expected a-z, 0-9 and -
          in profile

        hint: `pcoder profile list` shows the profiles
        ");
    let both = ["profile", "create", "both", "--tool", "claude", "--auth", "oauth", "--key", "env:K"];
    insta::assert_snapshot!(pcoder(&world, &both).shown(), @r#"
        exit 2
        -- stderr
        error: `key` is for `auth = "api"`: a login has none
          in profile.create: both

        hint: nothing was written
        "#);
    let pasted = ["profile", "create", "pasted", "--tool", "claude", "--key", "sk-ant-canary-0123456789"];
    insta::assert_snapshot!(pcoder(&world, &pasted).shown(), @r"
        exit 2
        -- stderr
        error: this is no reference to a secret, expected env:NAME, file:PATH, keyring:NAME or command:LINE; secrets are only taken by reference
          in profile.create

        hint: put the secret into an environment variable, a file or the keyring, and write where it is, such as `env:NAME`. If it was in a file that others see, replace it
        ");
}

#[test]
fn a_broken_profile_is_told_twice_the_same_and_stays_as_it_is() {
    let world = World::without_engines();
    let folder = world.path("pcoder/profiles");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = "# mine\nversion = 1\ntool = \"claude\"\n\n[limits]\nwall-seconds = \"an hour\"\n";
    std::fs::write(folder.join("work.toml"), text).expect("a profile");
    let filters = [(r"\S*e2e-\w+", "[WORLD]")];
    let first = pcoder(&world, &["run", "claude", "--profile", "work"]).shown();
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!(first, @r#"
        exit 2
        -- stderr
        error: line 6, column 16: invalid type: string "an hour", expected a nonzero u64
          in profile: [WORLD]/pcoder/profiles/work.toml

        hint: correct that line; nothing was changed in the file
        "#) });
    assert_eq!(pcoder(&world, &["run", "claude", "--profile", "work"]).shown(), first);
    for args in [["profile", "show", "work"], ["profile", "use", "work"]] {
        assert_eq!(pcoder(&world, &args).code, Some(2), "{args:?}");
    }
    assert!(pcoder(&world, &["profile", "list"]).printed().contains("broken"));
    let taken = pcoder(&world, &["profile", "create", "work", "--tool", "claude"]);
    assert_ne!(taken.code, Some(0), "it is not overwritten");
    assert_eq!(std::fs::read_to_string(folder.join("work.toml")).expect("a profile"), text);
}

#[test]
fn a_project_chooses_among_profiles_and_never_where_it_runs() {
    let world = World::new();
    let project = world.project("theirs");
    pcoder(&world, &["profile", "create", "haiku", "--tool", "claude", "--model", "test-model-two"]).printed();
    std::fs::write(project.join("pcoder.toml"), "profile = \"haiku\"\n").expect("the project's file");
    finish(world.run("claude", &project, &["-p"]), "@say theirs").printed();
    assert!(world.server().requests().iter().any(|it| it.prompt.contains("theirs") && it.model == "test-model-two"));
    std::fs::write(project.join("pcoder.toml"), "provider = \"local\"\n").expect("the project's file");
    let refused = finish(world.run("claude", &project, &["-p"]), "");
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("a project may set `tool` and `profile`"), "{refused:#?}");

    // A profile that runs elsewhere than the user said needs the user's own word.
    let elsewhere = ["profile", "create", "elsewhere", "--tool", "claude", "--provider", "moon"];
    pcoder(&world, &elsewhere).printed();
    std::fs::write(project.join("pcoder.toml"), "profile = \"elsewhere\"\n").expect("the project's file");
    let denied = finish(world.run("claude", &project, &["-p"]), "");
    assert_eq!(denied.code, Some(7), "{denied:#?}");
}

#[test]
fn a_run_that_takes_too_long_is_ended_as_its_profile_says() {
    let world = World::new();
    pcoder(&world, &["profile", "create", "short", "--tool", "claude", "--wall-seconds", "2"]).printed();
    let outcome = run(&world, "claude", "short", &["-p"], "@sleep 600\n@say too late", &[]).finish();
    assert_eq!(outcome.code, Some(4), "{outcome:#?}");
    assert!(outcome.stderr.contains("the run was ended after 2 s"), "{outcome:#?}");
    #[cfg(target_os = "linux")]
    world.wait_until_all_is_gone();
}

#[test]
fn a_login_is_asked_of_the_engine_and_a_key_is_looked_up() {
    let world = World::new();
    let status = |more: &[(&str, &str)]| {
        let mut command = world.pcoder(&["auth", "status", "claude", "--json"]);
        command.env_remove("ANTHROPIC_API_KEY").envs(more.iter().copied());
        let outcome = finish(command, "");
        let state = outcome.json()["tools"][0].clone();
        (outcome.code, state["mode"].clone(), state["logged_in"].clone(), state["method"].clone())
    };
    assert_eq!(status(&[]), (Some(6), json!("own"), json!(false), json!("none")));
    assert_eq!(status(&[("ANTHROPIC_API_KEY", "sk-test")]), (Some(0), json!("own"), json!(true), json!("api-key")));
    logged_in(&world, "canary-login-token");
    pcoder(&world, &["setup", "--auth", "claude=oauth"]).printed();
    assert_eq!(status(&[]), (Some(0), json!("oauth"), json!(true), json!("oauth")));

    let missing = pcoder(&world, &["auth", "login", "claude", "--api-key", "env:NOT_SET"]);
    assert_eq!(missing.code, Some(6), "{missing:#?}");
    assert_eq!(status(&[]).1, json!("oauth"), "a key that leads nowhere changes nothing");
    let mut login = world.pcoder(&["auth", "login", "claude", "--api-key", "env:WORK_KEY"]);
    login.env("WORK_KEY", "canary-work-key");
    finish(login, "").printed();
    assert_eq!(status(&[("WORK_KEY", "canary-work-key")]), (Some(0), json!("api"), json!(true), json!("api-key")));
    assert_eq!(status(&[]).0, Some(6));

    pcoder(&world, &["auth", "logout", "claude"]).printed();
    assert_eq!(status(&[]).1, json!("own"));
}

#[test]
fn logging_out_removes_the_login_of_the_tools_own_folder() {
    let world = World::new();
    logged_in(&world, "canary-login-token");
    pcoder(&world, &["setup", "--auth", "claude=oauth"]).printed();
    let file: PathBuf = world.path("pcoder/auth/claude/config/.credentials.json");
    assert!(file.exists());
    let outcome = pcoder(&world, &["auth", "logout", "claude"]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let left = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(!left.contains("canary-login-token"), "{left}");
}

#[test]
fn an_unknown_tool_or_source_is_refused() {
    let world = World::without_engines();
    insta::assert_snapshot!(pcoder(&world, &["auth", "status", "emacs"]).shown(), @r"
        exit 3
        -- stderr
        error: there is no tool of that name
          in auth: emacs

        hint: `pcoder list-tools` shows them
        ");
    insta::assert_snapshot!(pcoder(&world, &["auth", "login", "claude", "--api-key", "vault:work"]).shown(), @r"
        exit 2
        -- stderr
        error: unknown secret source `vault`, expected env:NAME, file:PATH, keyring:NAME or command:LINE
          in auth.login

        hint: write where the secret is, such as `env:NAME`, or have a program fetch it: `command:LINE`
        ");
    insta::assert_snapshot!(pcoder(&world, &["auth", "login", "codex", "--paste"]).shown(), @r"
        exit 3
        -- stderr
        error: only Claude's login is known here
          in auth.login: codex

        hint: `pcoder auth login codex` starts the tool's own login
        ");
    insta::assert_snapshot!(pcoder(&world, &["setup"]).shown(), @r"
        exit 2
        -- stderr
        error: nothing was said, and there is nobody to ask
          in setup

        hint: `pcoder setup --help` has the options; `pcoder setup --show` says what is set up
        ");
}

#[test]
fn settings_say_where_they_come_from() {
    let world = World::without_engines();
    let filters = || vec![(r"\S*e2e-\w+", "[WORLD]")];
    pcoder(&world, &["config", "set", "tool", "codex"]).printed();
    std::fs::write(world.path("project/pcoder.toml"), "profile = \"theirs\"\n").expect("the project's file");
    let mut command = world.pcoder(&["config"]);
    command.env("PCODER_INSTALL", "never");
    let shown = finish(command, "");
    insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!(shown.printed(), @r"
        SETTING        VALUE   FROM
        tool           codex   [WORLD]/pcoder/settings.toml
        provider       local   default
        profile        theirs  [WORLD]/project/pcoder.toml
        install        never   the variable PCODER_INSTALL
        otlp-endpoint  -       default
        network-allow  -       default
        ") });
    let refused = pcoder(&world, &["config", "set", "colour", "red"]);
    insta::assert_snapshot!(refused.shown(), @r"
        exit 2
        -- stderr
        error: there is no such setting
          in config: colour

        hint: the settings are `tool`, `provider`, `profile`, `install`, `otlp-endpoint`, `network-allow`, `profile.TOOL`, `secrets.NAME` and `plugins.NAME.SETTING`
        ");
    let text = "version = 9\n";
    std::fs::write(world.path("pcoder/settings.toml"), text).expect("settings");
    let newer = pcoder(&world, &["config"]);
    insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!(newer.shown(), @r"
        exit 3
        -- stderr
        error: it was written by a newer pcoder (format 9; this one knows up to 1)
          in config: [WORLD]/pcoder/settings.toml

        hint: use the newer pcoder; nothing was changed in the file
        ") });
    assert_eq!(std::fs::read_to_string(world.path("pcoder/settings.toml")).expect("settings"), text);
}
