//! Instances of a provider: booted, listed, stopped, used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pcoder_runtime::call::{Back, CallContext, Called};
use pcoder_runtime::contract::agent::Engine;
use pcoder_runtime::contract::provider::{BootOptions, Instance, ProviderInfo};
use pcoder_runtime::contract::{Command, CommandSpec, ExitStatus, WriteOptions};
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::Stdio;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::process::ProcessTree;
use pcoder_runtime::secrets::{Broker, Carried, SecretSource};
use pcoder_runtime::shell::quote;
use pcoder_runtime::target::Target;
use pcoder_runtime::{Error, Plugin, call_name, text};
use tokio_util::sync::CancellationToken;

use crate::Pcoder;
use crate::capture::{Captured, Feed, capture};
use crate::engine_disks;
use crate::engines::utf8;
use crate::machines::FACTS;
use crate::plugins::{CallSurroundings, HOST_ROOT};
use crate::reach::{Reach, WAY_BACK, Wanted};
use crate::run::{Control, HOST_PATHS};
use crate::target::OnProvider;

/// What is kept of an answer of the instance's shell.
const ANSWER: u64 = 64 << 10;

/// How long a boot that was cancelled may go on.
const STOPPING: Duration = Duration::from_secs(60);

/// Options of a boot that say nothing: what the provider boots by itself.
pub fn plain_boot() -> BootOptions {
    BootOptions { image: None, name: None, ttl_seconds: None, ttl_action: None, project: None, options: Vec::new() }
}

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
        let provider = Provider { pcoder: self, plugin, name: name.to_owned(), surroundings, cancel };
        // What was known of the host the last time is there, at least.
        if self.layout().machine_facts(self.surroundings()).join(FACTS).exists() {
            Ok(provider)
        } else {
            provider.starting().await
        }
    }
}

