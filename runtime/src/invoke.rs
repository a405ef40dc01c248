//! Calls: a fresh instance each, two clocks, and an end to everything that it started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wasmtime::component::{Component, ComponentExportIndex, Resource, ResourceTable};
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::agent::exports::pcoder::plugin::agent as agent_types;
use crate::bindings::credentials::exports::pcoder::plugin::credentials as credentials_types;
use crate::bindings::host::pcoder::plugin::types::{
    CommandSpec, Error as WitError, ExitStatus, Output, ProcessSpec, WriteOptions,
};
use crate::bindings::process_manager::exports::pcoder::plugin::process_manager as process_types;
use crate::bindings::provider::exports::pcoder::plugin::provider as provider_types;
use crate::call::{CallContext, CallState, GuestClock, Memory};
use crate::error::{Error, code};
use crate::gate::Gate;
use crate::host::stdio::Stdio;
use crate::manifest::Kind;
use crate::plugin::{Plugin, Pre};
use crate::process::ProcessTree;

/// What one host call may take out of the guest's memory at once.
const HOSTCALL_FUEL: usize = 16 << 20;

static CALLS: AtomicU64 = AtomicU64::new(0);
/// What this process's calls have in common: who it is, and when it made the first one.
static PROCESS: OnceLock<String> = OnceLock::new();

/// A name that no other call has, in this process or another one on this machine.
pub fn call_name() -> String {
    let process = PROCESS.get_or_init(|| format!("{}-{}-", std::process::id(), crate::audit::now_ms()));
    let number = CALLS.fetch_add(1, Ordering::Relaxed).to_string();
    [process.as_str(), &number].concat()
}

