//! pcoder, put together: the runtime, the plugins that are built in, the engine store.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pcoder_engines::{EnginesLock, Platform, Store};
use pcoder_runtime::SshKeepers;
use pcoder_runtime::artifact::{Cache, TrustedCode};
use pcoder_runtime::call::{CallContext, HostKeys, Starter};
use pcoder_runtime::error::code;
use pcoder_runtime::inspect::{Inspection, inspect};
use pcoder_runtime::manifest::{Capabilities, Kind};
use pcoder_runtime::process::Processes;
use pcoder_runtime::secrets::{Broker, Carried, SecretSource};
use pcoder_runtime::{Error, Grant, Plugin, Runtime};
use pcoder_service::{Launcher, Services};
use serde::Serialize;

use crate::audit_log::AuditLog;
use crate::errors::{from_engines, from_state};
use crate::grants::{CompileCommand, Entry, PluginsLock, Policies};
use crate::known_hosts::KnownHosts;
use crate::machines::Looked;
use crate::{Layout, Surroundings};

/// A plugin that is a part of the program, as its build made it.
#[derive(Clone, Copy)]
pub struct Bundled {
    /// The file's name without its ending.
    pub name: &'static str,
    /// The component.
    pub wasm: &'static [u8],
    /// Its compiled code, where the build made it.
    pub code: Option<&'static [u8]>,
}

/// The root with what is known of this host.
pub(crate) const HOST_ROOT: &str = "host";
/// Calls that a command makes at once, with some to spare.
const CALLS: u32 = 16;
/// How long a plugin's programs have to end when the plugin is taken away.
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);
/// What one command may be told to make at once.
const MOST_CALLS: u32 = 1024;

/// Everything that a command needs, made when it is first needed.
pub struct Pcoder {
    pub(crate) surroundings: Surroundings,
    layout: Layout,
    bundled: &'static [Bundled],
    runtime: OnceLock<Result<Runtime, Error>>,
    loaded: Mutex<HashMap<String, Plugin>>,
    processes: Arc<Processes>,
    policies: OnceLock<Result<Policies, Error>>,
    compiler: OnceLock<CompileCommand>,
    supervisor: OnceLock<Launcher>,
    ssh_keepers: OnceLock<Arc<SshKeepers>>,
    pub(crate) private_tmp: OnceLock<Starter>,
    audit: OnceLock<Arc<AuditLog>>,
    calls: AtomicU32,
    pub(crate) host: tokio::sync::OnceCell<Looked>,
}

/// What every call to one plugin gets.
#[derive(Clone)]
pub(crate) struct CallSurroundings {
    roots: HashMap<String, PathBuf>,
    secrets: Arc<dyn SecretSource>,
    path: Option<OsString>,
    host_keys: Arc<dyn HostKeys>,
    services: Option<Arc<Services>>,
    ssh_keepers: Option<Arc<SshKeepers>>,
}

impl CallSurroundings {
    /// A call's context. `carried` are the secrets in what it is about.
    pub(crate) fn context(&self, carried: Carried) -> CallContext {
        CallContext {
            roots: self.roots.clone(),
            secrets: Arc::new(Broker::carrying(Arc::clone(&self.secrets), carried)),
            path: self.path.clone(),
            host_keys: Some(Arc::clone(&self.host_keys)),
            services: self.services.clone(),
            ssh_keepers: self.ssh_keepers.clone(),
            ..CallContext::default()
        }
    }
}

/// A line of `pcoder list-tools`.
#[derive(Clone, Debug, Serialize)]
pub struct ToolSummary {
    /// What `pcoder run` takes.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// One line for people.
    pub description: String,
    /// The engine's version that would run.
    pub version: Option<String>,
    /// Whether every engine that it needs is installed.
    pub installed: bool,
    /// What it needs.
    pub engines: Vec<String>,
}

