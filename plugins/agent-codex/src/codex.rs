//! The command lines.

use pcoder_sdk::host::AgentHost;
use pcoder_sdk::{
    Agent, AgentInfo, AuthState, CommandSpec, Engine, Error, ExitStatus, Launch, Output, ProcessSpec, Result,
    SessionInput, Setting, code, setting, text,
};

use crate::{self_update, session};

/// The engine's name in the store.
const ENGINE: &str = "codex";
/// The ACP adapter's name in the store.
const ADAPTER: &str = "codex-acp";
/// What runs the adapter.
const NODE: &str = "node";

/// Codex.
#[derive(Default)]
pub struct Codex;

impl Agent for Codex {
    fn info(&self) -> AgentInfo {
        AgentInfo {
            name: "codex".to_owned(),
            title: "Codex".to_owned(),
            description: "OpenAI's coding agent".to_owned(),
            engines: vec![ENGINE.to_owned()],
            acp_engines: [ENGINE, ADAPTER, NODE].map(str::to_owned).to_vec(),
            environment: [
                "CODEX_*",
                "OPENAI_*",
                "AZURE_OPENAI_*",
                "MODEL_PROVIDER",
                "INITIAL_AGENT_MODE",
                "RUST_LOG",
                "SSL_CERT_FILE",
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
        Ok(on_engine(&launch, engine, launch.args.clone()).named("codex"))
    }

    fn to_process_spec(&self, _host: AgentHost<'_>, input: SessionInput) -> Result<ProcessSpec> {
        self_update::refuse(&input.launch)?;
        let engine = input.launch.engine(ENGINE)?;
        let mut spec = CommandSpec::shell(session::script(&input, &engine.entrypoint)?).named(session::name(&input));
        spec.cwd = Some(input.launch.cwd.clone());
        spec.env.clone_from(&input.launch.env);
        // The native program does not put its own `rg` on the path; the package's launcher, which we do not use, does.
        spec.path_entries.clone_from(&engine.path_entries);
        Ok(ProcessSpec::once(spec))
    }

    fn acp(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        let adapter = launch.engine(ADAPTER)?;
        let node = launch.engine(NODE)?;
        let args = std::iter::once(adapter.entrypoint.clone()).chain(launch.args.iter().cloned());
        let mut spec = CommandSpec::argv(node.entrypoint.clone(), args).in_dir(launch.cwd.clone()).named("codex-acp");
        spec.env.clone_from(&launch.env);
        spec.env.push(Setting::new("CODEX_PATH", engine.entrypoint.clone()));
        // Newer adapters begin in a mode in which a model approves instead of the user. Asking is for the user to give up.
        if setting(&launch.env, "INITIAL_AGENT_MODE").is_none() {
            spec.env.push(Setting::new("INITIAL_AGENT_MODE", "workspace-write"));
        }
        for engine in [engine, adapter, node] {
            spec.path_entries.extend(engine.path_entries.iter().cloned());
        }
        Ok(spec)
    }

    fn auth_status_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        Ok(on_engine(&launch, engine, ["login", "status"].map(str::to_owned).to_vec()).named("codex-auth-status"))
    }

    /// The code decides: the words differ from version to version. They are read for the method only.
    fn auth_status(&self, _host: AgentHost<'_>, output: Output) -> Result<AuthState> {
        let state = |logged_in, method: &str| AuthState { logged_in, method: method.to_owned(), account: None };
        match output.status {
            ExitStatus::Exited(0) => Ok(state(true, method(&output.stderr))),
            ExitStatus::Exited(1) => Ok(state(false, "none")),
            status => Err(Error::new(
                code::PROCESS,
                "agent.auth-status",
                format!(
                    "`codex login status` ended with {}: {}",
                    status.describe(),
                    text::tail(&output.stderr, 1, 200)
                ),
            )),
        }
    }
}

fn method(stderr: &[u8]) -> &'static str {
    let words = String::from_utf8_lossy(stderr);
    if words.contains("API key") {
        "api-key"
    } else if words.contains("ChatGPT") {
        "oauth"
    } else {
        "unknown"
    }
}

fn on_engine(launch: &Launch, engine: &Engine, args: Vec<String>) -> CommandSpec {
    let mut spec = CommandSpec::argv(engine.entrypoint.clone(), args).in_dir(launch.cwd.clone());
    spec.env.clone_from(&launch.env);
    spec.path_entries.clone_from(&engine.path_entries);
    spec
}

#[cfg(test)]
mod tests;
