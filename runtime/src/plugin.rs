//! Plugins: read, checked, linked once, and instantiated anew for each call.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use crate::artifact::{self, Cache, TrustedCode};
use crate::audit::Sink;
use crate::bindings::host::pcoder::plugin as interfaces;
use crate::bindings::{agent, credentials, process_manager, provider};
use crate::call::CallState;
use crate::capability::limits::Limits;
use crate::engine::{self, Ticker};
use crate::error::{Error, code};
use crate::gate::{Authority, Identity, Subject};
use crate::inspect::{Inspection, inspect};
use crate::invoke::Exports;
use crate::manifest::{Capabilities, Kind, Manifest, SettingRequest};
use crate::process::Processes;

/// What runs components.
pub struct Runtime {
    pub(crate) shared: Arc<Shared>,
    cache: Option<Cache>,
}

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) processes: Arc<Processes>,
}

/// A plugin that is ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) pre: Pre,
    pub(crate) manifest: Manifest,
    pub(crate) subject: Arc<Subject>,
    pub(crate) exports: Exports,
    pub(crate) settings: Arc<BTreeMap<String, String>>,
}

pub(crate) enum Pre {
    Provider(provider::ProviderPluginPre<CallState>),
    ProcessManager(process_manager::ProcessManagerPluginPre<CallState>),
    Agent(agent::AgentPluginPre<CallState>),
    Credentials(credentials::CredentialsPluginPre<CallState>),
}

/// What a plugin may do beyond what it asks for itself: the user's word, and that of every policy.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// What its user granted.
    pub capabilities: Capabilities,
    /// What each policy allows. Without one, nothing narrows the grant further.
    pub policies: Vec<Capabilities>,
}

impl From<Capabilities> for Grant {
    fn from(capabilities: Capabilities) -> Self {
        Self { capabilities, policies: Vec::new() }
    }
}

impl Runtime {
    /// A runtime without plugins. `cache` is where code is kept that was compiled here; without one, it is compiled
    /// anew each time.
    ///
    /// # Errors
    /// `internal` when the engine does not start on this system.
    pub fn new(sink: Arc<dyn Sink>, processes: Arc<Processes>, cache: Option<Cache>) -> Result<Self, Error> {
        Self::with_room(256, sink, processes, cache)
    }

    /// The same with room for so many calls at once. A call into a process manager or an installer holds another one
    /// into the provider. A program that makes few starts faster.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_room(
        calls: u32,
        sink: Arc<dyn Sink>,
        processes: Arc<Processes>,
        cache: Option<Cache>,
    ) -> Result<Self, Error> {
        let engine = engine::engine(calls)?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self { shared: Arc::new(Shared { engine, ticker, sink, processes }), cache })
    }

    /// Loads a component. `code` is its compiled code, where that was made ahead of time. `grant` is what the user
    /// allows of what the manifest asks for.
    ///
    /// # Errors
    /// `invalid` for what is not a plugin, `unsupported` for one that this host cannot serve; both say why.
    pub fn load<G: Into<Grant>>(
        &self,
        wasm: &[u8],
        code: Option<TrustedCode<'_>>,
        grant: impl FnOnce(&Manifest) -> G,
    ) -> Result<Plugin, Error> {
        let inspection = inspect(wasm)?;
        self.load_inspected(inspection, wasm, code, grant)
    }

    /// The same for a component that was inspected when this program was built, so that starting does not read it
    /// again. The inspection must be of these very bytes.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn load_inspected<G: Into<Grant>>(
        &self,
        inspection: Inspection,
        wasm: &[u8],
        code: Option<TrustedCode<'_>>,
        grant: impl FnOnce(&Manifest) -> G,
    ) -> Result<Plugin, Error> {
        inspection.check_imports()?;
        let engine = &self.shared.engine;
        let component = match (code, &self.cache) {
            (Some(code), _) => artifact::load(engine, code).or_else(|error| {
                tracing::warn!(
                    "{}: {}; it is compiled again, which takes a moment",
                    inspection.manifest.name,
                    error.message
                );
                artifact::compile_and_load(engine, wasm)
            })?,
            (None, Some(cache)) => cache.component(engine, wasm)?,
            (None, None) => artifact::compile_and_load(engine, wasm)?,
        };
        let empty_handed = inspection.imports_empty_handed();
        let manifest = inspection.manifest;
        let identity = Identity { plugin: manifest.name.clone(), digest: inspection.digest };
        let pre = link(engine, manifest.kind, empty_handed, &component).map_err(|error| {
            Error::new(
                code::INVALID,
                "plugin.load",
                format!("it does not fit the world `{}`: {error:#}", manifest.kind.world()),
            )
            .subject(&manifest.name)
            .hint("build it against this pcoder's `wit/`")
        })?;
        let grant: Grant = grant(&manifest).into();
        let authority = grant
            .policies
            .into_iter()
            .fold(Authority::granted(manifest.capabilities.clone(), grant.capabilities), |authority, policy| {
                authority.under_policy(policy)
            });
        let limits = Limits::from_request(&manifest.limits);
        let subject = Arc::new(Subject { identity, authority, limits });
        let exports = Exports::of(&component, manifest.kind);
        let value = |it: &SettingRequest| Some((it.name.clone(), it.default.clone()?));
        let settings = Arc::new(manifest.settings.iter().filter_map(value).collect());
        let inner = Inner { pre, manifest, subject, exports, settings };
        Ok(Plugin { shared: Arc::clone(&self.shared), inner: Arc::new(inner) })
    }

    /// Whether a component's code is in the cache, so that it is loaded without compiling.
    pub fn is_compiled(&self, wasm: &[u8]) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.holds(&self.shared.engine, wasm))
    }

    /// Puts code into the cache that [`artifact::compile_here`] made of `wasm`, in another process of this program.
    /// Where there is no cache, it is dropped. Code that does not fit is refused.
    ///
    /// # Errors
    /// `integrity` for code that does not fit, `io`.
    pub fn keep_compiled(&self, wasm: &[u8], code: TrustedCode<'_>) -> Result<(), Error> {
        artifact::load(&self.shared.engine, code)?;
        match &self.cache {
            Some(cache) => cache.add(&self.shared.engine, wasm, code),
            None => Ok(()),
        }
    }

    /// The processes of this runtime's calls.
    pub fn processes(&self) -> &Arc<Processes> {
        &self.shared.processes
    }
}

