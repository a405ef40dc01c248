//! Putting an engine in its place, wherever its files come from: packages, an exported file, another store.
//!
//! Order, under the engine's lock: look again, sweep what the dead left, room on the disk, files (hashed as they are written
//! into a staging folder), the tree's digest, modes, smoke test and flush, ledger, rename. Killed at any moment it leaves
//! either nothing at the engine's place or the whole engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::error::{At, Error, Result, free_space};
use crate::files;
use crate::findings::{Stamps, write_whole};
use crate::install_lock::{InstallLock, Waited};
use crate::ledger::{Facts, FileRecord, Ledger, PackageRecord, TREE};
use crate::lock_file::{Locked, Package};
use crate::meter::Meter;
use crate::npmrc::Environment;
use crate::platform::Platform;
use crate::progress::{Phase, Progress};
use crate::smoke::smoke;
use crate::store::{Condition, Inner, InstalledEngine};
use crate::tree::TreeDigest;

/// Room beside the files themselves: folders, ledger, the file system's own.
const SPARE_ROOM: u64 = 16 * 1024 * 1024;

/// What lies in the staging folder. Nothing of it is executable yet.
pub(crate) struct Delivered {
    pub(crate) packages: Vec<PackageRecord>,
    /// Every file, at its place in the tree.
    pub(crate) files: Vec<FileRecord>,
    /// What it answered where it was asked before, for when it is not asked here.
    pub(crate) answer: Option<String>,
}

/// Where an engine's files come from.
pub(crate) trait Supply: Sync {
    /// What its progress is called.
    const PHASE: Phase;
    /// Bytes that will go through it, for the progress.
    fn total(&self) -> u64;
    /// Room that it needs beside the engine's files.
    fn room(&self) -> u64;
    /// Fills an empty folder.
    fn deliver(&self, tree: &Path, meter: &Arc<Meter>) -> impl Future<Output = Result<Delivered>> + Send;
    /// The error for files that are not the engine's.
    fn wrong(&self, detail: String) -> Error;
}

/// One engine's place in a store.
pub(crate) struct Place<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    pub(crate) locked: Locked<'a>,
    pub(crate) cancel: &'a CancellationToken,
    /// Also when the engine is there and whole.
    pub(crate) force: bool,
    pub(crate) smoke: bool,
    pub(crate) environment: &'a Environment,
    pub(crate) pcoder_version: &'a str,
}

