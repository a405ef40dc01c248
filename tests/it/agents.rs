//! The agents that are built in, as the components that they are: the account that a launch names reaches the command.

use std::sync::Arc;

use pcoder_runtime::audit::Nowhere;
use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::agent::{Engine, Launch};
use pcoder_runtime::contract::{Command, CommandSpec, Setting};
use pcoder_runtime::manifest::Capabilities;
use pcoder_runtime::process::Processes;
use pcoder_runtime::{Plugin, Runtime};
use pcoder_tests::root;

fn load(name: &str) -> Plugin {
    let path = root().join("target").join("plugins").join(format!("{name}.wasm"));
    let wasm = std::fs::read(&path).expect("`cargo xtask plugins` makes it");
    let runtime = Runtime::new(Arc::new(Nowhere), Processes::new(false), None).expect("a runtime");
    runtime.load(&wasm, None, |_| Capabilities::default()).expect("a plugin")
}

fn launch(engine: &str, args: &[&str], options: &[(&str, &str)]) -> Launch {
    let setting = |(name, value): &(&str, &str)| Setting { name: (*name).to_owned(), value: (*value).to_owned() };
    Launch {
        engines: vec![Engine {
            name: engine.to_owned(),
            version: "1".to_owned(),
            root: "/e".to_owned(),
            entrypoint: "/e/it".to_owned(),
            path_entries: Vec::new(),
        }],
        args: args.iter().map(|&it| it.to_owned()).collect(),
        cwd: "/work".to_owned(),
        home_dir: "/home".to_owned(),
        env: Vec::new(),
        options: options.iter().map(setting).collect(),
    }
}

fn shown(spec: CommandSpec) -> (Vec<String>, Vec<String>) {
    let Command::Argv(argv) = spec.command else { panic!("a script") };
    (argv.args, spec.env.into_iter().map(|it| format!("{}={}", it.name, it.value)).collect())
}

#[tokio::test]
async fn claude_is_told_its_account_in_variables() {
    let plugin = load("agent-claude");
    let agent = plugin.agent().expect("an agent");
    let context = CallContext::default;
    let info = agent.info(context()).await.expect("info");
    assert!(info.account_environment.contains(&"CLAUDE_CONFIG_DIR".to_owned()), "{info:?}");
    assert_eq!(info.api_key_variable.as_deref(), Some("ANTHROPIC_API_KEY"));
    let login = launch("claude", &["--console"], &[("config-dir", "/logins/a")]);
    let (args, variables) = shown(agent.login_command(context(), &login).await.expect("a command"));
    assert_eq!(args, ["auth", "login", "--console"]);
    assert!(variables.contains(&"CLAUDE_CONFIG_DIR=/logins/a".to_owned()), "{variables:?}");
    let (args, _) = shown(agent.logout_command(context(), &launch("claude", &[], &[])).await.expect("a command"));
    assert_eq!(args, ["auth", "logout"]);
    let leak = launch("claude", &[], &[("auth", "oauth"), ("endpoint", "https://models.example")]);
    let refused = agent.command(context(), &leak).await.expect_err("the token would go there");
    assert!(refused.is("invalid"), "{refused:?}");
}

#[tokio::test]
async fn codex_is_told_its_account_in_options() {
    let plugin = load("agent-codex");
    let agent = plugin.agent().expect("an agent");
    let context = CallContext::default;
    let info = agent.info(context()).await.expect("info");
    assert!(info.account_environment.contains(&"CODEX_HOME".to_owned()), "{info:?}");
    assert_eq!(info.api_key_variable.as_deref(), Some("CODEX_API_KEY"));
    let options = [("config-dir", "/logins/a"), ("model", "m"), ("endpoint", "https://models.example/v1")];
    let (args, variables) =
        shown(agent.command(context(), &launch("codex", &["exec", "x"], &options)).await.expect("a command"));
    assert_eq!(args[..4], ["-c", "model=\"m\"", "-c", "model_provider=\"pcoder\""]);
    assert!(args.contains(&"model_providers.pcoder.base_url=\"https://models.example/v1\"".to_owned()), "{args:?}");
    assert!(args.ends_with(&["exec".to_owned(), "x".to_owned()]));
    assert_eq!(variables, ["CODEX_HOME=/logins/a"]);
    let login = launch("codex", &["--device-auth"], &[]);
    assert_eq!(shown(agent.login_command(context(), &login).await.expect("a command")).0, ["login", "--device-auth"]);
    let (args, _) = shown(agent.logout_command(context(), &launch("codex", &[], &[])).await.expect("a command"));
    assert_eq!(args, ["logout"]);
}
