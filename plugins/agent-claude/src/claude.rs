//! The command lines.

use pcoder_sdk::host::AgentHost;
use pcoder_sdk::{
    Agent, AgentInfo, AuthState, CommandSpec, Engine, Launch, Output, ProcessSpec, Result, SessionInput, Setting,
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
                "HTTP_PROXY",
                "HTTPS_PROXY",
                "NO_PROXY",
                "http_proxy",
                "https_proxy",
                "no_proxy",
            ]
            .map(str::to_owned)
            .to_vec(),
            features: ["acp", "sessions"].map(str::to_owned).to_vec(),
        }
    }

    fn command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        self_update::refuse(&launch)?;
        let engine = launch.engine(ENGINE)?;
        Ok(on_engine(&launch, engine, launch.args.clone()).named("claude"))
    }

    fn to_process_spec(&self, _host: AgentHost<'_>, input: SessionInput) -> Result<ProcessSpec> {
        self_update::refuse(&input.launch)?;
        let engine = input.launch.engine(ENGINE)?;
        let name = session::name(&input);
        let mut spec = CommandSpec::shell(session::script(&input, &engine.entrypoint)?).named(name);
        spec.cwd = Some(input.launch.cwd.clone());
        spec.env = environment(&input.launch);
        spec.path_entries = engine.path_entries.clone();
        Ok(ProcessSpec::once(spec))
    }

    fn acp(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        let adapter = launch.engine(ADAPTER)?;
        let node = launch.engine(NODE)?;
        let args = std::iter::once(adapter.entrypoint.clone()).chain(launch.args.iter().cloned());
        let mut spec = CommandSpec::argv(node.entrypoint.clone(), args).in_dir(launch.cwd.clone()).named("claude-acp");
        spec.env = environment(&launch);
        spec.env.push(Setting::new("CLAUDE_CODE_EXECUTABLE", engine.entrypoint.clone()));
        for engine in [engine, adapter, node] {
            spec.path_entries.extend(engine.path_entries.iter().cloned());
        }
        Ok(spec)
    }

    fn auth_status_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        Ok(on_engine(&launch, engine, ["auth", "status"].map(str::to_owned).to_vec()).named("claude-auth-status"))
    }

    fn auth_status(&self, _host: AgentHost<'_>, output: Output) -> Result<AuthState> {
        auth::read(&output)
    }
}

fn on_engine(launch: &Launch, engine: &Engine, args: Vec<String>) -> CommandSpec {
    let mut spec = CommandSpec::argv(engine.entrypoint.clone(), args).in_dir(launch.cwd.clone());
    spec.env = environment(launch);
    spec.path_entries.clone_from(&engine.path_entries);
    spec
}

/// The user's settings, then ours: the engine is pinned and verified, so it does not replace itself.
///
/// `IS_SANDBOX` is what makes Claude Code accept skipped permissions from user id 0. On the user's own machine that
/// must stay refused; only a host that says that the instance is a sandbox turns it on.
fn environment(launch: &Launch) -> Vec<Setting> {
    let mut env = launch.env.clone();
    env.push(Setting::new("DISABLE_AUTOUPDATER", "1"));
    if is_true(&launch.options, "sandboxed") {
        env.push(Setting::new("IS_SANDBOX", "1"));
    }
    env
}

#[cfg(test)]
mod tests;
