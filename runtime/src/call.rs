//! One call into a plugin: what it may use, and what it has used.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings::host::pcoder::plugin::types::CommandSpec;
use crate::capability::limits::Limits;
use crate::error::{Error, code};
use crate::gate::Gate;
use crate::host::http::Requests;
use crate::host::raw_terminal::RawTerminal;
use crate::host::ssh::Connected;
use crate::host::ssh::keeper::SshKeepers;
use crate::process::ProcessTree;
use crate::secrets::Broker;
use crate::target::Target;

/// The largest set of header fields of one request.
pub(crate) const HEADERS: usize = 128 << 10;

/// What the host asks a call to do, where a plugin is granted to do just that (`as called`, the root `called`).
#[derive(Clone, Debug, Default)]
pub struct Called {
    /// The command, as the plugin sees it: with placeholders, without the caller's environment.
    pub command: Option<CommandSpec>,
    /// The environment that the command gets beneath its own variables. The plugin never sees it.
    pub environment: Vec<(OsString, OsString)>,
    /// The home folder, for `~/`.
    pub home: Option<PathBuf>,
    /// The path that the call is about.
    pub path: Option<String>,
    /// What the command reaches on this host, where it runs over SSH. The plugin never hears of it.
    pub back: Vec<Back>,
    /// What starts the command in its place, on this host. The plugin never hears of it.
    pub starter: Option<Starter>,
}

/// Host keys that were seen before.
pub trait HostKeys: Send + Sync {
    /// The key of a host and port, as one line of OpenSSH's public key format, where one was kept.
    ///
    /// # Errors
    /// When what was kept cannot be read: then nothing is known, and nobody is trusted.
    fn known(&self, host: &str, port: u16) -> Result<Option<String>, Error>;

    /// Keeps a key that was seen for the first time.
    ///
    /// # Errors
    /// `denied` when another one was kept meanwhile, `io`.
    fn learn(&self, host: &str, port: u16, key: &str) -> Result<(), Error>;
}

/// A port of the machine that a command runs on, and where what arrives there leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// The port on the other machine's loopback.
    pub port: u16,
    /// The port on this host's loopback.
    pub to: u16,
}

/// A program that is started with a command behind its own arguments, and becomes that command.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Everything that a caller gives to one call. The default is a call that can reach nothing.
#[derive(Default)]
pub struct CallContext {
    /// What the call is asked to do.
    pub called: Called,
    /// The folders behind the names of file roots.
    pub roots: HashMap<String, PathBuf>,
    /// The instance that it is about.
    pub target: Option<Arc<dyn Target>>,
    /// The secrets that may be named, and the placeholders that were made for the command.
    pub secrets: Arc<Broker>,
    /// Where programs are looked up that a grant names without a path.
    pub path: Option<OsString>,
    /// Ends the call, for those who want to end it before it ends by itself. Dropping the call's future does that too.
    pub cancel: Option<CancellationToken>,
    /// How long the call may take in all. Without it, the plugin's limit; `Some(None)` for as long as it takes, which
    /// is for commands that people use.
    pub deadline: Option<Option<Duration>>,
    /// The host keys of machines that are reached over SSH and whose key the plugin does not know.
    pub host_keys: Option<Arc<dyn HostKeys>>,
    /// Where the plugin's programs are kept that outlive its calls. Without it, it can have none.
    pub services: Option<Arc<pcoder_service::Services>>,
    /// Who keeps connections to machines on this host. Without it, each call logs in.
    pub ssh_keepers: Option<Arc<SshKeepers>>,
    /// The processes that it starts; given when a caller wants to pass signals on to them.
    pub tree: Option<Arc<ProcessTree>>,
}

/// What a store holds for one call.
pub struct CallState {
    pub(crate) table: ResourceTable,
    /// Made when it is first used: it seeds generators, and few calls ask for time or randomness.
    pub(crate) wasi: Option<WasiCtx>,
    /// The same: few calls make requests.
    pub(crate) http: Option<(WasiHttpCtx, Requests)>,
    /// The connections over SSH that it has, to be used again. The table holds them.
    pub(crate) ssh: Vec<Resource<Connected>>,
    /// What the plugin's user set for it.
    pub(crate) settings: Arc<BTreeMap<String, String>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) context: CallContext,
    pub(crate) tree: Arc<ProcessTree>,
    pub(crate) memory: Memory,
    pub(crate) clock: GuestClock,
    /// While a plugin carries this process's terminal.
    pub(crate) raw: Option<RawTerminal>,
}

impl CallState {
    /// Counts bytes that the host holds or moves for the guest.
    pub(crate) fn charge(&self, operation: &'static str, bytes: u64) -> Result<(), Error> {
        self.gate.budget().charge(operation, bytes)
    }

    /// Puts something that stays open into the table, where it counts as a handle.
    pub(crate) fn keep<T: Send + 'static>(&mut self, operation: &'static str, open: T) -> Result<Resource<T>, Error> {
        self.table.push(open).map_err(|error| {
            if !matches!(error, ResourceTableError::Full) {
                return Error::new(code::INTERNAL, operation, error.to_string());
            }
            let limit = self.gate.limits().handles;
            Error::new(code::LIMIT, operation, format!("the call opened more handles than its limit of {limit}"))
                .hint("the plugin has a leak, or asks for `handles` too low in its manifest")
        })
    }

    /// How many more bytes may be moved.
    pub(crate) fn allowance(&self) -> u64 {
        self.gate.budget().left()
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| crate::host::wasi::nothing(&self.gate, &self.context.secrets));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl WasiHttpView for CallState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (ctx, hooks) = self.http.get_or_insert_with(|| {
            let mut ctx = WasiHttpCtx::new();
            ctx.set_field_size_limit(HEADERS);
            (ctx, Requests::new(Arc::clone(&self.gate), Arc::clone(&self.context.secrets)))
        });
        WasiHttpCtxView { ctx, table: &mut self.table, hooks }
    }
}

/// Bounds linear memory and tables over all of a component's instances, and remembers that it refused.
#[derive(Debug)]
pub(crate) struct Memory {
    limits: Limits,
    memory: usize,
    tables: usize,
    pub(crate) refused: bool,
}

impl Memory {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, memory: 0, tables: 0, refused: false }
    }
}

impl wasmtime::ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.memory.saturating_add(desired.saturating_sub(current));
        let allowed = grown <= self.limits.memory;
        if allowed {
            self.memory = grown;
        } else {
            self.refused = true;
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.tables.saturating_add(desired.saturating_sub(current));
        let allowed = grown <= self.limits.table_elements;
        if allowed {
            self.tables = grown;
        } else {
            self.refused = true;
        }
        Ok(allowed)
    }
}

/// How long the guest's own code has computed, in ticks of the epoch.
///
/// The guest notices a tick when it next runs, so a tick that ended a wait in the host says nothing about the guest:
/// only a tick that follows closely on another one is counted.
#[derive(Debug)]
pub(crate) struct GuestClock {
    last: Option<Instant>,
    used: Duration,
    limit: Duration,
}

impl GuestClock {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { last: None, used: Duration::ZERO, limit }
    }

    /// Whether the guest may go on.
    pub(crate) fn tick(&mut self) -> bool {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let passed = now - last;
            if passed < crate::engine::TICK * 4 {
                self.used += passed;
            }
        }
        self.used < self.limit
    }

    pub(crate) fn exhausted(&self) -> bool {
        self.used >= self.limit
    }
}
