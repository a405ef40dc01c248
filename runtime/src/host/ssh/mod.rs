//! `ssh`: commands, files and ports of another machine. Capability `net` with the scheme `ssh`.
//!
//! A connection takes the way of every other one (`dial.rs`), and is used again by those of a call that name the same
//! endpoint: host, key, user and credential. It is cut with the call that opened it. What the host asks a call to do on a
//! machine of this host may go over a connection that is kept ([`keeper`]).

mod back;
mod connect;
mod exec;
mod files;
mod forward;
pub(crate) mod keeper;
pub(crate) mod key;

use std::sync::Arc;

use pcoder_service::passing::Outputs;
use url::Url;
use wasmtime::component::Resource;

pub(crate) use connect::Connected;
use connect::{Connection, From};

use super::ends::Ends;
use super::stdio::{Passed, SHORT, Stdio};
use super::target::program;
use crate::bindings::host::pcoder::plugin::ssh::{Endpoint, Host};
use crate::bindings::host::pcoder::plugin::types::{CommandSpec, Error as WitError, ExitStatus, Output, WriteOptions};
use crate::call::CallState;
use crate::capability::net::{Channel, ssh_url};
use crate::capability::secrets::{Place, PublicHalf};
use crate::error::{Error, code};
use crate::gate::Permit;

impl Host for CallState {
    async fn exec(
        &mut self,
        endpoint: Endpoint,
        spec: CommandSpec,
        stdio: Resource<Stdio>,
    ) -> Result<ExitStatus, WitError> {
        let permit = self.channel("exec", &endpoint, program(&spec))?;
        let result = self.exec_there(&endpoint, &permit.effect().url, spec, stdio).await;
        Ok(permit.finish(0, result)?)
    }

    async fn capture(&mut self, endpoint: Endpoint, spec: CommandSpec, input: Vec<u8>) -> Result<Output, WitError> {
        let permit = self.channel("exec", &endpoint, program(&spec))?;
        let result = self.capture_there(&endpoint, &permit.effect().url, spec, input).await;
        let bytes = result.as_ref().map_or(0, |it| (it.stdout.len() + it.stderr.len()) as u64);
        let Output { status, stdout, stderr } = permit.finish(bytes, result)?;
        let secrets = &self.context.secrets;
        Ok(Output { status, stdout: secrets.redact(stdout), stderr: secrets.redact(stderr) })
    }

    async fn public_key(&mut self, credential: String) -> Result<String, WitError> {
        const OPERATION: &str = "ssh.public-key";
        let Some((name, value)) = self.context.secrets.own(&credential) else {
            let message = "this is no placeholder that the call has";
            return Err(Error::new(code::INVALID, OPERATION, message).hint("ask for one with `secrets.get`").into());
        };
        let permit = self.gate.authorize(PublicHalf(name))?;
        let public = key::public_half(&value).map_err(|error| error.subject(permit.effect().0.as_str()));
        Ok(permit.finish(0, public)?)
    }

    async fn read_file(&mut self, endpoint: Endpoint, path: String) -> Result<Vec<u8>, WitError> {
        let permit = self.channel("read", &endpoint, path.clone())?;
        let result = match self.connection(&endpoint, &permit.effect().url, Over::Own).await {
            Ok(connection) => files::read(&connection, &path, self.gate.budget()).await,
            Err(error) => Err(error),
        };
        let bytes = result.as_ref().map_or(0, |it| it.len() as u64);
        Ok(self.context.secrets.redact(permit.finish(bytes, result)?))
    }

    async fn write_file(
        &mut self,
        endpoint: Endpoint,
        path: String,
        content: Vec<u8>,
        options: WriteOptions,
    ) -> Result<(), WitError> {
        let permit = self.channel("write", &endpoint, path.clone())?;
        let bytes = content.len() as u64;
        let result = async {
            self.charge("ssh.write-file", bytes)?;
            let place = Place::Request(permit.effect().url.clone());
            let content = self.context.secrets.fill_bytes(&content, &place, false, &self.gate)?.into_owned();
            let connection = self.connection(&endpoint, &permit.effect().url, Over::Own).await?;
            files::write(&connection, &path, &content, options).await
        }
        .await;
        Ok(permit.finish(bytes, result)?)
    }

    async fn forward(&mut self, endpoint: Endpoint, port: u16) -> Result<u16, WitError> {
        let permit = self.channel("forward", &endpoint, format!("port {port}"))?;
        let result = async {
            let connection = self.connection(&endpoint, &permit.effect().url, Over::Own).await?;
            let (forward, local) = forward::listen(connection, port, Arc::clone(&self.gate)).await?;
            self.keep("ssh.forward", forward)?;
            Ok(local)
        }
        .await;
        Ok(permit.finish(0, result)?)
    }
}

impl CallState {
    fn channel(&self, verb: &'static str, endpoint: &Endpoint, subject: String) -> Result<Permit<Channel>, Error> {
        let url = ssh_url(&endpoint.host, endpoint.port)?;
        self.gate.authorize(Channel { verb, url, subject: Some(subject) })
    }

