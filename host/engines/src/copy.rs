//! Copying an installed engine into another store: what a portable folder is filled with.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::error::{At, Error, Result};
use crate::extract::{BUFFER, Sink, Stop};
use crate::findings::write_damaged;
use crate::install_lock::Hold;
use crate::ledger::{FileRecord, Ledger, TREE};
use crate::lock_file::Locked;
use crate::meter::Meter;
use crate::npmrc::Environment;
use crate::place::{Delivered, Place, Supply};
use crate::progress::{Phase, Progress};
use crate::store::{Inner, InstalledEngine, Store};
use crate::writer::write_tree;

impl Store {
    /// Copies an engine that is installed here into another store. Every byte is compared with the other store's
    /// `engines.lock` on the way. One that is there and whole is left alone, and then it need not be here.
    ///
    /// The other store takes it for this store's platform. It is not started: that this machine could run it says nothing
    /// of the one that the other store is for.
    ///
    /// # Errors
    /// As [`require`](Self::require); the engine is not whole here, and is marked as damaged; it is being installed right now;
    /// both are the same store; the disk fails or is full; cancelled. Whatever fails, nothing half-copied is left.
    pub async fn copy_to(
        &self,
        name: &str,
        version: Option<&str>,
        other: &Store,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<InstalledEngine> {
        let other = other.for_platform(self.inner.platform);
        let locked = self.inner.lookup(name, version)?;
        let (name, version) = (locked.name.to_owned(), locked.version.to_owned());
        let token = cancel.child_token();
        let _ends_it = token.clone().drop_guard();
        let inner = self.inner.clone();
        // A task of its own, so that a dropped future still ends its threads before it gives up the lock.
        let task = tokio::spawn(async move {
            let from = inner.lookup(&name, Some(&version))?;
            let place = Place {
                inner: &other.inner,
                locked: other.inner.lookup(&name, Some(&version))?,
                cancel: &token,
                force: false,
                smoke: false,
                environment: &Environment::default(),
                pcoder_version: env!("CARGO_PKG_VERSION"),
            };
            if let Some(engine) = place.whole(&progress).await? {
                return Ok(engine);
            }
            Store { inner: inner.clone() }.require(&name, Some(&version))?;
            same_store(&inner, &other.inner)?;
            let _hold = Hold::take(&inner.locks, &from.key(), &from.subject())?;
            let (ledger, files) = inner.listed(from)?;
            inner.check_names(from, &files)?;
            Copy { place: &place, inner: &inner, from, ledger, files }.run(progress).await
        });
        task.await.map_err(|_| Error::internal("the task that copies an engine ended"))?.map_err(|error| match error {
            Error::Cancelled { subject } => Error::Stopped { doing: "copying", subject },
            error => error,
        })
    }
}

/// One would wait for the other's lock for ever.
fn same_store(from: &Inner, to: &Inner) -> Result<()> {
    let same =
        |a: &Path, b: &Path| a == b || fs::canonicalize(a).ok().is_some_and(|a| fs::canonicalize(b).ok() == Some(a));
    if same(&from.root, &to.root) || same(&from.locks, &to.locks) {
        return Err(Error::Invalid {
            subject: format!("`{}`", to.root.display()),
            detail: "an engine cannot be copied into the store that it is in".to_owned(),
            hint: "name another folder, with locks of its own".to_owned(),
        });
    }
    Ok(())
}

struct Copy<'a> {
    place: &'a Place<'a>,
    inner: &'a Inner,
    from: Locked<'a>,
    ledger: Ledger,
    files: Vec<FileRecord>,
}

impl Copy<'_> {
    async fn run(&self, progress: Arc<dyn Progress>) -> Result<InstalledEngine> {
        self.place.put(self, progress).await
    }

    fn changed(&self, path: &str) -> Error {
        write_damaged(&self.inner.engine_folder(self.from), 1);
        self.from.damaged(format!("`{path}` was changed"))
    }
}

impl Supply for Copy<'_> {
    const PHASE: Phase = Phase::Copying;

    fn total(&self) -> u64 {
        self.place.locked.build.unpacked_size()
    }

    fn room(&self) -> u64 {
        0
    }

    async fn deliver(&self, tree: &Path, meter: &Arc<Meter>) -> Result<Delivered> {
        let source = self.inner.engine_folder(self.from).join(TREE);
        let (files, meter, cancel) = (self.files.clone(), meter.clone(), self.place.cancel.clone());
        let read = move |sink: &mut _| {
            // An adapter has thousands of small files, which nobody wants to be told of one by one.
            let mut untold = 0;
            for file in &files {
                read_file(&source, file, sink, &cancel, |bytes| {
                    untold += bytes;
                    if untold >= BUFFER as u64 {
                        meter.add(std::mem::take(&mut untold));
                    }
                })?;
            }
            meter.add(untold);
            Ok(())
        };
        let (read, written) = write_tree(tree, read).await?;
        match read {
            Ok(()) => {}
            Err(Failure::Cancelled) => return Err(self.place.cancelled()),
            Err(Failure::Changed(path)) => return Err(self.changed(&path)),
            Err(Failure::Disk(error)) => return Err(error),
            Err(Failure::Stopped) => return Err(Error::internal("the writer stopped without a reason")),
        }
        // Before the digest, which could not say which one it is.
        if let Some((file, _)) = self.files.iter().zip(&written).find(|(file, written)| file != written) {
            return Err(self.changed(file.path.as_str()));
        }
        Ok(Delivered { packages: self.ledger.packages.clone(), files: written, answer: self.ledger.smoke.clone() })
    }

    fn wrong(&self, detail: String) -> Error {
        self.from.damaged(detail)
    }
}

enum Failure {
    Cancelled,
    Changed(String),
    Disk(Error),
    Stopped,
}

impl From<Stop> for Failure {
    fn from(_: Stop) -> Self {
        Self::Stopped
    }
}

/// Exactly as many bytes as the record says, into the sink.
fn read_file(
    tree: &Path,
    record: &FileRecord,
    sink: &mut impl Sink,
    cancel: &CancellationToken,
    mut tell: impl FnMut(u64),
) -> Result<(), Failure> {
    if cancel.is_cancelled() {
        return Err(Failure::Cancelled);
    }
    let path = record.path.below(tree);
    let mut file = File::open(&path).at("open", &path).map_err(Failure::Disk)?;
    sink.file(record.path.clone(), record.size, record.executable)?;
    let mut left = record.size;
    while left > 0 {
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let mut buffer = sink.buffer()?;
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match buffer.get_mut(..want).map_or(Ok(0), |buffer| file.read(buffer)) {
            Ok(0) => return Err(Failure::Changed(record.path.to_string())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(Failure::Disk(Error::io("read", &path, error))),
        };
        left -= read as u64;
        sink.data(buffer, read)?;
        tell(read as u64);
    }
    sink.end()?;
    Ok(())
}
