//! The command lines.

use pcoder_sdk::host::AgentHost;
use pcoder_sdk::{
    Agent, AgentInfo, AuthState, CommandSpec, Error, Launch, Output, PROXY_VARIABLES, ProcessSpec, Result,
    SessionInput, is_true, setting,
};

use crate::{auth, self_update, session};

/// The engine's name in the store.
const ENGINE: &str = "claude";
/// The ACP adapter's name in the store.
const ADAPTER: &str = "claude-agent-acp";
/// What runs the adapter.
const NODE: &str = "node";
/// The variable with the base URL of the model service. The login's token goes there too.
const ENDPOINT: &str = "ANTHROPIC_BASE_URL";

/// What chooses an account, a service or a model, those that no page lists among them: as the programs 0.3.156 and
/// 0.3.316 name them.
const ACCOUNT_VARIABLES: [&str; 22] = [
    "ANTHROPIC_*",
    "AWS_BEARER_TOKEN_BEDROCK",
    "CLAUDE_API_KEY",
    "CLAUDE_CODE_ACCOUNT_*",
    "CLAUDE_CODE_API_*",
    "CLAUDE_CODE_CUSTOM_OAUTH_URL",
    "CLAUDE_CODE_GATEWAY_TOKEN*",
    "CLAUDE_CODE_HFI_BEARER_TOKEN",
    "CLAUDE_CODE_HOST_AUTH_*",
    "CLAUDE_CODE_HOST_CREDS_FILE",
    "CLAUDE_CODE_OAUTH_*",
    "CLAUDE_CODE_ORGANIZATION_UUID",
    "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST",
    "CLAUDE_CODE_SESSIONS_OAUTH_TOKEN",
    "CLAUDE_CODE_SESSION_ACCESS_TOKEN",
    "CLAUDE_CODE_SUBAGENT_MODEL*",
    "CLAUDE_CODE_USE_*",
    "CLAUDE_CODE_WEBSOCKET_AUTH_FILE_DESCRIPTOR",
    "CLAUDE_CONFIG_DIR",
    "CLAUDE_LOCAL_OAUTH_*",
    "CLAUDE_SECURESTORAGE_CONFIG_DIR",
    "CLAUDE_TRUSTED_DEVICE_TOKEN",
];

/// Claude Code.
#[derive(Default)]
pub struct Claude;

impl Agent for Claude {
    fn info(&self) -> AgentInfo {
        AgentInfo {
            name: "claude".to_owned(),
            title: "Claude Code".to_owned(),
            description: "Anthropic's coding agent".to_owned(),
            engines: vec![ENGINE.to_owned()],
            acp_engines: [ENGINE, ADAPTER, NODE].map(str::to_owned).to_vec(),
            environment: [
                "ANTHROPIC_*",
                "CLAUDE_*",
                "CLAUDE_CODE_*",
                "DISABLE_TELEMETRY",
                "DISABLE_ERROR_REPORTING",
                "DO_NOT_TRACK",
                "MAX_THINKING_TOKENS",
                "NODE_EXTRA_CA_CERTS",
            ]
            .into_iter()
            .chain(PROXY_VARIABLES)
            .map(str::to_owned)
            .collect(),
            account_environment: ACCOUNT_VARIABLES.map(str::to_owned).to_vec(),
            api_key_variable: Some("ANTHROPIC_API_KEY".to_owned()),
            features: ["acp", "sessions"].map(str::to_owned).to_vec(),
        }
    }

    fn command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        self_update::refuse(&launch)?;
        let engine = launch.engine(ENGINE)?;
        let spec = CommandSpec::argv(&engine.entrypoint, &launch.args).in_launch(&launch, [engine]);
        Ok(pinned(spec, &launch)?.named("claude"))
    }

    fn to_process_spec(&self, _host: AgentHost<'_>, input: SessionInput) -> Result<ProcessSpec> {
        let launch = &input.launch;
        self_update::refuse(launch)?;
        let engine = launch.engine(ENGINE)?;
        let spec = CommandSpec::shell(session::script(&input, &engine.entrypoint)?).in_launch(launch, [engine]);
        Ok(ProcessSpec::once(pinned(spec, launch)?.named(input.process_name("cc"))))
    }

    fn acp(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        let adapter = launch.engine(ADAPTER)?;
        let node = launch.engine(NODE)?;
        let args = std::iter::once(&adapter.entrypoint).chain(&launch.args);
        let spec = CommandSpec::argv(&node.entrypoint, args).in_launch(&launch, [engine, adapter, node]);
        Ok(pinned(spec, &launch)?.with_env("CLAUDE_CODE_EXECUTABLE", &engine.entrypoint).named("claude-acp"))
    }

    fn auth_status_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        auth(&launch, "status", &[])
    }

    fn auth_status(&self, _host: AgentHost<'_>, output: Output) -> Result<AuthState> {
        auth::read(&output)
    }

    fn login_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        auth(&launch, "login", &launch.args)
    }

    fn logout_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        auth(&launch, "logout", &launch.args)
    }
}

/// `claude auth WORD`.
fn auth(launch: &Launch, word: &str, args: &[String]) -> Result<CommandSpec> {
    let engine = launch.engine(ENGINE)?;
    let args = ["auth", word].into_iter().chain(args.iter().map(String::as_str));
    let spec = CommandSpec::argv(&engine.entrypoint, args).in_launch(launch, [engine]);
    Ok(pinned(spec, launch)?.named(format!("claude-auth-{word}")))
}

/// Behind the user's settings, ours: the engine is pinned and verified, so it does not replace itself, and the account
/// is the one that the launch names.
///
/// `IS_SANDBOX` is what makes Claude Code accept skipped permissions from user id 0. On the user's own machine that
/// must stay refused; only a host that says that the instance is a sandbox turns it on.
fn pinned(spec: CommandSpec, launch: &Launch) -> Result<CommandSpec> {
    let account = launch.account()?;
    // What the user's settings add is a way there as well.
    if account.api == Some(false) && setting(&launch.env, ENDPOINT).is_some() {
        return Err(Error::invalid("agent.launch", "the login's token would be sent there")
            .subject(ENDPOINT)
            .hint("leave the variable out, or use an API key"));
    }
    let mut spec = spec.with_env("DISABLE_AUTOUPDATER", "1");
    let variables =
        [("CLAUDE_CONFIG_DIR", account.config_dir), (ENDPOINT, account.endpoint), ("ANTHROPIC_MODEL", account.model)];
    for (name, value) in variables {
        if let Some(value) = value {
            spec = spec.with_env(name, value);
        }
    }
    Ok(if is_true(&launch.options, "sandboxed") { spec.with_env("IS_SANDBOX", "1") } else { spec })
}

#[cfg(test)]
mod tests;
