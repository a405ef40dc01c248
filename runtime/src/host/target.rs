//! `target`: the one instance that the call is about. Capability `target`.

use std::sync::Arc;

use wasmtime::component::Resource;

use super::stdio::Stdio;
use crate::bindings::host::pcoder::plugin::target::Host;
use crate::bindings::host::pcoder::plugin::types::{
    Command, CommandSpec, Error as WitError, ExitStatus, Output, WriteOptions,
};
use crate::call::CallState;
use crate::capability::target::OnTarget;
use crate::error::{Error, code};
use crate::gate::Permit;
use crate::secrets::Carried;
use crate::target::Target;

impl CallState {
    fn on_target(
        &self,
        verb: &'static str,
        subject: impl Into<String>,
    ) -> Result<(Permit<OnTarget>, Arc<dyn Target>), Error> {
        let permit = self.gate.authorize(OnTarget::new(verb, crate::text::for_people(&subject.into(), 400)))?;
        match self.context.target.clone() {
            Some(target) => Ok((permit, target)),
            None => Err(permit
                .finish::<()>(0, Err(Error::new(code::UNAVAILABLE, "target", "this call is about no instance")))
                .err()
                .unwrap_or_else(|| Error::new(code::INTERNAL, "target", "an error was lost"))),
        }
    }

    /// The placeholders of a command and of what it is fed, which go on with them. The values stay with the host, which
    /// puts them in where the instance's provider hands them over.
    fn carried(&self, spec: &CommandSpec, input: &[u8]) -> Result<Carried, Error> {
        let secrets = &self.context.secrets;
        spec.env.iter().try_fold(secrets.carry(input, &self.gate)?, |carried, setting| {
            Ok(carried.and(secrets.carry(setting.value.as_bytes(), &self.gate)?))
        })
    }

    async fn write(
        &mut self,
        verb: &'static str,
        path: String,
        content: Vec<u8>,
        options: WriteOptions,
        atomic: bool,
    ) -> Result<(), WitError> {
        let (permit, target) = self.on_target(verb, path.as_str())?;
        let bytes = content.len() as u64;
        self.charge("target.write-file", bytes)?;
        let carried = self.context.secrets.carry(&content, &self.gate)?;
        Ok(permit.finish(bytes, target.write_file(path, content, options, atomic, carried).await)?)
    }
}

/// The program alone: arguments may hold what the user typed.
pub(super) fn program(spec: &CommandSpec) -> String {
    match &spec.command {
        Command::Argv(argv) => argv.program.clone(),
        Command::Shell(_) => "a script".to_owned(),
    }
}

impl Host for CallState {
    async fn home_dir(&mut self) -> Result<String, WitError> {
        let (permit, target) = self.on_target("home-dir", "~")?;
        Ok(permit.finish(0, target.home_dir().await)?)
    }

    async fn run(&mut self, spec: CommandSpec, input: Vec<u8>) -> Result<Output, WitError> {
        let (permit, target) = self.on_target("run", program(&spec))?;
        let carried = self.carried(&spec, &input)?;
        let result = target.run(spec, input, self.allowance(), carried).await;
        let bytes = result.as_ref().map_or(0, |it| (it.stdout.len() + it.stderr.len()) as u64);
        let output = permit.finish(bytes, result)?;
        self.charge("target.run", bytes)?;
        let secrets = &self.context.secrets;
        Ok(Output {
            status: output.status,
            stdout: secrets.redact(output.stdout),
            stderr: secrets.redact(output.stderr),
        })
    }

    async fn exec(&mut self, spec: CommandSpec, stdio: Resource<Stdio>) -> Result<ExitStatus, WitError> {
        let (permit, target) = self.on_target("exec", program(&spec))?;
        let carried = self.carried(&spec, &[])?;
        let handed = self
            .table
            .get_mut(&stdio)
            .map_err(|error| Error::new(code::INTERNAL, "target.exec", error.to_string()))
            .and_then(Stdio::hand_on);
        let result = match handed {
            Ok(stdio) => target.exec(spec, stdio, carried).await,
            Err(error) => Err(error),
        };
        Ok(permit.finish(0, result)?)
    }

    async fn read_file(&mut self, path: String) -> Result<Vec<u8>, WitError> {
        let (permit, target) = self.on_target("read-file", path.as_str())?;
        let result = target.read_file(path).await;
        let bytes = result.as_ref().map_or(0, |it| it.len() as u64);
        let content = permit.finish(bytes, result)?;
        self.charge("target.read-file", bytes)?;
        Ok(self.context.secrets.redact(content))
    }

    async fn write_file(&mut self, path: String, content: Vec<u8>, options: WriteOptions) -> Result<(), WitError> {
        self.write("write-file", path, content, options, false).await
    }

    async fn write_file_atomic(
        &mut self,
        path: String,
        content: Vec<u8>,
        options: WriteOptions,
    ) -> Result<(), WitError> {
        self.write("write-file-atomic", path, content, options, true).await
    }

    async fn file_exists(&mut self, path: String) -> Result<bool, WitError> {
        let (permit, target) = self.on_target("file-exists", path.as_str())?;
        Ok(permit.finish(0, target.file_exists(path).await)?)
    }

    async fn create_directory(&mut self, path: String, mode: Option<u32>) -> Result<(), WitError> {
        let (permit, target) = self.on_target("create-directory", path.as_str())?;
        Ok(permit.finish(0, target.create_directory(path, mode).await)?)
    }

    async fn delete_file(&mut self, path: String) -> Result<(), WitError> {
        let (permit, target) = self.on_target("delete-file", path.as_str())?;
        Ok(permit.finish(0, target.delete_file(path).await)?)
    }

    async fn delete_directory(&mut self, path: String) -> Result<(), WitError> {
        let (permit, target) = self.on_target("delete-directory", path.as_str())?;
        Ok(permit.finish(0, target.delete_directory(path).await)?)
    }
}
