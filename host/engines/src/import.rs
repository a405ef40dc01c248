//! Installing an engine from a file that another machine exported.
//!
//! Nothing in the file is believed. It says which entry of `engines.lock` it is for; that entry says how many files and bytes
//! are unpacked at most, and what they must be, before any of them is executable.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::archive::{Head, SUFFIX};
use crate::error::{At, Error, Result};
use crate::extract::{BUFFER, ExtractError, Limits, extract};
use crate::ledger::PackageRecord;
use crate::meter::Meter;
use crate::npmrc::Environment;
use crate::place::{Delivered, Place, Supply};
use crate::platform::Platform;
use crate::progress::{Phase, Progress};
use crate::store::{Inner, InstalledEngine, Store, children};
use crate::writer::write_tree;

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// For which platform, when it is not the store's: for a portable folder. Such an engine is not started.
    pub platform: Option<Platform>,
    /// Ask the engine for its version before it is put in place.
    pub smoke: bool,
    /// The process's environment, for what a program needs to start at all.
    pub environment: Environment,
    /// For the ledger.
    pub pcoder_version: String,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            platform: None,
            smoke: true,
            environment: Environment::default(),
            pcoder_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Store {
    /// Installs what `from` holds: an exported file, or a folder with such files. It needs no network. An engine that is
    /// there and whole is left alone. Of a folder, files for other platforms are passed over.
    ///
    /// The heads of all files are read before the first engine is installed. Two imports at once install once.
    ///
    /// # Errors
    /// It is not an exported engine; an engine or version that `engines.lock` does not name; only for other platforms;
    /// other bytes than `engines.lock` says, or not all of them; it does not run here; the disk fails or is full; cancelled.
    /// Whatever fails, nothing half-installed is left; engines that were imported before stay.
    pub async fn import(
        &self,
        from: &Path,
        options: &ImportOptions,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<Vec<InstalledEngine>> {
        let store = options.platform.map_or_else(|| self.clone(), |platform| self.for_platform(platform));
        let files = store.inner.select(from, progress.as_ref())?;
        let token = cancel.child_token();
        let _ends_it = token.clone().drop_guard();
        let (inner, options) = (store.inner, options.clone());
        // A task of its own, so that a dropped future still ends its threads before it gives up the lock.
        let task = tokio::spawn(async move {
            let mut engines = Vec::new();
            for (path, head) in files {
                let locked = inner.lookup(&head.name, Some(&head.version))?;
                let place = Place {
                    inner: &inner,
                    locked,
                    cancel: &token,
                    force: false,
                    smoke: options.smoke,
                    environment: &options.environment,
                    pcoder_version: &options.pcoder_version,
                };
                let size = fs::metadata(&path).at("read", &path)?.len();
                let import = Import { place, path, size };
                let engine = import.run(&progress).await.map_err(|error| match error {
                    Error::Cancelled { subject } => Error::Stopped { doing: "importing", subject },
                    error => error,
                })?;
                engines.push(engine);
            }
            Ok(engines)
        });
        task.await.map_err(|_| Error::internal("the task that imports ended"))?
    }
}

impl Inner {
    /// The files to import, and what they say that they are.
    fn select(&self, from: &Path, progress: &dyn Progress) -> Result<Vec<(PathBuf, Head)>> {
        let folder = from.is_dir();
        let paths = if folder {
            let names = children(from)?;
            names.iter().filter(|name| name.ends_with(SUFFIX)).map(|name| from.join(name)).collect()
        } else {
            vec![from.to_owned()]
        };
        let mut selected = Vec::new();
        let mut foreign = None;
        for path in paths {
            let head = Head::read(&path)?;
            match self.judge(&path, &head) {
                Ok(()) => selected.push((path, head)),
                Err(error @ Error::ForeignExport { .. }) if folder => {
                    progress.message(&error.to_string());
                    foreign = foreign.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        if selected.is_empty() {
            return Err(foreign.unwrap_or_else(|| Error::NotAnExport {
                path: from.to_owned(),
                detail: format!("there is no file in it whose name ends in `{SUFFIX}`"),
            }));
        }
        Ok(selected)
    }

    /// Is it for an engine that is known, and for this platform?
    fn judge(&self, path: &Path, head: &Head) -> Result<()> {
        let foreign = || Error::ForeignExport {
            path: path.to_owned(),
            subject: head.subject(),
            platform: head.platform.clone(),
            wanted: self.platform.to_string(),
        };
        match self.lookup(&head.name, Some(&head.version)) {
            Ok(locked) if locked.platform == head.platform => Ok(()),
            Ok(_) => Err(foreign()),
            // It may well exist for the platform that the file is for.
            Err(Error::UnsupportedPlatform { .. }) if head.platform != self.platform.name() => Err(foreign()),
            Err(error) => Err(error),
        }
    }
}

struct Import<'a> {
    place: Place<'a>,
    path: PathBuf,
    size: u64,
}

impl Import<'_> {
    async fn run(&self, progress: &Arc<dyn Progress>) -> Result<InstalledEngine> {
        match self.place.whole(progress).await? {
            Some(engine) => Ok(engine),
            None => self.place.put(self, progress.clone()).await,
        }
    }
}

impl Supply for Import<'_> {
    const PHASE: Phase = Phase::Importing;

    fn total(&self) -> u64 {
        self.size
    }

    fn room(&self) -> u64 {
        0
    }

    async fn deliver(&self, tree: &Path, meter: &Arc<Meter>) -> Result<Delivered> {
        let build = self.place.locked.build;
        let limits = Limits { bytes: build.unpacked_size(), files: build.file_count() };
        let file = File::open(&self.path).at("open", &self.path)?;
        let seen = Arc::new(Seen::default());
        let input = Input { file, meter: meter.clone(), cancel: self.place.cancel.clone(), seen: seen.clone() };
        let read = move |sink: &mut _| extract(BufReader::with_capacity(BUFFER, input), limits, sink);
        let (read, files) = write_tree(tree, read).await?;
        match read {
            Ok(()) => {}
            Err(_) if self.place.cancel.is_cancelled() => return Err(self.place.cancelled()),
            Err(ExtractError::Stopped) => return Err(Error::internal("the writer stopped without a reason")),
            Err(ExtractError::Refused(reason)) => {
                if let Some(error) = seen.failed.lock().ok().and_then(|mut failed| failed.take()) {
                    return Err(Error::io("read", &self.path, error));
                }
                let ended = seen.ended.load(Ordering::Relaxed);
                return Err(self.wrong(if ended { format!("the file ends early: {reason}") } else { reason }));
            }
        }
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        if (bytes, files.len() as u64) != (limits.bytes, limits.files) {
            let (count, Limits { bytes: wanted, files: of }) = (files.len(), limits);
            return Err(self.wrong(format!("it has {count} files of {bytes} bytes, the lock says {of} of {wanted}")));
        }
        let packages = build.packages.iter().map(|package| PackageRecord {
            id: package.id(),
            integrity: package.integrity,
            sha256: None,
            size: package.size,
        });
        Ok(Delivered { packages: packages.collect(), files, answer: None })
    }

    fn wrong(&self, detail: String) -> Error {
        Error::WrongExport { path: self.path.clone(), subject: self.place.locked.subject(), detail }
    }
}

/// What happened to the file, which the archive's reader would report as a broken archive.
#[derive(Default)]
struct Seen {
    failed: Mutex<Option<io::Error>>,
    ended: AtomicBool,
}

struct Input {
    file: File,
    meter: Arc<Meter>,
    cancel: CancellationToken,
    seen: Arc<Seen>,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        match self.file.read(buffer) {
            Ok(read) => {
                if read == 0 {
                    self.seen.ended.store(true, Ordering::Relaxed);
                }
                self.meter.add(read as u64);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                if let Ok(mut failed) = self.seen.failed.lock() {
                    *failed = Some(error);
                }
                Err(kind.into())
            }
        }
    }
}
