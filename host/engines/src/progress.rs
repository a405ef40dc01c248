//! How an installation, an import, an export or a disk in the making tells what it is doing. Drawing it is the caller's affair.

/// What an installation is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Another process installs the same engine.
    Waiting,
    /// Bytes come, and are hashed and unpacked as they come.
    Downloading,
    /// Bytes come from an exported file, and are unpacked and hashed as they come.
    Importing,
    /// Files are read, compared and compressed into an exported file.
    Exporting,
    /// Files are read, compared and written into another store.
    Copying,
    /// Files are read, compared and written to a disk for virtual machines.
    Writing,
    /// Bytes that are here and right are decompressed.
    Unpacking,
    /// All bytes are there and right; permissions, ledger, flush to the disk.
    Finishing,
    /// The engine is asked for its version.
    Checking,
}

impl Phase {
    /// A word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Importing => "importing",
            Self::Exporting => "exporting",
            Self::Copying => "copying",
            Self::Writing => "writing",
            Self::Unpacking => "unpacking",
            Self::Finishing => "finishing",
            Self::Checking => "checking",
        }
    }
}

/// Receives the progress of an installation. Called from several threads, a few hundred times a second at most.
pub trait Progress: Send + Sync {
    /// A phase began.
    fn phase(&self, phase: Phase) {
        let _ = phase;
    }
    /// `done` of `total` bytes are through: of the download, of the file that is imported, of the files that are exported,
    /// copied or written to a disk. `done` falls when a download starts again.
    fn bytes(&self, done: u64, total: u64) {
        let _ = (done, total);
    }
    /// Something worth a line: who is waited for, why it is tried again.
    fn message(&self, message: &str) {
        let _ = message;
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
