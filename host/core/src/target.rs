//! The instance of a call, over its provider's plugin: what process managers and installers reach as `target`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pcoder_runtime::call::{CallContext, Called};
use pcoder_runtime::contract::{CommandSpec, ExitStatus, Output as Captured, WriteOptions};
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::Stdio;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::secrets::Carried;
use pcoder_runtime::target::Target;
use pcoder_runtime::{Error, Plugin};

use crate::Pcoder;
use crate::capture::{Feed, capture};
use crate::plugins::CallSurroundings;

/// One instance of one provider.
pub(crate) struct OnProvider {
    provider: Plugin,
    instance: String,
    home: PathBuf,
    environment: Vec<(OsString, OsString)>,
    surroundings: CallSurroundings,
}

impl OnProvider {
    pub(crate) fn new(
        provider: Plugin,
        instance: &str,
        home: PathBuf,
        environment: Vec<(OsString, OsString)>,
        surroundings: CallSurroundings,
    ) -> Self {
        Self { provider, instance: instance.to_owned(), home, environment, surroundings }
    }

    fn context(&self, called: Called, carried: Carried) -> CallContext {
        CallContext {
            called: Called { environment: self.environment.clone(), home: Some(self.home.clone()), ..called },
            ..self.surroundings.context(carried)
        }
    }

    fn about(&self, path: &str) -> CallContext {
        self.about_carrying(path, Carried::default())
    }

    fn about_carrying(&self, path: &str, carried: Carried) -> CallContext {
        self.context(Called { path: Some(path.to_owned()), ..Called::default() }, carried)
    }

    async fn exec_bounded(&self, spec: &CommandSpec, stdio: Stdio, carried: Carried) -> Result<ExitStatus, Error> {
        let context = self.context(Called { command: Some(spec.clone()), ..Called::default() }, carried);
        self.provider.provider()?.exec(context, &self.instance, spec, stdio).await
    }
}

#[async_trait]
impl Target for OnProvider {
    async fn home_dir(&self) -> Result<String, Error> {
        crate::engines::utf8(&self.home)
    }

    async fn run(&self, spec: CommandSpec, input: Vec<u8>, limit: u64, carried: Carried) -> Result<Captured, Error> {
        let kept = capture(Feed::Bytes(input), limit, |stdio| self.exec_bounded(&spec, stdio, carried)).await?;
        if kept.stdout.cut || kept.stderr.cut {
            return Err(Error::new(code::LIMIT, "target.run", format!("it wrote more than {limit} bytes")));
        }
        Ok(Captured { status: kept.status, stdout: kept.stdout.bytes, stderr: kept.stderr.bytes })
    }

    async fn exec(&self, spec: CommandSpec, stdio: Stdio, carried: Carried) -> Result<ExitStatus, Error> {
        self.exec_bounded(&spec, stdio, carried).await
    }

    async fn read_file(&self, path: String) -> Result<Vec<u8>, Error> {
        self.provider.provider()?.read_file(self.about(&path), &self.instance, &path).await
    }

    async fn write_file(
        &self,
        path: String,
        content: Vec<u8>,
        options: WriteOptions,
        atomic: bool,
        carried: Carried,
    ) -> Result<(), Error> {
        let provider = self.provider.provider()?;
        let context = self.about_carrying(&path, carried);
        if atomic {
            provider.write_file_atomic(context, &self.instance, &path, &content, options).await
        } else {
            provider.write_file(context, &self.instance, &path, &content, options).await
        }
    }

    async fn file_exists(&self, path: String) -> Result<bool, Error> {
        self.provider.provider()?.file_exists(self.about(&path), &self.instance, &path).await
    }

    async fn create_directory(&self, path: String, mode: Option<u32>) -> Result<(), Error> {
        self.provider.provider()?.create_directory(self.about(&path), &self.instance, &path, mode).await
    }

    async fn delete_file(&self, path: String) -> Result<(), Error> {
        self.provider.provider()?.delete_file(self.about(&path), &self.instance, &path).await
    }

    async fn delete_directory(&self, path: String) -> Result<(), Error> {
        self.provider.provider()?.delete_directory(self.about(&path), &self.instance, &path).await
    }
}

impl Pcoder {
    /// An instance as `target`, with an environment for its commands.
    ///
    /// # Errors
    /// `not-found` for an unknown provider.
    pub async fn target(
        &self,
        provider: &str,
        instance: &str,
        home: PathBuf,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<Arc<dyn Target>, Error> {
        let provider = self.plugin(Kind::Provider, provider).await?;
        let surroundings = self.call_surroundings(&provider);
        Ok(Arc::new(OnProvider::new(provider, instance, home, environment, surroundings)))
    }

    /// What a call into a process manager or an installer gets: the instance that it is about.
    pub fn context_on(&self, plugin: &Plugin, target: Arc<dyn Target>) -> CallContext {
        CallContext { target: Some(target), ..self.context(plugin) }
    }
}