    async fn exec_there(
        &mut self,
        endpoint: &Endpoint,
        url: &Url,
        spec: CommandSpec,
        stdio: Resource<Stdio>,
    ) -> Result<ExitStatus, Error> {
        let own = self.context.called.command.as_ref() == Some(&spec);
        let secrets = Arc::clone(&self.context.secrets);
        let line = self.command_line(spec.clone(), url)?;
        let term = self.term(&spec);
        let is_short = self.table.get(&stdio).is_ok_and(Stdio::is_short);
        let over = if own && is_short && self.context.called.back.is_empty() {
            Over::Kept(self.table.get(&stdio).map(Stdio::outputs).unwrap_or_default())
        } else {
            Over::Own
        };
        let connection = self.connection(endpoint, url, over).await?;
        // Before anything fails: another command's outputs are not these.
        let passed = connection.take_passed();
        let stdio =
            self.table.get_mut(&stdio).map_err(|error| Error::new(code::INTERNAL, "ssh.exec", error.to_string()))?;
        let terminal = stdio.size().map(|size| exec::Terminal { term, size });
        if own {
            // What fails here has not touched the streams: the caller may have them back.
            back::listen(&connection, &self.context.called.back).await?;
            stdio.change_input(|input| Ok(secrets.fill_own(input)?.into_owned()))?;
        }
        let ends = stdio.ends_beside(passed)?;
        exec::run(&connection, &self.gate, line, terminal, ends, passed).await
    }

    /// The same with its input and its output in memory.
    async fn capture_there(
        &mut self,
        endpoint: &Endpoint,
        url: &Url,
        spec: CommandSpec,
        input: Vec<u8>,
    ) -> Result<Output, Error> {
        self.charge("ssh.capture", input.len() as u64)?;
        let asked = spec.clone();
        let line = self.command_line(spec, url)?;
        let own = self.context.called.command.as_ref() == Some(&asked);
        let over = if own && input.len() <= SHORT { Over::Kept(Outputs::default()) } else { Over::Own };
        let connection = self.connection(endpoint, url, over).await?;
        let (stdout, stderr) = (exec::Kept::new(&self.gate), exec::Kept::new(&self.gate));
        let ends = Ends {
            stdin: Box::new(std::io::Cursor::new(input)),
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
        };
        let status = exec::run(&connection, &self.gate, line, None, ends, Passed::default()).await?;
        Ok(Output { status, stdout: stdout.take()?, stderr: stderr.take()? })
    }

    /// The command as a line for the shell there. Only variables that the user's own command carries get their values.
    fn command_line(&self, mut spec: CommandSpec, url: &Url) -> Result<String, Error> {
        let as_called = self.context.called.command.as_ref() == Some(&spec);
        for setting in &mut spec.env {
            let place = Place::Command(url.clone());
            setting.value = self.context.secrets.fill(&setting.value, &place, as_called, &self.gate)?.into_owned();
        }
        crate::shell::line(&spec)
    }

    /// What kind of terminal the command is told that it has.
    fn term(&self, spec: &CommandSpec) -> String {
        let named = spec.env.iter().rev().find(|it| it.name == "TERM").map(|it| it.value.clone());
        let callers = || {
            let environment = &self.context.called.environment;
            environment.iter().find(|(name, _)| name == "TERM").and_then(|(_, value)| value.to_str().map(str::to_owned))
        };
        named.or_else(callers).unwrap_or_else(|| "xterm-256color".to_owned())
    }

    /// The connection to an endpoint: one that this call has already, or a new one.
    async fn connection(&mut self, endpoint: &Endpoint, url: &Url, over: Over) -> Result<Arc<Connection>, Error> {
        let internal = |error: wasmtime::component::ResourceTableError| {
            Error::new(code::INTERNAL, "ssh.connect", error.to_string())
        };
        for index in 0..self.ssh.len() {
            let connected = self.table.get(&self.ssh[index]).map_err(internal)?;
            if !connected.leads_to(endpoint) || matches!(over, Over::Own) && connected.is_kept() {
                continue;
            }
            if let Some(connection) = connected.usable() {
                return Ok(connection);
            }
            let lost = self.ssh.swap_remove(index);
            self.table.delete(lost).map_err(internal)?;
            break;
        }
        let (may_be_kept, outputs) = match over {
            Over::Own => (false, Outputs::default()),
            Over::Kept(outputs) => (true, outputs),
        };
        let from = From {
            known: self.context.host_keys.as_deref(),
            keepers: self.context.ssh_keepers.as_deref().filter(|_| may_be_kept),
            processes: self.tree.processes(),
            outputs: &outputs,
        };
        let connected = connect::connect(&self.gate, &self.context.secrets, from, endpoint, url).await?;
        let connection = connected.connection();
        let kept = self.keep("ssh.connect", connected)?;
        self.ssh.push(kept);
        Ok(connection)
    }
}

/// Which connection something goes over.
enum Over {
    /// One of the call's own.
    Own,
    /// One that is kept, where there can be one. What goes over that is bounded: two sides that both have much to say could
    /// wait for each other there. A new one gets these outputs.
    Kept(Outputs),
}

/// An error of the protocol, without a word of the other side's.
fn failed(operation: &'static str, error: &russh::Error) -> Error {
    match error {
        russh::Error::IO(error) => Error::io(operation, "connection", error),
        russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::ConnectFailed) => {
            Error::new(code::NETWORK, operation, "nothing listens there")
        }
        russh::Error::ChannelOpenFailure(_) => {
            Error::new(code::UNSUPPORTED, operation, "the other side does not allow it")
        }
        russh::Error::SendError | russh::Error::Disconnect | russh::Error::HUP | russh::Error::RecvError => {
            Error::new(code::UNAVAILABLE, operation, "the connection was lost")
        }
        other => Error::new(code::NETWORK, operation, crate::text::for_people(&other.to_string(), 400)),
    }
}
