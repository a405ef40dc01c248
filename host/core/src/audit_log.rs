//! The audit: what plugins did, into the chain, and to a collector where the user names one.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pcoder_audit::otlp::{Exported, Exporter};
use pcoder_audit::{Log, Rotation};
use pcoder_runtime::Error;
use pcoder_runtime::audit::{Record, Sink};
use pcoder_runtime::error::code;

/// Appends records to the log. What cannot be written is no reason not to run, unless a policy says that it is.
pub(crate) struct AuditLog {
    log: Log,
    required: bool,
    /// Why the last record was not kept.
    broken: Mutex<Option<String>>,
    exporter: Mutex<Option<Exporter>>,
}

impl AuditLog {
    pub(crate) fn new(file: PathBuf, lock: PathBuf, required: bool) -> Self {
        let log = Log::open(file, lock, Rotation::default());
        Self { log, required, broken: Mutex::default(), exporter: Mutex::default() }
    }

    /// Sends records to a collector too, from now on. It is called inside of an async runtime.
    pub(crate) fn export_to(&self, endpoint: &str) -> Result<(), Error> {
        let exporter = Exporter::start(endpoint, env!("CARGO_PKG_VERSION")).map_err(|error| from_audit(&error))?;
        *self.exporter.lock().unwrap_or_else(PoisonError::into_inner) = Some(exporter);
        Ok(())
    }

    /// Sends what is left, for at most so long. Nothing where there is no collector.
    pub(crate) async fn finish(&self, deadline: Duration) -> Option<Exported> {
        let exporter = self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(exporter.finish(deadline).await)
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for AuditLog {
    fn record(&self, record: &Record<'_>) {
        let kept = self.log.append(record);
        let exporter = self.exporter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = exporter.as_ref()
            && let Ok(mut value) = serde_json::to_value(record)
        {
            // With its place in the chain, so that the collector's copy proves the file.
            if let (Some(fields), Ok(head)) = (value.as_object_mut(), &kept) {
                fields.insert("seq".into(), head.seq.into());
                fields.insert("hash".into(), head.hash.clone().into());
            }
            exporter.record(&value);
        }
        drop(exporter);
        match kept {
            Ok(_) => *self.broken() = None,
            Err(error) => {
                let mut broken = self.broken();
                // Once is enough for people; `doctor` says the rest.
                if broken.is_none() {
                    tracing::warn!("the audit cannot be written: {error}; {}", error.hint());
                }
                *broken = Some(error.to_string());
            }
        }
    }

    fn ready(&self) -> Result<(), String> {
        match &*self.broken() {
            Some(reason) if self.required => Err(format!("what it does could not be recorded: {reason}")),
            _ => Ok(()),
        }
    }
}

/// An error of the audit, in the one shape.
pub fn from_audit(error: &pcoder_audit::Error) -> Error {
    use pcoder_audit::Error as Audit;
    let code = match error {
        Audit::Newer { .. } => code::UNSUPPORTED,
        Audit::Endpoint { .. } | Audit::Head => code::INVALID,
        Audit::Export { .. } => code::NETWORK,
        Audit::Busy { .. } => code::CONFLICT,
        _ => code::IO,
    };
    let plain = Error::new(code, "audit", error.to_string()).hint(error.hint());
    match error.path() {
        Some(path) => plain.subject(path.display().to_string()),
        None => plain,
    }
}
