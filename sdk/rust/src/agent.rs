//! Agents: how an engine is launched, and what its answers mean.

use std::marker::PhantomData;

use crate::bindings::agent::exports::pcoder::plugin::agent as contract;
use crate::error::{Error, Result};
use crate::export::begin;
use crate::host::AgentHost;
use crate::types::{AgentInfo, AuthState, CommandSpec, Launch, Output, ProcessSpec, SessionInput};

/// A coding agent. It computes command lines and runs nothing itself.
///
/// Every call gets a fresh instance of the plugin, made with [`Default`]. The methods with a body are optional.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
pub trait Agent: Default {
    /// Describes the agent. Does nothing else.
    fn info(&self) -> AgentInfo;

    /// The agent's own command line with the user's arguments, for a terminal or a pipe.
    fn command(&self, host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec>;

    /// One unattended session as a process. Feature `sessions`.
    fn to_process_spec(&self, host: AgentHost<'_>, input: SessionInput) -> Result<ProcessSpec> {
        let _ = (host, input);
        Err(Error::unsupported("agent.to-process-spec", "this agent has no unattended sessions"))
    }

    /// The command that speaks the Agent Client Protocol on its standard streams. Feature `acp`.
    fn acp(&self, host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let _ = (host, launch);
        Err(Error::unsupported("agent.acp", "this agent does not speak the Agent Client Protocol"))
    }

    /// The command whose answer [`Agent::auth_status`] reads.
    fn auth_status_command(&self, host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let _ = (host, launch);
        Err(Error::unsupported("agent.auth-status-command", "this agent cannot say whether it is logged in"))
    }

    /// Reads that answer.
    fn auth_status(&self, host: AgentHost<'_>, output: Output) -> Result<AuthState> {
        let _ = (host, output);
        Err(Error::unsupported("agent.auth-status", "this agent cannot say whether it is logged in"))
    }

    /// The agent's own command that logs its user in, with the user's arguments, for a terminal.
    fn login_command(&self, host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let _ = (host, launch);
        Err(Error::unsupported("agent.login-command", "this agent has no login of its own"))
    }

    /// The agent's own command that forgets the login, with the user's arguments.
    fn logout_command(&self, host: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let _ = (host, launch);
        Err(Error::unsupported("agent.logout-command", "this agent has no login of its own"))
    }
}

/// Connects an [`Agent`] to the contract; [`crate::export!`] uses it.
#[doc(hidden)]
pub struct AgentExport<A>(PhantomData<A>);

impl<A: Agent + 'static> contract::Guest for AgentExport<A> {
    fn info() -> AgentInfo {
        begin();
        A::default().info()
    }

    fn command(launch: Launch) -> Result<CommandSpec> {
        begin();
        A::default().command(AgentHost::real(), launch)
    }

    fn to_process_spec(input: SessionInput) -> Result<ProcessSpec> {
        begin();
        A::default().to_process_spec(AgentHost::real(), input)
    }

    fn acp(launch: Launch) -> Result<CommandSpec> {
        begin();
        A::default().acp(AgentHost::real(), launch)
    }

    fn auth_status_command(launch: Launch) -> Result<CommandSpec> {
        begin();
        A::default().auth_status_command(AgentHost::real(), launch)
    }

    fn auth_status(output: Output) -> Result<AuthState> {
        begin();
        A::default().auth_status(AgentHost::real(), output)
    }

    fn login_command(launch: Launch) -> Result<CommandSpec> {
        begin();
        A::default().login_command(AgentHost::real(), launch)
    }

    fn logout_command(launch: Launch) -> Result<CommandSpec> {
        begin();
        A::default().logout_command(AgentHost::real(), launch)
    }
}