/// A line of `pcoder plugin list`.
#[derive(Clone, Debug, Serialize)]
pub struct PluginSummary {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its version.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Where it comes from.
    pub source: String,
    /// The sha256 of its component.
    pub digest: String,
    /// Whether it has all that it asks for.
    pub granted: bool,
    /// Why it cannot be used, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Pcoder {
    /// Nothing is started or written yet. `sole_parent`: this process starts no processes but through plugins.
    ///
    /// # Errors
    /// When there is no place for its files.
    pub fn new(surroundings: Surroundings, bundled: &'static [Bundled], sole_parent: bool) -> Result<Self, Error> {
        let layout = Layout::find(&surroundings)?;
        if layout.locks_elsewhere() {
            tracing::info!("this folder's file system has no locks: they are in {}", layout.locks.display());
        }
        Ok(Self {
            surroundings,
            layout,
            bundled,
            runtime: OnceLock::new(),
            loaded: Mutex::default(),
            processes: Processes::new(sole_parent),
            policies: OnceLock::new(),
            compiler: OnceLock::new(),
            supervisor: OnceLock::new(),
            ssh_keepers: OnceLock::new(),
            private_tmp: OnceLock::new(),
            audit: OnceLock::new(),
            calls: AtomicU32::new(CALLS),
            host: tokio::sync::OnceCell::new(),
        })
    }

    /// Another one in the same place, with nothing read, loaded or started yet. It may have other children than those of
    /// its plugins' calls: engines that `doctor` asks by itself, while plugins are at work.
    ///
    /// # Errors
    /// As [`Pcoder::new`].
    pub(crate) fn fresh(&self) -> Result<Self, Error> {
        Self::new(self.surroundings.clone(), self.bundled, false)
    }

    /// Where it keeps things.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What surrounds it.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Makes room for so many calls at once on top of the usual ones. It has to be said before the first call.
    pub fn expect_calls(&self, calls: u32) {
        self.calls.store((CALLS + calls).min(MOST_CALLS), Ordering::Relaxed);
    }

    /// The processes of its calls.
    pub fn processes(&self) -> &Arc<Processes> {
        &self.processes
    }

    /// The engine store of this machine's platform.
    ///
    /// # Errors
    /// `unsupported` on a platform that no engine exists for.
    pub fn store(&self) -> Result<Store, Error> {
        let platform = Platform::detect(std::path::Path::new("/")).map_err(|error| from_engines(&error))?;
        let lock = EnginesLock::embedded().map_err(|error| from_engines(&error))?;
        Ok(Store::new(self.layout.store.clone(), lock, platform).with_locks(self.layout.locks.clone()))
    }

    fn audit_log(&self) -> &Arc<AuditLog> {
        self.audit.get_or_init(|| {
            // Under a policy that cannot be read nothing runs anyway.
            let required = self.policies().map_or(true, Policies::audit_required);
            Arc::new(AuditLog::new(self.layout.audit(), self.layout.locks.join("audit.lock"), required))
        })
    }

    /// Sends the audit to a collector too, from now on, as OpenTelemetry over HTTP.
    ///
    /// # Errors
    /// `invalid` for what is no address.
    pub fn export_audit(&self, endpoint: &str) -> Result<(), Error> {
        // A flag is held to what the settings are: what plugins did does not travel in the clear.
        crate::names::Endpoint::new(endpoint).map_err(|message| {
            Error::new(code::INVALID, "audit.export", message)
                .hint("`--otlp-endpoint https://HOST`, or `http://` on this machine")
        })?;
        self.audit_log().export_to(endpoint)
    }

    /// Sends what is left of the audit to the collector, for at most so long. Nothing where there is none.
    pub async fn finish_export(&self, deadline: std::time::Duration) -> Option<pcoder_audit::otlp::Exported> {
        match self.audit.get() {
            Some(log) => log.finish(deadline).await,
            None => None,
        }
    }