impl Plugin {
    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// Who it is: the name in its manifest, and the digest of its bytes.
    pub fn identity(&self) -> &Identity {
        &self.inner.subject.identity
    }

    /// What its calls may use up.
    pub fn limits(&self) -> Limits {
        self.inner.subject.limits
    }
}

/// The sha256 of a component, in hexadecimal: the name that grants are pinned to.
pub fn digest(wasm: &[u8]) -> String {
    artifact::hex(&Sha256::digest(wasm))
}

/// Links a component with what its kind's world has, with the rest of WASI `empty_handed` if it imports that, and with
/// nothing else.
fn link(engine: &Engine, kind: Kind, empty_handed: bool, component: &Component) -> wasmtime::Result<Pre> {
    let mut linker = Linker::<CallState>::new(engine);
    type Own = HasSelf<CallState>;
    fn own(state: &mut CallState) -> &mut CallState {
        state
    }
    interfaces::types::add_to_linker::<_, Own>(&mut linker, own)?;
    interfaces::log::add_to_linker::<_, Own>(&mut linker, own)?;
    if kind != Kind::Agent || empty_handed {
        crate::host::wasi::add_shared(&mut linker)?;
    }
    if empty_handed {
        crate::host::wasi::add_empty_handed(&mut linker)?;
    }
    if kind != Kind::Agent {
        interfaces::stdio::add_to_linker::<_, Own>(&mut linker, own)?;
    }
    match kind {
        Kind::Provider => {
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
            crate::host::http::link_error_code(&mut linker)?;
            interfaces::websocket::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::ssh::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::process::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::service::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::files::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::secrets::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::settings::add_to_linker::<_, Own>(&mut linker, own)?;
        }
        Kind::ProcessManager => {
            interfaces::target::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::files::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::settings::add_to_linker::<_, Own>(&mut linker, own)?;
        }
        Kind::Credentials => {
            interfaces::target::add_to_linker::<_, Own>(&mut linker, own)?;
            interfaces::secrets::add_to_linker::<_, Own>(&mut linker, own)?;
        }
        Kind::Agent => {}
    }
    let pre: InstancePre<CallState> = linker.instantiate_pre(component)?;
    Ok(match kind {
        Kind::Provider => Pre::Provider(provider::ProviderPluginPre::new(pre)?),
        Kind::ProcessManager => Pre::ProcessManager(process_manager::ProcessManagerPluginPre::new(pre)?),
        Kind::Agent => Pre::Agent(agent::AgentPluginPre::new(pre)?),
        Kind::Credentials => Pre::Credentials(credentials::CredentialsPluginPre::new(pre)?),
    })
}
