//! The audit, as lines of JSON in a file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pcoder_runtime::audit::{Record, Sink};

/// Appends records to a file that is made when there is one. A record is one `write` to a file opened for appending,
/// so that two processes' lines do not mix.
pub(crate) struct AuditLog {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl AuditLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(None) }
    }

    fn open(&self) -> std::io::Result<File> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path)
    }
}

impl Sink for AuditLog {
    fn record(&self, record: &Record<'_>) {
        let Ok(mut line) = serde_json::to_vec(record) else {
            return;
        };
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = self.open().ok();
        }
        // `doctor` says when the audit cannot be written; a run is not lost for it.
        if file.as_mut().is_some_and(|file| file.write_all(&line).is_err()) {
            *file = None;
        }
    }
}