    pub(crate) fn runtime(&self) -> Result<&Runtime, Error> {
        let made = self.runtime.get_or_init(|| {
            let sink = Arc::clone(self.audit_log());
            // Without a cache everything works, slower; `doctor` says why there is none.
            let cache = Cache::open(&self.layout.code_cache()).ok();
            Runtime::with_room(self.calls.load(Ordering::Relaxed), sink, Arc::clone(&self.processes), cache)
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// Says how plugins that are added are compiled. Without it, none can be added.
    pub fn compile_with(&self, command: CompileCommand) {
        drop(self.compiler.set(command));
    }

    pub(crate) fn compile_command(&self) -> Option<CompileCommand> {
        self.compiler.get().cloned()
    }

    /// What the administrator allows here.
    ///
    /// # Errors
    /// When a policy cannot be read or enforced: then nothing may run.
    pub fn policies(&self) -> Result<&Policies, Error> {
        self.policies.get_or_init(|| Policies::load(&self.surroundings)).as_ref().map_err(Clone::clone)
    }

    pub(crate) fn plugins_file(&self) -> pcoder_state::File<PluginsLock> {
        pcoder_state::File::new(self.layout.plugins_lock(), &self.layout.locks)
    }

    /// The plugins that were added, and those that are built in and were narrowed.
    ///
    /// # Errors
    /// When `plugins.lock` cannot be read: then nothing that was granted is known.
    pub fn plugins_lock(&self) -> Result<PluginsLock, Error> {
        self.plugins_file().read().map_err(|error| from_state("plugins.lock", &error))
    }

    /// The names of the plugins that are built in.
    pub(crate) fn bundled_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.bundled.iter().map(|it| it.name)
    }

    /// A plugin that is built in, read.
    pub(crate) fn inspect_built_in(&self, name: &str) -> Option<Result<Inspection, Error>> {
        self.bundled.iter().find(|it| it.name == name).map(|it| self.inspect(it.wasm))
    }

    /// The bytes of a plugin that was added: those that were granted, and no others.
    pub(crate) fn component_of(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        const OPERATION: &str = "plugin.load";
        let path = self.layout.component(&entry.sha256);
        let again = format!("add it again with `pcoder plugin add FILE`, or `pcoder plugin remove {}`", entry.name);
        let wasm = std::fs::read(&path)
            .map_err(|error| Error::io(OPERATION, path.display().to_string(), &error).hint(again.as_str()))?;
        if pcoder_runtime::digest(&wasm) != entry.sha256 {
            return Err(Error::new(
                code::INTEGRITY,
                OPERATION,
                "the component has other bytes than the ones that were added",
            )
            .subject(path.display().to_string())
            .hint(again));
        }
        Ok(wasm)
    }

    /// The plugins that are built in, read.
    ///
    /// # Errors
    /// `internal` when the build put something else into the program.
    pub fn inspect_all(&self) -> Result<Vec<Inspection>, Error> {
        self.bundled.iter().map(|bundled| self.inspect(bundled.wasm)).collect()
    }

    /// A line for each plugin.
    ///
    /// # Errors
    /// As [`Pcoder::inspect_all`], and when `plugins.lock` cannot be read.
    pub fn plugins(&self) -> Result<Vec<PluginSummary>, Error> {
        let lock = self.plugins_lock()?;
        let whole = |inspection: &Inspection, entry: Option<&Entry>| {
            entry.is_none_or(|entry| {
                let granted = entry.granted.clone().into();
                crate::grants::beyond(&inspection.manifest.capabilities, &granted) == Capabilities::default()
            })
        };
        let mut plugins = Vec::new();
        for it in self.inspect_all()? {
            plugins.push(PluginSummary {
                granted: whole(&it, lock.find(&it.manifest.name)),
                name: it.manifest.name,
                kind: it.manifest.kind,
                version: it.manifest.version,
                description: it.manifest.description,
                source: "built in".to_owned(),
                digest: it.digest,
                problem: None,
            });
        }
        for entry in lock.plugins.iter().filter(|entry| !self.bundled_names().any(|name| name == entry.name)) {
            let read = self.component_of(entry).and_then(|wasm| self.inspect(&wasm));
            plugins.push(PluginSummary {
                name: entry.name.clone(),
                kind: entry.kind,
                version: entry.version.clone(),
                description: read.as_ref().map(|it| it.manifest.description.clone()).unwrap_or_default(),
                source: entry.source.clone(),
                digest: entry.sha256.clone(),
                granted: read.as_ref().is_ok_and(|it| whole(it, Some(entry))),
                problem: read.err().map(|error| error.message.clone()),
            });
        }
        Ok(plugins)
    }

    /// A plugin by kind and short name: `local` is the provider `provider-local`.
    ///
    /// # Errors
    /// `not-found`, with the names that there are; `denied` where a policy does not let it run; `integrity` when its
    /// bytes are not the ones that were added.
    pub async fn plugin(&self, kind: Kind, short: &str) -> Result<Plugin, Error> {
        let wanted = format!("{}{short}", kind.prefix());
        if let Some(plugin) = self.loaded().get(&wanted) {
            return Ok(plugin.clone());
        }
        let lock = self.plugins_lock()?;
        let entry = lock.find(&wanted);
        let built_in = self.bundled.iter().find(|it| it.name == wanted);
        let bytes = match (built_in, entry) {
            (Some(bundled), _) => Cow::Borrowed(bundled.wasm),
            (None, Some(entry)) if entry.kind == kind && !entry.is_built_in() => Cow::Owned(self.component_of(entry)?),
            _ => return Err(self.unknown(kind, short)),
        };
        let inspection = self.inspect(&bytes)?;
        let asked = &inspection.manifest.capabilities;
        // What is built in was granted by whoever built the program: all that it asks for, unless its user took some of
        // that away. What that leaves is not widened by another version of pcoder.
        let granted = match entry {
            Some(entry) => crate::grants::within(&entry.granted.clone().into(), asked),
            None => asked.clone(),
        };
        let policies = self.policies()?.allow(&wanted, &inspection.digest, &granted)?;
        // A stranger's component is compiled in a process with limits, also when the cache was cleared or is of another
        // pcoder. Where nobody said how, whoever embeds pcoder answers for it.
        let compiled = match (built_in, self.compile_command()) {
            (None, Some(command)) => crate::grants::compile(self.runtime()?, &command, &bytes).await?,
            _ => None,
        };
        let code = match &compiled {
            Some(code) => Some(TrustedCode::compiled_by_child(code)),
            None => built_in.and_then(|it| it.code).map(TrustedCode::embedded),
        };
        let grant = Grant { capabilities: granted, policies };
        let plugin = self.runtime()?.load_inspected(inspection, &bytes, code, |_| grant)?;
        self.loaded().insert(wanted, plugin.clone());
        Ok(plugin)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<String, Plugin>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The short names of a kind's plugins: those that are built in, then those that were added. Where `plugins.lock`
    /// cannot be read there are only the former; loading one says what is wrong with it.
    pub fn names(&self, kind: Kind) -> Vec<String> {
        let built_in = self.bundled.iter().filter_map(|it| it.name.strip_prefix(kind.prefix())).map(str::to_owned);
        let lock = self.plugins_lock().unwrap_or_default();
        let added = lock.plugins.iter().filter(|it| it.kind == kind && !it.is_built_in());
        built_in.chain(added.filter_map(|it| it.name.strip_prefix(kind.prefix()).map(str::to_owned))).collect()
    }

    fn unknown(&self, kind: Kind, short: &str) -> Error {
        let shown = pcoder_runtime::text::for_people(short, 80);
        if self.bundled.is_empty() {
            return Error::new(code::NOT_FOUND, "plugin", "this program was built without its plugins")
                .subject(shown)
                .hint("build it with `cargo xtask build`");
        }
        let names = self.names(kind).iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let (what, list) = match kind {
            Kind::Agent => ("tool", "`pcoder list-tools`"),
            Kind::Provider => ("provider", "`pcoder plugin list`"),
            _ => ("plugin", "`pcoder plugin list`"),
        };
        Error::new(code::NOT_FOUND, "plugin", format!("there is no {what} of that name"))
            .subject(shown)
            .hint(format!("choose one of {names}; {list} shows them"))
    }

    /// What can be known of a component without running it, with its user's settings in what it asks for.
    ///
    /// # Errors
    /// `invalid` for what is no plugin, and for a setting that cannot be.
    pub fn inspect(&self, wasm: &[u8]) -> Result<Inspection, Error> {
        let mut inspection = inspect(wasm)?;
        let settings = self.plugin_settings(&inspection.manifest.name)?;
        inspection.manifest = inspection.manifest.with_settings(&settings).map_err(|error| {
            let subject = error.subject.clone().unwrap_or_default();
            error.hint(format!("`pcoder config unset {subject}` takes it back"))
        })?;
        Ok(inspection)
    }

    /// What a call gets that reaches nothing but what `called` says.
    pub(crate) fn context(&self, plugin: &Plugin) -> CallContext {
        self.call_surroundings(plugin).context(Carried::default())
    }

    /// The same for several calls, with what cannot change meanwhile looked up once.
    pub(crate) fn call_surroundings(&self, plugin: &Plugin) -> CallSurroundings {
        let name = plugin.manifest().name.as_str();
        let mut roots = HashMap::from([("state".to_owned(), self.layout.plugin_state(name))]);
        // What every plugin finds in the same place that asks for it.
        roots.insert("images".to_owned(), self.layout.images());
        roots.insert("engines".to_owned(), self.layout.engine_disks());
        roots.insert(HOST_ROOT.to_owned(), self.layout.machine_facts(&self.surroundings));
        // Only a plugin that asks for a folder of its user's choice needs to know where that is.
        if !plugin.manifest().capabilities.files.is_empty()
            && let Ok(lock) = self.plugins_lock()
            && let Some(entry) = lock.find(name)
        {
            roots.extend(entry.roots.iter().map(|(root, folder)| (root.clone(), folder.into())));
        }
        CallSurroundings {
            roots,
            secrets: self.secret_source_of(plugin),
            path: self.path_of_plugins(),
            host_keys: Arc::new(KnownHosts::of(self.layout())),
            services: self.services_of(name).map(Arc::new),
            ssh_keepers: self.ssh_keepers.get().map(Arc::clone),
        }
    }

    /// Where plugins' programs are looked up: where the QEMU is that was found, wherever that is, and on the user's `PATH`.
    fn path_of_plugins(&self) -> Option<OsString> {
        let path = self.surroundings.variable("PATH").map(OsString::from);
        let Some(qemu) = self.found_qemu().and_then(Path::parent) else { return path };
        let all = std::iter::once(qemu.to_path_buf()).chain(path.iter().flat_map(std::env::split_paths));
        // A folder whose name no `PATH` can hold is not looked at.
        std::env::join_paths(all).ok().or(path)
    }

    /// Says how programs are kept running that outlive the calls of plugins. Without it, there are none.
    pub fn keep_services_with(&self, launcher: Launcher) {
        let _ = self.supervisor.set(launcher);
    }

    /// Says which program does nothing but call [`keep_ssh`](pcoder_runtime::keep_ssh), with which arguments. Without
    /// it, each command on a machine of this host logs in there.
    pub fn keep_connections_with(&self, program: PathBuf, args: Vec<OsString>) {
        let _ = self.ssh_keepers.set(Arc::new(SshKeepers { program, args, sockets: self.surroundings.sockets() }));
    }

    /// The programs of one plugin that outlive its calls.
    fn services_of(&self, plugin: &str) -> Option<Services> {
        let launcher = self.supervisor.get()?.clone();
        Some(Services::new(self.layout.services(plugin), self.surroundings.sockets(), launcher))
    }

    /// Ends every program that a plugin keeps running, and forgets it.
    pub(crate) async fn end_services(&self, plugin: &str) -> Result<(), Error> {
        let Some(services) = self.services_of(plugin) else { return Ok(()) };
        let failed = |error: pcoder_service::Error| Error::of_service("plugin.end-services", &error);
        for service in services.list().map_err(failed)? {
            services.stop(&service.name, GRACE).await.map_err(failed)?;
            services.remove(&service.name).map_err(failed)?;
        }
        Ok(())
    }

    /// The tools that `run` takes.
    ///
    /// # Errors
    /// When a plugin cannot be loaded.
    pub async fn tools(&self) -> Result<Vec<ToolSummary>, Error> {
        let store = self.store()?;
        let mut tools = Vec::new();
        for name in self.names(Kind::Agent) {
            let plugin = match self.plugin(Kind::Agent, &name).await {
                // A tool that the policy does not let run is none here.
                Err(error) if error.is(code::DENIED) => continue,
                plugin => plugin?,
            };
            let info = plugin.agent()?.info(self.context(&plugin)).await?;
            let found: Vec<_> = info.engines.iter().map(|engine| store.find(engine, None)).collect();
            let version = info.engines.first().and_then(|it| store.lock().engines.get(it)).map(|it| it.default.clone());
            tools.push(ToolSummary {
                name: info.name,
                title: info.title,
                description: info.description,
                version,
                installed: found.iter().all(|it| matches!(it, Ok(Some(_)))),
                engines: info.engines,
            });
        }
        Ok(tools)
    }
}
