//! Instances of a provider: booted, listed, stopped, used.

use std::path::PathBuf;
use std::sync::Arc;

use pcoder_runtime::call::{CallContext, Called};
use pcoder_runtime::contract::provider::{BootOptions, Instance, ProviderInfo};
use pcoder_runtime::contract::{CommandSpec, ExitStatus, WriteOptions};
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::Stdio;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::process::ProcessTree;
use pcoder_runtime::secrets::Carried;
use pcoder_runtime::target::Target;
use pcoder_runtime::{Error, Plugin, call_name, text};
use tokio_util::sync::CancellationToken;

use crate::Pcoder;
use crate::capture::{Captured, Feed, capture};
use crate::engines::utf8;
use crate::plugins::CallSurroundings;
use crate::run::{Control, HOST_PATHS};
use crate::target::OnProvider;

/// One provider, ready to be asked. Cheap to clone, and each call has its own instance of the plugin.
#[derive(Clone)]
pub struct Provider<'a> {
    pcoder: &'a Pcoder,
    plugin: Plugin,
    name: String,
    surroundings: CallSurroundings,
    cancel: CancellationToken,
}

impl Pcoder {
    /// A provider by name. `cancel` ends its calls.
    ///
    /// # Errors
    /// `not-found` for an unknown one, `denied` where a policy does not let it run.
    pub async fn provider(&self, name: &str, cancel: CancellationToken) -> Result<Provider<'_>, Error> {
        let plugin = self.plugin(Kind::Provider, name).await?;
        let surroundings = self.call_surroundings(&plugin);
        Ok(Provider { pcoder: self, plugin, name: name.to_owned(), surroundings, cancel })
    }
}

