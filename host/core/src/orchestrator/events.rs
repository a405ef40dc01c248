//! What an orchestrator does, told step by step: each step is recorded, and then done.

use std::time::{SystemTime, UNIX_EPOCH};

use pcoder_runtime::Error;
use serde::Serialize;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// An instance is about to be booted.
    BootStarted {
        /// The provider.
        provider: String,
        /// What is booted, where that was said.
        #[serde(skip_serializing_if = "Option::is_none")]
        image: Option<String>,
    },
    /// It is ready to run commands.
    BootReady {
        /// The instance.
        instance: String,
    },
    /// Booting or preparing failed.
    BootFailed {
        /// The instance, where there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Why.
        error: Error,
    },
    /// Credentials are about to be installed.
    CredsInstalling {
        /// The instance.
        instance: String,
        /// Which.
        credentials: String,
    },
    /// They are there.
    CredsInstalled {
        /// The instance.
        instance: String,
        /// Which.
        credentials: String,
    },
    /// The instance has its `.machine.json`.
    MachineInfoWritten {
        /// The instance.
        instance: String,
        /// The file.
        path: String,
    },
    /// A session is about to be started.
    SessionStarting {
        /// The instance.
        instance: String,
        /// The agent.
        tool: String,
    },
    /// It runs.
    SessionStarted {
        /// The instance.
        instance: String,
        /// What the process manager knows it by.
        process: String,
    },
    /// It could not be started.
    SessionError {
        /// The instance.
        instance: String,
        /// Why.
        error: Error,
    },
    /// An instance is about to be ended.
    Terminating {
        /// The instance.
        instance: String,
    },
    /// It is gone.
    Terminated {
        /// The instance.
        instance: String,
    },
}

/// Who is told.
pub trait Events: Send + Sync {
    /// Takes one step down. A step that cannot be recorded is not done.
    ///
    /// # Errors
    /// When it was not recorded.
    fn record(&self, at_ms: u64, event: &Event) -> Result<(), Error>;
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untold;

impl Events for Untold {
    fn record(&self, _at_ms: u64, _event: &Event) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