impl Place<'_> {
    /// The engine, when it is there and whole.
    pub(crate) async fn whole(&self, progress: &Arc<dyn Progress>) -> Result<Option<InstalledEngine>> {
        let (inner, progress) = (Arc::clone(self.inner), Arc::clone(progress));
        let (name, version) = (self.locked.name.to_owned(), self.locked.version.to_owned());
        let look = tokio::task::spawn_blocking(move || {
            inner.whole(inner.lookup(&name, Some(&version))?, || progress.phase(Phase::Checking))
        });
        tokio::select! {
            found = look => found.map_err(|_| Error::internal("the thread that looks at an engine ended"))?,
            () = self.cancel.cancelled() => Err(self.cancelled()),
        }
    }

    pub(crate) fn cancelled(&self) -> Error {
        Error::Cancelled { subject: self.locked.subject() }
    }

    /// Where the compressed bytes of a package may be, as far as they came.
    pub(crate) fn part(&self, package: &Package) -> PathBuf {
        let name = format!("{}.{}.part", self.locked.key(), package.integrity.short_hex());
        self.inner.staging().join(name)
    }

    fn remove_parts(&self) {
        for package in &self.locked.build.packages {
            let _ = fs::remove_file(self.part(package));
        }
    }

    /// Waits for the lock, and puts the engine there unless another one did.
    pub(crate) async fn put(&self, supply: &impl Supply, progress: Arc<dyn Progress>) -> Result<InstalledEngine> {
        let (key, subject) = (self.locked.key(), self.locked.subject());
        let installed = || match self.inner.inspect(self.locked)? {
            Condition::Installed(engine) => Ok(Some(engine)),
            _ => Ok(None),
        };
        // What another one installed meanwhile will do, unless it shall be installed again whatever is there.
        let done = || if self.force { Ok(None) } else { installed() };
        let what = ("installing", subject.as_str());
        let waited = InstallLock::wait(&self.inner.locks, &key, what, progress.as_ref(), self.cancel, done).await?;
        let lock = match waited {
            Waited::Done(engine) => return Ok(engine),
            Waited::Lock(lock) => lock,
        };
        // Whoever had the lock may have done it.
        if let Some(engine) = done()? {
            return Ok(engine);
        }
        self.inner.sweep(Some(&key), false)?;
        self.check_room(supply.room())?;
        let meter = Arc::new(Meter::new(progress, supply.total(), format!("installing {subject}"), lock));
        let staging = self.inner.staging();
        fs::create_dir_all(&staging).at("create", &staging)?;
        // Deleted when it is dropped, unless it was renamed away.
        let stage = tempfile::Builder::new().prefix(&format!("{key}.")).tempdir_in(&staging).at("create", &staging)?;
        let engine = self.fill(supply, stage.path(), &meter).await;
        let engine = engine.and_then(|()| self.publish(stage.path()));
        if matches!(engine, Err(Error::DiskFull { .. })) {
            drop(stage);
            self.remove_parts();
        }
        engine?;
        // What a download left that was not needed after all.
        self.remove_parts();
        installed()?.ok_or_else(|| Error::internal(format!("{subject} is not there after it was installed")))
    }

    fn check_room(&self, beside: u64) -> Result<()> {
        let needed = self.locked.build.unpacked_size().saturating_add(beside).saturating_add(SPARE_ROOM);
        match free_space(&self.inner.root) {
            Some(free) if free < needed => {
                Err(Error::DiskFull { path: self.inner.root.clone(), needed: Some(needed), free: Some(free) })
            }
            _ => Ok(()),
        }
    }

    /// Everything up to a staging folder that only has to be renamed.
    async fn fill<S: Supply>(&self, supply: &S, stage: &Path, meter: &Arc<Meter>) -> Result<()> {
        let tree = stage.join(TREE);
        fs::create_dir_all(&tree).at("create", &tree)?;
        meter.phase(S::PHASE);
        let Delivered { packages, files, answer } = supply.deliver(&tree, meter).await?;
        if self.cancel.is_cancelled() {
            return Err(self.cancelled());
        }
        let digest = TreeDigest::of(&files);
        if digest != self.locked.build.tree {
            let wanted = self.locked.build.tree;
            return Err(supply.wrong(format!("its unpacked files are {digest}, not {wanted}")));
        }
        meter.phase(Phase::Finishing);
        files::set_modes(&tree, &files)?;
        meter.phase(Phase::Checking);
        let home = stage.join("home");
        let flush = {
            let (tree, files) = (tree.clone(), files.clone());
            tokio::task::spawn_blocking(move || files::flush(&tree, &files))
        };
        // The disk and the engine work side by side.
        let (flushed, asked) = tokio::join!(flush, self.smoke(&tree, &home));
        flushed.map_err(|_| Error::internal("the thread that flushes ended"))??;
        let smoke = asked?.or(answer);
        files::remove_tree(&home)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let facts = Facts {
            packages,
            files,
            smoke,
            now_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            pcoder_version: self.pcoder_version.to_owned(),
        };
        Ledger::write(stage, self.locked, &facts)?;
        write_whole(stage, Stamps::of(stage, &facts.files));
        Ok(())
    }

    async fn smoke(&self, tree: &Path, home: &Path) -> Result<Option<String>> {
        // Another platform's engine is only stored.
        let foreign = Ok(self.inner.platform) != Platform::detect(Path::new("/")).map_err(drop);
        if !self.smoke || foreign {
            return Ok(None);
        }
        fs::create_dir_all(home).at("create", home)?;
        let program = self.locked.build.entrypoint.below(tree);
        smoke(self.locked, &program, home, self.environment, self.cancel).await
    }

    /// One rename.
    fn publish(&self, stage: &Path) -> Result<()> {
        let folder = self.inner.engine_folder(self.locked);
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        open_to_all(stage)?;
        files::flush_folder(&stage.join(TREE))?;
        files::flush_folder(stage)?;
        // A damaged one makes room.
        files::trash(&folder, &self.inner.trash(), &self.locked.key())?;
        files::rename(stage, &folder)?;
        if let Some(parent) = folder.parent() {
            files::flush_folder(parent)?;
        }
        Ok(())
    }
}

/// A temporary folder is its owner's alone; an engine may be shared.
#[cfg(unix)]
fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).at("change the mode of", folder)
}

#[cfg(not(unix))]
fn open_to_all(_folder: &Path) -> Result<()> {
    Ok(())
}