impl Provider<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> CallContext {
        CallContext { cancel: Some(self.cancel.clone()), ..self.surroundings.context(Carried::default()) }
    }

    fn about(&self, path: &str) -> CallContext {
        let home = self.pcoder.surroundings().home();
        let called = Called { path: Some(path.to_owned()), home, ..Called::default() };
        CallContext { called, ..self.context() }
    }

    /// What it can do.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn info(&self) -> Result<ProviderInfo, Error> {
        self.plugin.provider()?.info(self.context()).await
    }

    /// Whether it can do that.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn has(&self, feature: &str) -> Result<bool, Error> {
        Ok(self.info().await?.features.iter().any(|it| it == feature))
    }

    /// Starts an instance and waits until it is ready.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn boot(&self, options: &BootOptions) -> Result<Instance, Error> {
        let mut context = self.context();
        if let Some(project) = &options.project {
            context.roots.insert("project".to_owned(), PathBuf::from(project));
        }
        self.plugin.provider()?.boot(context, options).await
    }

    /// Describes an instance.
    ///
    /// # Errors
    /// `not-found`, and the plugin's.
    pub async fn get(&self, id: &str) -> Result<Instance, Error> {
        self.plugin.provider()?.get(self.context(), id).await
    }

    /// The instances that were booted here.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn list(&self) -> Result<Vec<Instance>, Error> {
        self.plugin.provider()?.list(self.context()).await
    }

    /// Halts an instance so that it can be resumed.
    ///
    /// # Errors
    /// `unsupported`, and the plugin's.
    pub async fn stop(&self, id: &str) -> Result<(), Error> {
        self.plugin.provider()?.stop(self.context(), id).await
    }

    /// Continues an instance, and waits until it is ready.
    ///
    /// # Errors
    /// `unsupported`, and the plugin's.
    pub async fn resume(&self, id: &str) -> Result<Instance, Error> {
        self.plugin.provider()?.resume(self.context(), id).await
    }

    /// Ends an instance. It is done even when the caller was cancelled: what is not ended goes on costing.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn terminate(&self, id: &str) -> Result<(), Error> {
        self.plugin.provider()?.terminate(self.surroundings.context(Carried::default()), id).await
    }

    /// Copies a running instance, and waits until the copy is ready.
    ///
    /// # Errors
    /// `unsupported`, and the plugin's.
    pub async fn fork(&self, id: &str) -> Result<Instance, Error> {
        self.plugin.provider()?.fork(self.context(), id).await
    }

    /// Makes a port reachable, and says where.
    ///
    /// # Errors
    /// `unsupported`, and the plugin's.
    pub async fn expose(&self, id: &str, port: u16) -> Result<String, Error> {
        self.plugin.provider()?.expose(self.context(), id, port).await
    }

    /// A handle on a command, to be had before it starts.
    pub fn control(&self) -> Control {
        Control {
            cancel: self.cancel.child_token(),
            tree: ProcessTree::new(call_name(), Arc::clone(self.pcoder.processes())),
        }
    }

    /// Runs a command with these streams, for as long as it takes.
    ///
    /// # Errors
    /// The plugin's, `cancelled`.
    pub async fn exec(
        &self,
        id: &str,
        spec: &CommandSpec,
        stdio: Stdio,
        control: &Control,
    ) -> Result<ExitStatus, Error> {
        let called = Called {
            command: Some(spec.clone()),
            environment: self.pcoder.surroundings().environment.clone(),
            home: self.pcoder.surroundings().home(),
            ..Called::default()
        };
        let context = CallContext {
            called,
            cancel: Some(control.cancel.clone()),
            deadline: Some(None),
            tree: Some(Arc::clone(&control.tree)),
            ..self.context()
        };
        self.plugin.provider()?.exec(context, id, spec, stdio).await
    }

    /// The same with the outputs kept, at most `limit` bytes of each.
    ///
    /// # Errors
    /// As [`Provider::exec`].
    pub async fn capture(
        &self,
        id: &str,
        spec: &CommandSpec,
        input: Feed,
        limit: u64,
        control: &Control,
    ) -> Result<Captured, Error> {
        capture(input, limit, |stdio| self.exec(id, spec, stdio, control)).await
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// `not-found`, and the plugin's.
    pub async fn read_file(&self, id: &str, path: &str) -> Result<Vec<u8>, Error> {
        self.plugin.provider()?.read_file(self.about(path), id, path).await
    }

    /// Writes a whole file so that readers see the old one or the new one.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn write_file(&self, id: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<(), Error> {
        self.plugin.provider()?.write_file_atomic(self.about(path), id, path, content, options).await
    }

    /// The home folder on an instance: what the provider says, else what its shell says.
    ///
    /// # Errors
    /// The plugin's; `process` when the shell says nothing.
    pub async fn home(&self, instance: &Instance) -> Result<String, Error> {
        if let Some(home) = &instance.home_dir {
            return Ok(home.clone());
        }
        let info = self.info().await?;
        if let Some(home) = info.home_dir {
            return Ok(home);
        }
        if info.features.iter().any(|it| it == HOST_PATHS)
            && let Some(home) = self.pcoder.surroundings().home()
        {
            return utf8(&home);
        }
        let spec = CommandSpec {
            command: pcoder_runtime::contract::Command::Shell("printf %s \"$HOME\"".to_owned()),
            cwd: None,
            env: Vec::new(),
            path_entries: Vec::new(),
            name: None,
        };
        let said = self.capture(&instance.id, &spec, Feed::Nothing, 4096, &self.control()).await?;
        let home = String::from_utf8_lossy(&said.stdout.bytes).into_owned();
        if home.starts_with('/') {
            return Ok(home);
        }
        Err(Error::new(code::PROCESS, "provider.exec", "the instance's shell does not say where its home is")
            .subject(text::for_people(&instance.id, 128))
            .hint("set `HOME` on it"))
    }

    /// The instance as process managers and installers reach it.
    pub(crate) fn target(&self, id: &str, home: PathBuf) -> Arc<dyn Target> {
        let environment = self.pcoder.surroundings().environment.clone();
        Arc::new(OnProvider::new(self.plugin.clone(), id, home, environment, self.surroundings.clone()))
    }
}
