//! The command lines.

use pcoder_sdk::host::AgentHost;
use pcoder_sdk::{
    Agent, AgentInfo, AuthState, CommandSpec, Error, ExitStatus, Launch, Output, PROXY_VARIABLES, ProcessSpec, Result,
    SessionInput, setting,
};

use crate::{account, options, self_update, session};

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
            ]
            .into_iter()
            .chain(PROXY_VARIABLES)
            .map(str::to_owned)
            .collect(),
            account_environment: account::VARIABLES.map(str::to_owned).to_vec(),
            api_key_variable: Some(account::KEY_VARIABLE.to_owned()),
            features: ["acp", "sessions"].map(str::to_owned).to_vec(),
        }
    }

    fn command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        self_update::refuse(&launch)?;
        let engine = launch.engine(ENGINE)?;
        let account = launch.account()?;
        let args = options::in_front(&account::options(&launch, &account), &launch.args);
        let spec = CommandSpec::argv(&engine.entrypoint, args).in_launch(&launch, [engine]);
        Ok(account::home(spec, &account).named("codex"))
    }

    fn to_process_spec(&self, _host: AgentHost<'_>, input: SessionInput) -> Result<ProcessSpec> {
        let launch = &input.launch;
        self_update::refuse(launch)?;
        let engine = launch.engine(ENGINE)?;
        // The native program does not put its own `rg` on the path; the package's launcher, which we do not use, does.
        let spec = CommandSpec::shell(session::script(&input, &engine.entrypoint)?).in_launch(launch, [engine]);
        let spec = account::home(spec, &launch.account()?);
        Ok(ProcessSpec::once(spec.named(input.process_name("cx"))))
    }

    fn acp(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let engine = launch.engine(ENGINE)?;
        let adapter = launch.engine(ADAPTER)?;
        let node = launch.engine(NODE)?;
        let args = std::iter::once(&adapter.entrypoint).chain(&launch.args);
        let spec = CommandSpec::argv(&node.entrypoint, args)
            .in_launch(&launch, [engine, adapter, node])
            .with_env("CODEX_PATH", &engine.entrypoint)
            .named("codex-acp");
        let spec = account::adapter(spec, &launch)?;
        // Newer adapters begin in a mode in which a model approves instead of the user. Asking is for the user to give up.
        Ok(match setting(&launch.env, "INITIAL_AGENT_MODE") {
            Some(_) => spec,
            None => spec.with_env("INITIAL_AGENT_MODE", "workspace-write"),
        })
    }

    fn auth_status_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        if launch.account()?.uses_api_key() {
            let message = "Codex says whether there is a login, and this key is in the environment only";
            return Err(Error::unsupported("agent.auth-status-command", message));
        }
        Ok(login(&launch, &["login", "status"], &[])?.named("codex-auth-status"))
    }

    /// The code decides: the words differ from version to version. They are read for the method only.
    fn auth_status(&self, _host: AgentHost<'_>, output: Output) -> Result<AuthState> {
        match output.status {
            ExitStatus::Exited(0) => Ok(AuthState::logged_in(method(&output.stderr))),
            ExitStatus::Exited(1) => Ok(AuthState::logged_out()),
            _ => Err(output.failure("agent.auth-status", "codex login status")),
        }
    }

    fn login_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        Ok(login(&launch, &["login"], &launch.args)?.named("codex-login"))
    }

    fn logout_command(&self, _host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        Ok(login(&launch, &["logout"], &launch.args)?.named("codex-logout"))
    }
}

/// A command about the login, which no model and no service has a part in.
fn login(launch: &Launch, words: &[&str], args: &[String]) -> Result<CommandSpec> {
    let engine = launch.engine(ENGINE)?;
    let args = words.iter().copied().chain(args.iter().map(String::as_str));
    let spec = CommandSpec::argv(&engine.entrypoint, args).in_launch(launch, [engine]);
    Ok(account::home(spec, &launch.account()?))
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

#[cfg(test)]
mod tests;
