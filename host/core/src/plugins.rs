//! pcoder, put together: the runtime, the plugins that are built in, the engine store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pcoder_engines::{EnginesLock, Platform, Store};
use pcoder_runtime::artifact::{Cache, TrustedCode};
use pcoder_runtime::call::CallContext;
use pcoder_runtime::error::code;
use pcoder_runtime::inspect::{Inspection, inspect};
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::process::Processes;
use pcoder_runtime::secrets::Broker;
use pcoder_runtime::{Error, Plugin, Runtime};
use serde::Serialize;

use crate::audit_log::AuditLog;
use crate::errors::from_engines;
use crate::secrets::FromEnvironment;
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

/// Calls that a command makes at once, with some to spare.
const CALLS: u32 = 16;

/// Everything that a command needs, made when it is first needed.
pub struct Pcoder {
    pub(crate) surroundings: Surroundings,
    layout: Layout,
    bundled: &'static [Bundled],
    runtime: OnceLock<Result<Runtime, Error>>,
    loaded: Mutex<HashMap<&'static str, Plugin>>,
    processes: Arc<Processes>,
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
    pub source: &'static str,
    /// The sha256 of its component.
    pub digest: String,
}

impl Pcoder {
    /// Nothing is started or written yet. `sole_parent`: this process starts no processes but through plugins.
    ///
    /// # Errors
    /// When there is no place for its files.
    pub fn new(surroundings: Surroundings, bundled: &'static [Bundled], sole_parent: bool) -> Result<Self, Error> {
        let layout = Layout::find(&surroundings)?;
        Ok(Self {
            surroundings,
            layout,
            bundled,
            runtime: OnceLock::new(),
            loaded: Mutex::default(),
            processes: Processes::new(sole_parent),
        })
    }

    /// Where it keeps things.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What surrounds it.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
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

    pub(crate) fn runtime(&self) -> Result<&Runtime, Error> {
        let made = self.runtime.get_or_init(|| {
            let sink = Arc::new(AuditLog::new(self.layout.audit()));
            // Without a cache everything works, slower; `doctor` says why there is none.
            let cache = Cache::open(&self.layout.code_cache()).ok();
            Runtime::with_room(CALLS, sink, Arc::clone(&self.processes), cache)
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// The plugins that are built in, read.
    ///
    /// # Errors
    /// `internal` when the build put something else into the program.
    pub fn inspect_all(&self) -> Result<Vec<Inspection>, Error> {
        self.bundled.iter().map(|bundled| inspect(bundled.wasm)).collect()
    }

    /// A line for each plugin.
    ///
    /// # Errors
    /// As [`Pcoder::inspect_all`].
    pub fn plugins(&self) -> Result<Vec<PluginSummary>, Error> {
        Ok(self
            .inspect_all()?
            .into_iter()
            .map(|it| PluginSummary {
                name: it.manifest.name,
                kind: it.manifest.kind,
                version: it.manifest.version,
                description: it.manifest.description,
                source: "built in",
                digest: it.digest,
            })
            .collect())
    }

    /// A plugin by kind and short name: `local` is the provider `provider-local`.
    ///
    /// # Errors
    /// `not-found`, with the names that there are.
    pub fn plugin(&self, kind: Kind, short: &str) -> Result<Plugin, Error> {
        let wanted = format!("{}{short}", kind.prefix());
        let Some(bundled) = self.bundled.iter().find(|it| it.name == wanted) else {
            return Err(self.unknown(kind, short));
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = loaded.get(bundled.name) {
            return Ok(plugin.clone());
        }
        let code = bundled.code.map(TrustedCode::embedded);
        // What is built in was granted by whoever built the program: all that it asks for.
        let plugin = self.runtime()?.load(bundled.wasm, code, |manifest| manifest.capabilities.clone())?;
        loaded.insert(bundled.name, plugin.clone());
        Ok(plugin)
    }

    /// The short names of a kind's plugins.
    pub fn names(&self, kind: Kind) -> Vec<&'static str> {
        self.bundled.iter().filter_map(|it| it.name.strip_prefix(kind.prefix())).collect()
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

    /// What a call gets that reaches nothing but what `called` says.
    pub(crate) fn context(&self, plugin: &Plugin) -> CallContext {
        let name = plugin.manifest().name.as_str();
        CallContext {
            roots: HashMap::from([("state".to_owned(), self.layout.plugin_state(name))]),
            secrets: Arc::new(Broker::new(Arc::new(FromEnvironment(self.surroundings.clone())))),
            path: self.surroundings.variable("PATH").map(Into::into),
            ..CallContext::default()
        }
    }

    /// The tools that `run` takes.
    ///
    /// # Errors
    /// When a plugin cannot be loaded.
    pub async fn tools(&self) -> Result<Vec<ToolSummary>, Error> {
        let store = self.store()?;
        let mut tools = Vec::new();
        for name in self.names(Kind::Agent) {
            let plugin = self.plugin(Kind::Agent, name)?;
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
