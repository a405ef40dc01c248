//! Process managers: what keeps processes on an instance.

use std::marker::PhantomData;

use crate::bindings::process_manager::exports::pcoder::plugin::process_manager as contract;
use crate::error::{Error, Result};
use crate::export::begin;
use crate::host::ProcessManagerHost;
use crate::types::{ManagerInfo, ProcessInfo, ProcessLogs, ProcessSpec};

/// What keeps processes on an instance: a plain shell, PM2.
///
/// Every call gets a fresh instance of the plugin, made with [`Default`]. The methods with a body are optional.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
pub trait ProcessManager: Default {
    /// Describes the manager. Does nothing else.
    fn info(&self) -> ManagerInfo;

    /// Starts a process. A manager without the feature `daemon` returns when it has ended.
    fn start(&self, host: ProcessManagerHost<'_>, spec: ProcessSpec) -> Result<ProcessInfo>;

    /// Ends a process and leaves it in the list.
    fn stop(&self, host: ProcessManagerHost<'_>, name: &str) -> Result<()> {
        let _ = host;
        Err(Error::unsupported("process-manager.stop", "this manager cannot stop processes").subject(name))
    }

    /// Takes a process off the list, ending it first. One that is not there is no error.
    fn delete(&self, host: ProcessManagerHost<'_>, name: &str) -> Result<()> {
        let _ = host;
        Err(Error::unsupported("process-manager.delete", "this manager cannot delete processes").subject(name))
    }

    /// Lists the processes.
    fn list(&self, host: ProcessManagerHost<'_>) -> Result<Vec<ProcessInfo>> {
        let _ = host;
        Err(Error::unsupported("process-manager.list", "this manager keeps no list"))
    }

    /// The last `lines` lines of each stream.
    fn logs(&self, host: ProcessManagerHost<'_>, name: &str, lines: u32) -> Result<ProcessLogs> {
        let _ = (host, lines);
        Err(Error::unsupported("process-manager.logs", "this manager keeps no logs").subject(name))
    }
}

/// Connects a [`ProcessManager`] to the contract; [`crate::export!`] uses it.
#[doc(hidden)]
pub struct ProcessManagerExport<M>(PhantomData<M>);

impl<M: ProcessManager + 'static> contract::Guest for ProcessManagerExport<M> {
    fn info() -> ManagerInfo {
        begin();
        M::default().info()
    }

    fn start(spec: ProcessSpec) -> Result<ProcessInfo> {
        begin();
        M::default().start(ProcessManagerHost::real(), spec)
    }

    fn stop(name: String) -> Result<()> {
        begin();
        M::default().stop(ProcessManagerHost::real(), &name)
    }

    fn delete(name: String) -> Result<()> {
        begin();
        M::default().delete(ProcessManagerHost::real(), &name)
    }

    fn list() -> Result<Vec<ProcessInfo>> {
        begin();
        M::default().list(ProcessManagerHost::real())
    }

    fn logs(name: String, lines: u32) -> Result<ProcessLogs> {
        begin();
        M::default().logs(ProcessManagerHost::real(), &name, lines)
    }
}