impl Provider<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, whose calls this token ends.
    #[must_use]
    pub fn until(&self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self.clone() }
    }

    /// The same for a call that starts something. Only what starts virtual machines has to know this host, as it is now;
    /// to look takes longer than a command.
    async fn starting(&self) -> Result<Self, Error> {
        if self.plugin.manifest().capabilities.files.iter().any(|it| it.root == HOST_ROOT) {
            self.pcoder.host_facts().await?;
        }
        // What was found may be elsewhere than where programs are looked up otherwise.
        Ok(Self { surroundings: self.pcoder.call_surroundings(&self.plugin), ..self.clone() })
    }

    /// What ends its calls.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    fn context(&self) -> CallContext {
        CallContext { cancel: Some(self.cancel.clone()), ..self.surroundings.context(Carried::default()) }
    }

    fn about(&self, path: &str) -> CallContext {
        let home = self.pcoder.surroundings().home();
        let called = Called { path: Some(path.to_owned()), home, ..Called::default() };
        CallContext { called, ..self.context() }
    }

    /// Where its secrets come from, those among them that pcoder makes for it.
    pub(crate) fn secret_source(&self) -> Arc<dyn SecretSource> {
        self.pcoder.secret_source_of(&self.plugin)
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

    /// Starts an instance and waits until it is ready. When that is cancelled, what was booted is ended.
    ///
    /// # Errors
    /// The plugin's; `cancelled`, whose hint says what to do where an instance may be left.
    pub async fn boot(&self, options: &BootOptions) -> Result<Instance, Error> {
        let plugin = self.plugin.provider()?;
        self.starting()
            .await?
            .made("provider.boot", |mut context| {
                if let Some(project) = &options.project {
                    context.roots.insert("project".to_owned(), PathBuf::from(project));
                }
                plugin.boot(context, options)
            })
            .await
    }

    /// An instance that `make` makes. When that is cancelled, it goes on until the instance is known and can be ended:
    /// one that nobody knows costs its user for as long as nobody ends it.
    async fn made<F: Future<Output = Result<Instance, Error>>>(
        &self,
        operation: &'static str,
        make: impl FnOnce(CallContext) -> F,
    ) -> Result<Instance, Error> {
        let cancelled = || Error::new(code::CANCELLED, operation, "it was stopped").subject(&self.name);
        if self.cancel.is_cancelled() {
            return Err(cancelled());
        }
        let last = CancellationToken::new();
        let mut making = std::pin::pin!(make(CallContext { cancel: Some(last.clone()), ..self.context() }));
        tokio::select! {
            result = &mut making => return result,
            () = self.cancel.cancelled() => {}
        }
        let (made, in_time) = match tokio::time::timeout(STOPPING, &mut making).await {
            Ok(made) => (made, true),
            Err(_) => {
                last.cancel();
                (making.await, false)
            }
        };
        let instance = match made {
            Ok(instance) => instance,
            // One that failed by itself has left nothing, or says what.
            Err(error) if in_time => {
                let message = format!("it was stopped, and failed meanwhile: {}", error.message);
                let told = Error::new(code::CANCELLED, operation, message);
                let told = told.subject(error.subject.as_deref().unwrap_or(&self.name));
                return Err(match &error.hint {
                    Some(hint) => told.hint(hint.clone()),
                    None => told,
                });
            }
            Err(_) => {
                let list = format!("`pcoder instance list --provider {}` shows whether one was left", self.name);
                return Err(cancelled().hint(list));
            }
        };
        match self.terminate(&instance.id).await {
            Ok(()) => Err(cancelled()),
            Err(error) => {
                let end = format!("`pcoder instance terminate {} --provider {}` ends it", instance.id, self.name);
                let message = format!("it was stopped, and the new instance could not be ended: {}", error.message);
                Err(Error::new(code::CANCELLED, operation, message).subject(&instance.id).hint(end))
            }
        }
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
        self.plugin.provider()?.resume(self.starting().await?.context(), id).await
    }

    /// Ends an instance. It is done even when the caller was cancelled: what is not ended goes on costing.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn terminate(&self, id: &str) -> Result<(), Error> {
        self.plugin.provider()?.terminate(self.surroundings.context(Carried::default()), id).await
    }

    /// Copies a running instance, and waits until the copy is ready. When that is cancelled, the copy is ended.
    ///
    /// # Errors
    /// `unsupported`, and the plugin's; `cancelled` as of [`Provider::boot`].
    pub async fn fork(&self, id: &str) -> Result<Instance, Error> {
        let plugin = self.plugin.provider()?;
        self.starting().await?.made("provider.fork", |context| plugin.fork(context, id)).await
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
        self.exec_as(id, spec, stdio, control, With::default()).await
    }

    /// The same with what the command carries.
    pub(crate) async fn exec_as(
        &self,
        id: &str,
        spec: &CommandSpec,
        stdio: Stdio,
        control: &Control,
        with: With<'_>,
    ) -> Result<ExitStatus, Error> {
        let nothing = Reach::default();
        let reach = with.reach.unwrap_or(&nothing);
        let secrets = with.secrets.or_else(|| reach.has_secrets().then(|| Arc::new(Broker::new(self.secret_source()))));
        let mut stdio = stdio;
        for port in reach.tries()? {
            let (lent, again) = stdio.lend();
            let (spec, back) = reach.on(port, spec, secrets.as_deref())?;
            let context = self.command_context(&spec, back, control, secrets.clone(), with.wall);
            match self.plugin.provider()?.exec(context, id, &spec, lent).await {
                Err(error) if reach.is_taken(port, &error) => match again.back() {
                    Some(back) => stdio = back,
                    None => return Err(error),
                },
                result => return result,
            }
        }
        let message = "no port of the instance is free for the way back to this host";
        Err(Error::new(code::CONFLICT, "provider.exec", message)
            .subject(text::for_people(id, 128))
            .hint("end what listens on its ports, and try again"))
    }

    fn command_context(
        &self,
        spec: &CommandSpec,
        back: Vec<Back>,
        control: &Control,
        secrets: Option<Arc<Broker>>,
        wall: Option<Duration>,
    ) -> CallContext {
        let called = Called {
            command: Some(spec.clone()),
            environment: self.pcoder.surroundings().environment.clone(),
            home: self.pcoder.surroundings().home(),
            back,
            ..Called::default()
        };
        let context = CallContext {
            called,
            cancel: Some(control.cancel.clone()),
            deadline: Some(wall),
            tree: Some(Arc::clone(&control.tree)),
            ..self.context()
        };
        match secrets {
            Some(secrets) => CallContext { secrets, ..context },
            None => context,
        }
    }

    /// A command that its user runs there, with what the instance lets it reach.
    ///
    /// # Errors
    /// The plugin's, `cancelled`.
    pub async fn exec_reaching(
        &self,
        id: &str,
        spec: &CommandSpec,
        stdio: Stdio,
        control: &Control,
        reach: &Reach,
    ) -> Result<ExitStatus, Error> {
        self.exec_as(id, spec, stdio, control, With { reach: Some(reach), ..With::default() }).await
    }

    /// The same with the outputs kept, at most `limit` bytes of each.
    ///
    /// # Errors
    /// As [`Provider::exec_reaching`].
    pub async fn capture_reaching(
        &self,
        id: &str,
        spec: &CommandSpec,
        input: Feed,
        limit: u64,
        control: &Control,
        reach: &Reach,
    ) -> Result<Captured, Error> {
        capture(input, limit, |stdio| self.exec_reaching(id, spec, stdio, control, reach)).await
    }

    /// What commands that a user runs on an instance reach by way of this host. No agent is known here: it is what any
    /// that is built in needs.
    ///
    /// # Errors
    /// The plugin's, and those of the settings.
    pub async fn reach(&self, id: &str) -> Result<Reach, Error> {
        if !self.has(WAY_BACK).await? {
            return Ok(Reach::default());
        }
        let instance = self.get(id).await?;
        self.pcoder.reach(&instance, Wanted::default()).await
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
        let said = self.shell(&instance.id, "printf %s \"$HOME\"", Feed::Nothing, 4096).await?;
        let home = String::from_utf8_lossy(&said.stdout.bytes).into_owned();
        if home.starts_with('/') {
            return Ok(home);
        }
        Err(Error::new(code::PROCESS, "provider.exec", "the instance's shell does not say where its home is")
            .subject(text::for_people(&instance.id, 128))
            .hint("set `HOME` on it"))
    }

    /// Runs a script for the instance's shell and keeps what it writes.
    ///
    /// # Errors
    /// As [`Provider::exec`].
    pub async fn shell(&self, id: &str, script: &str, input: Feed, limit: u64) -> Result<Captured, Error> {
        let spec = CommandSpec {
            command: Command::Shell(script.to_owned()),
            cwd: None,
            env: Vec::new(),
            path_entries: Vec::new(),
            name: None,
        };
        self.capture(id, &spec, input, limit, &self.control()).await
    }

    /// Where an agent's engines are on an instance, under their own names: on its `PATH`, or on its disk with engines.
    ///
    /// # Errors
    /// `not-found` for the first one that is not there, and the plugin's.
    pub(crate) async fn look(&self, id: &str, engines: &[String]) -> Result<There, Error> {
        // One question for all. `command -v` says nothing of what is not there.
        let ask = |name: &String| format!("printf '%s\\n' \"$(command -v {} || :)\"", quote(name));
        let has_disk = self.has(engine_disks::FEATURE).await?;
        let path = has_disk.then(|| format!("PATH=\"$PATH:{}\"", engine_disks::COMMANDS));
        let asked = std::iter::once("id -u".to_owned()).chain(path).chain(engines.iter().map(ask));
        let script = asked.collect::<Vec<_>>().join("; ");
        let said = self.shell(id, &script, Feed::Nothing, ANSWER).await?;
        let said = String::from_utf8_lossy(&said.stdout.bytes).into_owned();
        let mut lines = said.lines();
        let super_user = lines.next() == Some("0");
        let mut found = Vec::new();
        for name in engines {
            let entrypoint = lines.next().unwrap_or_default();
            if !entrypoint.starts_with('/') {
                return Err(Error::new(code::NOT_FOUND, "session.start", format!("`{name}` is not on the instance"))
                    .subject(text::for_people(id, 128))
                    .hint("install it there, or boot an image that has it"));
            }
            let root = entrypoint.rsplit_once('/').map_or("/", |(root, _)| if root.is_empty() { "/" } else { root });
            found.push(Engine {
                name: name.clone(),
                version: "unknown".to_owned(),
                root: root.to_owned(),
                entrypoint: entrypoint.to_owned(),
                path_entries: Vec::new(),
            });
        }
        Ok(There { super_user, engines: found })
    }

    /// The instance as process managers and installers reach it.
    pub(crate) fn target(&self, id: &str, home: PathBuf) -> Arc<dyn Target> {
        let environment = self.pcoder.surroundings().environment.clone();
        Arc::new(OnProvider::new(self.plugin.clone(), id, home, environment, self.surroundings.clone()))
    }
}

/// What a command carries besides itself.
#[derive(Default)]
pub(crate) struct With<'a> {
    /// The values behind its placeholders.
    pub(crate) secrets: Option<Arc<Broker>>,
    /// How long it may take.
    pub(crate) wall: Option<Duration>,
    /// What it reaches on this host.
    pub(crate) reach: Option<&'a Reach>,
}

/// What is on an instance.
pub(crate) struct There {
    /// Commands run as user id 0.
    pub(crate) super_user: bool,
    /// The engines that were looked for.
    pub(crate) engines: Vec<Engine>,
}

/// An end as a shell reports it.
pub fn exit_code(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Exited(code) => code,
        ExitStatus::Signaled(signal) => 128 + signal,
    }
}