impl Plugin {
    fn store(&self, mut context: CallContext, operation: &'static str) -> Store<CallState> {
        let subject = &self.inner.subject;
        let limits = subject.limits;
        let tree =
            context.tree.take().unwrap_or_else(|| ProcessTree::new(call_name(), Arc::clone(&self.shared.processes)));
        let gate = Gate::new(Arc::clone(subject), Arc::clone(tree.call()), operation, Arc::clone(&self.shared.sink));
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let state = CallState {
            table,
            wasi: None,
            http: None,
            ssh: Vec::new(),
            settings: Arc::clone(&self.inner.settings),
            gate,
            context,
            tree,
            memory: Memory::new(limits),
            clock: GuestClock::new(limits.cpu),
            raw: None,
        };
        let mut store = Store::new(&self.shared.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            if context.data_mut().clock.tick() {
                // Yields to the executor too, so that the deadline and the cancellation are looked at.
                Ok(UpdateDeadline::Yield(1))
            } else {
                Err(wasmtime::Error::msg("the limit of computing time"))
            }
        });
        store
    }

    /// Runs one call to its end, its deadline or its cancellation, whichever comes first, and ends what it started.
    async fn finish<T>(
        &self,
        operation: &'static str,
        mut store: Store<CallState>,
        call: impl AsyncFnOnce(&mut Store<CallState>) -> wasmtime::Result<Result<T, WitError>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let ticking = self.shared.ticker.call();
        let (gate, tree) = (Arc::clone(&store.data().gate), Arc::clone(&store.data().tree));
        let cancel = store.data_mut().context.cancel.take();
        let wall = store.data().context.deadline.unwrap_or(Some(self.inner.subject.limits.wall));
        let result = {
            let work = call(&mut store);
            let cancelled = async {
                match &cancel {
                    Some(cancel) => cancel.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            let deadline = async {
                match wall {
                    Some(wall) => tokio::time::sleep(wall).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                result = work => Some(result),
                () = cancelled => None,
                () = deadline => Some(Ok(Err(WitError::from(timed_out(operation, wall))))),
            }
        };
        let result = match result {
            None => Err(Error::new(code::CANCELLED, operation, "it was stopped")),
            Some(Ok(Ok(value))) => Ok(value),
            Some(Ok(Err(error))) => Err(self.shown(&store, error.into())),
            Some(Err(trap)) => Err(self.trapped(operation, &store, &trap)),
        };
        // Dropping the store ends host work that is under way; ending the tree ends what it had started.
        drop(store);
        tree.end();
        drop(ticking);
        // Counted when the store is gone: it may have held a last line that nothing had ended.
        let dropped = gate.lines().dropped();
        if dropped > 0 {
            tracing::warn!(
                target: "pcoder::plugin",
                plugin = self.inner.subject.identity.plugin.as_str(),
                "{dropped} further log lines were dropped: the limit is {} a call",
                self.inner.subject.limits.log_lines,
            );
        }
        let outcome = result.as_ref().map_or_else(|error| error.code.clone(), |_| std::borrow::Cow::Borrowed("ok"));
        gate.call_ended(outcome, started);
        result
    }

    /// An error of the plugin's own making, without any secret that it may have come across.
    fn shown(&self, store: &Store<CallState>, error: Error) -> Error {
        let secrets = &store.data().context.secrets;
        let mut clean =
            Error::new(error.code.clone(), error.operation.clone(), secrets.redact_text(error.message.clone()));
        if let Some(subject) = &error.subject {
            clean = clean.subject(secrets.redact_text(subject.clone()));
        }
        if let Some(hint) = &error.hint {
            clean = clean.hint(secrets.redact_text(hint.clone()));
        }
        if let Some(wait) = error.retry_after_ms {
            clean = clean.retry_after(Duration::from_millis(wait));
        }
        clean
    }

    fn trapped(&self, operation: &'static str, store: &Store<CallState>, trap: &wasmtime::Error) -> Error {
        let name = &self.inner.subject.identity.plugin;
        let limits = &self.inner.subject.limits;
        let state = store.data();
        if state.clock.exhausted() {
            return Error::new(
                code::LIMIT,
                operation,
                format!("plugin `{name}` computed for longer than its limit of {} s", limits.cpu.as_secs()),
            )
            .hint("the plugin loops, or asks for `cpu-seconds` too low in its manifest");
        }
        if state.memory.refused {
            return Error::new(
                code::LIMIT,
                operation,
                format!("plugin `{name}` needs more memory than its limit of {} MiB", limits.memory >> 20),
            )
            .hint("the plugin has a leak, or asks for `memory-mib` too low in its manifest");
        }
        if matches!(trap.downcast_ref(), Some(wasmtime::component::ResourceTableError::Full)) {
            return Error::new(
                code::LIMIT,
                operation,
                format!("plugin `{name}` opened more handles than its limit of {}", limits.handles),
            )
            .hint("the plugin has a leak, or asks for `handles` too low in its manifest");
        }
        // Wasmtime has no type for this one.
        if format!("{trap:#}").contains("fuel allocated for hostcalls has been exhausted") {
            return Error::new(
                code::LIMIT,
                operation,
                format!("plugin `{name}` gave more than {} MiB in one value", HOSTCALL_FUEL >> 20),
            )
            .hint("this is a defect of the plugin; its author needs the command that you ran");
        }
        let reason = match (trap.downcast_ref::<wasmtime::Trap>(), trap.downcast_ref::<wasmtime_wasi::I32Exit>()) {
            (Some(trap), _) => trap.to_string(),
            (None, Some(exit)) => format!("it ended itself with the exit code {}", exit.0),
            (None, None) => format!("{trap:#}"),
        };
        tracing::debug!(target: "pcoder::plugin", plugin = name.as_str(), "trap: {trap:?}");
        Error::new(code::INTERNAL, operation, format!("plugin `{name}` crashed: {reason}"))
            .hint("this is a defect of the plugin; its author needs the command that you ran")
    }

    fn wrong_kind(&self, wanted: &str) -> Error {
        Error::new(
            code::INVALID,
            "plugin.call",
            format!(
                "plugin `{}` is of kind {}, not {wanted}",
                self.inner.subject.identity.plugin, self.inner.manifest.kind
            ),
        )
    }
}

fn timed_out(operation: &'static str, wall: Option<Duration>) -> Error {
    Error::new(code::TIMEOUT, operation, format!("it did not end within {} s", wall.unwrap_or_default().as_secs()))
        .hint("try again; if it needs longer, the plugin asks for `wall-seconds` too low in its manifest")
}

/// Where in a component the functions of its kind are. They are looked up when it is loaded; of a fresh instance, only
/// the one that is called is looked at.
pub(crate) struct Exports(Vec<(&'static str, ComponentExportIndex)>);

impl Exports {
    pub(crate) fn of(component: &Component, kind: Kind) -> Self {
        let (interface, operations) = match kind {
            Kind::Provider => ("pcoder:plugin/provider@0.1.0", Provider::OPERATIONS),
            Kind::ProcessManager => ("pcoder:plugin/process-manager@0.1.0", ProcessManager::OPERATIONS),
            Kind::Agent => ("pcoder:plugin/agent@0.1.0", Agent::OPERATIONS),
            Kind::Credentials => ("pcoder:plugin/credentials@0.1.0", Credentials::OPERATIONS),
        };
        let interface = component.get_export_index(None, interface);
        let function = |operation: &&'static str| {
            let (_, name) = operation.split_once('.')?;
            Some((*operation, component.get_export_index(Some(interface.as_ref()?), name)?))
        };
        Self(operations.iter().filter_map(function).collect())
    }

    /// That it exports them all was checked when it was linked.
    fn get(&self, operation: &'static str) -> wasmtime::Result<&ComponentExportIndex> {
        self.0
            .iter()
            .find_map(|(name, index)| (*name == operation).then_some(index))
            .ok_or_else(|| wasmtime::Error::msg(format!("it does not export `{operation}`")))
    }
}

/// Writes the typed face of one kind: a method for each function of its interface.
macro_rules! calls {
    (
        $(#[$doc:meta])* $face:ident, $enter:ident, $variant:ident, $kind:literal $(, and $other:literal)?;
        $( $(#[$fdoc:meta])* $name:ident = $operation:literal => ( $($arg:ident : $type:ty),* ) -> $mode:ident $ret:ty; )*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $face<'a>(&'a Plugin);

        impl Plugin {
            /// This plugin as one of its kind.
            ///
            /// # Errors
            /// `invalid` when it is of another kind.
            pub fn $enter(&self) -> Result<$face<'_>, Error> {
                match &self.inner.pre {
                    Pre::$variant(_) => Ok($face(self)),
                    _ => Err(self.wrong_kind($kind)),
                }
            }
        }

        impl $face<'_> {
            /// The functions of this kind, named as the audit names them.
            const OPERATIONS: &'static [&'static str] = &[$($operation,)* $($other)?];

            $(
                $(#[$fdoc])*
                ///
                /// # Errors
                /// What the plugin answers, `denied`, and what a call itself can end with: `limit`, `timeout`,
                /// `cancelled`, `internal`.
                #[allow(clippy::too_many_arguments)]
                pub async fn $name(&self, context: CallContext, $($arg: $type),*) -> Result<$ret, Error> {
                    let Pre::$variant(pre) = &self.0.inner.pre else { return Err(self.0.wrong_kind($kind)) };
                    let store = self.0.store(context, $operation);
                    self.0
                        .finish($operation, store, async |store| {
                            let instance = pre.instance_pre().instantiate_async(&mut *store).await?;
                            let export = self.0.inner.exports.get($operation)?;
                            let function =
                                instance.get_typed_func::<($($type,)*), calls!(@type $mode $ret)>(&mut *store, export)?;
                            let (result,) = function.call_async(&mut *store, ($($arg,)*)).await?;
                            calls!(@result $mode result)
                        })
                        .await
                }
            )*
        }
    };
    (@type plain $ret:ty) => { ($ret,) };
    (@type fallible $ret:ty) => { (Result<$ret, WitError>,) };
    (@result plain $result:ident) => { Ok(Ok($result)) };
    (@result fallible $result:ident) => { Ok($result) };
}

calls! {
    /// A provider's functions.
    Provider, provider, Provider, "provider", and "provider.exec";
    /// Describes the provider.
    info = "provider.info" => () -> plain provider_types::ProviderInfo;
    /// Starts an instance and returns once it is ready.
    boot = "provider.boot" => (options: &provider_types::BootOptions) -> fallible provider_types::Instance;
    /// Describes an instance.
    get = "provider.get" => (id: &str) -> fallible provider_types::Instance;
    /// Lists instances.
    list = "provider.list" => () -> fallible Vec<provider_types::Instance>;
    /// Halts an instance.
    stop = "provider.stop" => (id: &str) -> fallible ();
    /// Continues an instance.
    resume = "provider.resume" => (id: &str) -> fallible provider_types::Instance;
    /// Ends an instance.
    terminate = "provider.terminate" => (id: &str) -> fallible ();
    /// Copies an instance.
    fork = "provider.fork" => (id: &str) -> fallible provider_types::Instance;
    /// Reads a file.
    read_file = "provider.read-file" => (id: &str, path: &str) -> fallible Vec<u8>;
    /// Writes a file in place.
    write_file = "provider.write-file" => (id: &str, path: &str, content: &[u8], options: WriteOptions) -> fallible ();
    /// Writes a file whole.
    write_file_atomic = "provider.write-file-atomic" => (id: &str, path: &str, content: &[u8], options: WriteOptions) -> fallible ();
    /// Looks for a file or a folder.
    file_exists = "provider.file-exists" => (id: &str, path: &str) -> fallible bool;
    /// Creates a folder.
    create_directory = "provider.create-directory" => (id: &str, path: &str, mode: Option<u32>) -> fallible ();
    /// Removes a file.
    delete_file = "provider.delete-file" => (id: &str, path: &str) -> fallible ();
    /// Removes a folder.
    delete_directory = "provider.delete-directory" => (id: &str, path: &str) -> fallible ();
    /// Makes a port reachable.
    expose = "provider.expose" => (id: &str, port: u16) -> fallible String;
}

impl Provider<'_> {
    /// Runs a command with these streams, to its end.
    ///
    /// # Errors
    /// As every call's.
    pub async fn exec(
        &self,
        context: CallContext,
        id: &str,
        spec: &CommandSpec,
        stdio: Stdio,
    ) -> Result<ExitStatus, Error> {
        const OPERATION: &str = "provider.exec";
        let Pre::Provider(pre) = &self.0.inner.pre else {
            return Err(self.0.wrong_kind("provider"));
        };
        let mut store = self.0.store(context, OPERATION);
        let stdio: Resource<Stdio> = store
            .data_mut()
            .table
            .push(stdio)
            .map_err(|error| Error::new(code::INTERNAL, OPERATION, error.to_string()))?;
        self.0
            .finish(OPERATION, store, async |store| {
                let instance = pre.instance_pre().instantiate_async(&mut *store).await?;
                let export = self.0.inner.exports.get(OPERATION)?;
                let function = instance
                    .get_typed_func::<(&str, &CommandSpec, Resource<Stdio>), (Result<ExitStatus, WitError>,)>(
                        &mut *store,
                        export,
                    )?;
                let (result,) = function.call_async(&mut *store, (id, spec, stdio)).await?;
                Ok(result)
            })
            .await
    }
}

calls! {
    /// A process manager's functions.
    ProcessManager, process_manager, ProcessManager, "process-manager";
    /// Describes the manager.
    info = "process-manager.info" => () -> plain process_types::ManagerInfo;
    /// Starts a process.
    start = "process-manager.start" => (spec: &ProcessSpec) -> fallible process_types::ProcessInfo;
    /// Ends a process.
    stop = "process-manager.stop" => (name: &str) -> fallible ();
    /// Takes a process off the list.
    delete = "process-manager.delete" => (name: &str) -> fallible ();
    /// Lists processes.
    list = "process-manager.list" => () -> fallible Vec<process_types::ProcessInfo>;
    /// The last lines of a process's output.
    logs = "process-manager.logs" => (name: &str, lines: u32) -> fallible process_types::ProcessLogs;
}

calls! {
    /// An agent's functions.
    Agent, agent, Agent, "agent";
    /// Describes the agent.
    info = "agent.info" => () -> plain agent_types::AgentInfo;
    /// The agent's own command line.
    command = "agent.command" => (launch: &agent_types::Launch) -> fallible CommandSpec;
    /// One unattended session.
    to_process_spec = "agent.to-process-spec" => (input: &agent_types::SessionInput) -> fallible ProcessSpec;
    /// The command that speaks ACP.
    acp = "agent.acp" => (launch: &agent_types::Launch) -> fallible CommandSpec;
    /// The command whose answer `auth_status` reads.
    auth_status_command = "agent.auth-status-command" => (launch: &agent_types::Launch) -> fallible CommandSpec;
    /// Reads that answer.
    auth_status = "agent.auth-status" => (output: &Output) -> fallible agent_types::AuthState;
    /// The command that logs its user in.
    login_command = "agent.login-command" => (launch: &agent_types::Launch) -> fallible CommandSpec;
    /// The command that forgets the login.
    logout_command = "agent.logout-command" => (launch: &agent_types::Launch) -> fallible CommandSpec;
}

calls! {
    /// A credentials installer's functions.
    Credentials, credentials, Credentials, "credentials";
    /// Lists what can be installed.
    profiles = "credentials.profiles" => () -> plain Vec<credentials_types::Profile>;
    /// Installs one.
    install = "credentials.install" => (profile: &str) -> fallible ();
}
