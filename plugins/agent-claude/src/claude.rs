//! The command lines.

use pcoder_sdk::host::AgentHost;
use pcoder_sdk::{
    Agent, AgentInfo, AuthState, CommandSpec, Launch, Output, PROXY_VARIABLES, ProcessSpec, Result, SessionInput,
    is_true,
};

use crate::{auth, self_update, session};

/// The engine's name in the store.
const ENGINE: &str = "claude";
/// The ACP adapter's name in the store.
const ADAPTER: &str = "claude-agent-acp";
/// What runs the adapter.
const NODE: &str = "node";

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
            features: ["acp", "sessions"].map(str::to_owned).to_vec(),
        }
    }

    fn command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        self_update::refuse(&launch)?;
        let engine = launch.engine(ENGINE)?;
        let spec = CommandSpec::argv(&engine.entrypoint, &launch.args).in_launch(&launch, [engine]);
        Ok(pinned(spec, &launch).named("claude"))
    }

    fn to_process_spec(&self, _host: AgentHost<'_>, input: SessionInput) -> Result<ProcessSpec> {
        let launch = &input.launch;
        self_update::refuse(launch)?;
        let engine = launch.engine(ENGINE)?;
        let spec = CommandSpec::shell(session::script(&input, &engine.entrypoint)?).in_launch(launch, [engine]);
        Ok(ProcessSpec::once(pinned(spec, launch).named(input.process_name("cc"))))
    }

    fn acp(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        let adapter = launch.engine(ADAPTER)?;
        let node = launch.engine(NODE)?;
        let args = std::iter::once(&adapter.entrypoint).chain(&launch.args);
        let spec = CommandSpec::argv(&node.entrypoint, args).in_launch(&launch, [engine, adapter, node]);
        Ok(pinned(spec, &launch).with_env("CLAUDE_CODE_EXECUTABLE", &engine.entrypoint).named("claude-acp"))
    }

    fn auth_status_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        let spec = CommandSpec::argv(&engine.entrypoint, ["auth", "status"]).in_launch(&launch, [engine]);
        Ok(pinned(spec, &launch).named("claude-auth-status"))
    }

    fn auth_status(&self, _host: AgentHost<'_>, output: Output) -> Result<AuthState> {
        auth::read(&output)
    }
}

/// Behind the user's settings, ours: the engine is pinned and verified, so it does not replace itself.
///
/// `IS_SANDBOX` is what makes Claude Code accept skipped permissions from user id 0. On the user's own machine that
/// must stay refused; only a host that says that the instance is a sandbox turns it on.
fn pinned(spec: CommandSpec, launch: &Launch) -> CommandSpec {
    let spec = spec.with_env("DISABLE_AUTOUPDATER", "1");
    if is_true(&launch.options, "sandboxed") { spec.with_env("IS_SANDBOX", "1") } else { spec }
}

#[cfg(test)]
mod tests;
