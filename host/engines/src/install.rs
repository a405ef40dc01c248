//! Installing an engine, from the question whether it is there to the rename that puts it there.
//!
//! Order, under the engine's lock: look again, sweep what the dead left, room on the disk, bytes (hashed and unpacked into a
//! staging folder as they come), modes, smoke test and flush, ledger, rename. Killed at any moment it leaves either nothing
//! at the engine's place or the whole engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::download::{Job, PART_FROM};
use crate::error::{At, Error, Result, free_space};
use crate::files;
use crate::findings::{Stamps, write_whole};
use crate::http::{Http, Patience};
use crate::install_lock::{InstallLock, Waited};
use crate::ledger::{Facts, FileRecord, Ledger, PackageRecord, TREE};
use crate::lock_file::{Locked, Package};
use crate::meter::Meter;
use crate::network::NetworkConfig;
use crate::npmrc::Environment;
use crate::pipeline::Unpacked;
use crate::progress::{Phase, Progress};
use crate::smoke::smoke;
use crate::store::{Condition, Inner, InstalledEngine, Store};

/// Small packages that are fetched side by side. More gains nothing and takes memory.
const SIDE_BY_SIDE: usize = 4;
/// Room beside the files themselves: folders, ledger, the file system's own.
const SPARE_ROOM: u64 = 16 * 1024 * 1024;

/// Where an engine's bytes come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The npm registries.
    Registry(Arc<NetworkConfig>),
    /// Nowhere: what is not installed is an error.
    Offline,
    /// A tarball, or a folder of tarballs, that someone brought. It is checked like a download.
    File(PathBuf),
}

/// How to install.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// Where from.
    pub source: Source,
    /// How patient with the network.
    pub patience: Patience,
    /// Install it again, also when it is there and whole.
    pub force: bool,
    /// Ask the engine for its version before it is put in place.
    pub smoke: bool,
    /// The process's environment, for what a program needs to start at all.
    pub environment: Environment,
    /// For the ledger and the user agent.
    pub pcoder_version: String,
}

impl InstallOptions {
    /// Usual patience, with a smoke test.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            patience: Patience::default(),
            force: false,
            smoke: true,
            environment: Environment::default(),
            pcoder_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Store {
    /// Installs an engine, or finds it there. Two at once, in one process or several, download once.
    ///
    /// An engine that nobody touched since it was known to be whole is found at once. One whose files have other times is
    /// read, and replaced when it is not what was installed.
    ///
    /// Cancelling the token, or dropping the future, ends it; what was downloaded is gone on with the next time.
    ///
    /// # Errors
    /// Every code of [`Error`] but `not-installed`. Whatever fails, nothing half-installed is left that a later call takes for whole.
    pub async fn install(
        &self,
        name: &str,
        version: Option<&str>,
        options: &InstallOptions,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<InstalledEngine> {
        let locked = self.inner.lookup(name, version)?;
        // A task of its own, so that a dropped future still ends its threads before it gives up the lock.
        let token = cancel.child_token();
        let _ends_it = token.clone().drop_guard();
        let (inner, options) = (self.inner.clone(), options.clone());
        let (name, version) = (locked.name.to_owned(), locked.version.to_owned());
        let task = tokio::spawn(async move {
            let locked = inner.lookup(&name, Some(&version))?;
            let install = Install { inner: &inner, locked, options: &options, cancel: &token };
            install.run(progress).await
        });
        let subject = locked.subject();
        task.await.map_err(|_| Error::internal(format!("the task that installs {subject} ended")))?.map_err(|error| {
            match error {
                Error::Cancelled { .. } => Error::Cancelled { subject },
                error => error,
            }
        })
    }
}

struct Install<'a> {
    inner: &'a Arc<Inner>,
    locked: Locked<'a>,
    options: &'a InstallOptions,
    cancel: &'a CancellationToken,
}

impl Install<'_> {
    /// The engine, when it is there and whole.
    async fn whole(&self, progress: &Arc<dyn Progress>) -> Result<Option<InstalledEngine>> {
        let (inner, progress) = (Arc::clone(self.inner), Arc::clone(progress));
        let (name, version) = (self.locked.name.to_owned(), self.locked.version.to_owned());
        let look = tokio::task::spawn_blocking(move || {
            inner.whole(inner.lookup(&name, Some(&version))?, || progress.phase(Phase::Checking))
        });
        tokio::select! {
            found = look => found.map_err(|_| Error::internal("the thread that looks at an engine ended"))?,
            () = self.cancel.cancelled() => Err(Error::Cancelled { subject: self.locked.subject() }),
        }
    }

    async fn run(&self, progress: Arc<dyn Progress>) -> Result<InstalledEngine> {
        if !self.options.force
            && let Some(engine) = self.whole(&progress).await?
        {
            return Ok(engine);
        }
        if let Source::Offline = self.options.source {
            return Err(self.offline());
        }
        let (key, subject) = (self.locked.key(), self.locked.subject());
        let installed = || match self.inner.inspect(self.locked)? {
            Condition::Installed(engine) => Ok(Some(engine)),
            _ => Ok(None),
        };
        // What another one installed meanwhile will do, unless it shall be installed again whatever is there.
        let done = || if self.options.force { Ok(None) } else { installed() };
        let waited = InstallLock::wait(&self.inner.locks, &key, &subject, progress.as_ref(), self.cancel, done).await?;
        let lock = match waited {
            Waited::Done(engine) => return Ok(engine),
            Waited::Lock(lock) => lock,
        };
        // Whoever had the lock may have done it.
        if let Some(engine) = done()? {
            return Ok(engine);
        }
        self.inner.sweep(Some(&key), false)?;
        self.check_room()?;
        let total = self.locked.build.download_size();
        let meter = Arc::new(Meter::new(progress, total, format!("installing {subject}"), lock));
        let staging = self.inner.staging();
        fs::create_dir_all(&staging).at("create", &staging)?;
        // Deleted when it is dropped, unless it was renamed away.
        let stage = tempfile::Builder::new().prefix(&format!("{key}.")).tempdir_in(&staging).at("create", &staging)?;
        let engine = self.fill(stage.path(), &meter).await;
        let engine = engine.and_then(|()| self.publish(stage.path()));
        if matches!(engine, Err(Error::DiskFull { .. })) {
            drop(stage);
            self.remove_parts();
        }
        engine?;
        installed()?.ok_or_else(|| Error::internal(format!("{subject} is not there after it was installed")))
    }

    fn offline(&self) -> Error {
        let package = self.locked.build.packages.first();
        let why = match self.inner.inspect(self.locked) {
            Ok(Condition::Damaged(why)) => format!("it is damaged ({why})"),
            _ => "it is not installed".to_owned(),
        };
        Error::Offline {
            package: self.locked.subject(),
            detail: format!("{why}, and pcoder is told to stay offline"),
            tarball: package.map(Package::tarball).unwrap_or_default(),
        }
    }

    fn part(&self, package: &Package) -> PathBuf {
        let name = format!("{}.{}.part", self.locked.key(), package.integrity.short_hex());
        self.inner.staging().join(name)
    }

    fn remove_parts(&self) {
        for package in &self.locked.build.packages {
            let _ = fs::remove_file(self.part(package));
        }
    }

    fn check_room(&self) -> Result<()> {
        let build = self.locked.build;
        let parts: u64 = match self.options.source {
            Source::Registry(_) => build.packages.iter().map(|p| p.size).filter(|size| *size >= PART_FROM).sum(),
            _ => 0,
        };
        let there: u64 =
            build.packages.iter().filter_map(|package| Some(fs::metadata(self.part(package)).ok()?.len())).sum();
        let needed = build.unpacked_size() + parts.saturating_sub(there) + SPARE_ROOM;
        match free_space(&self.inner.root) {
            Some(free) if free < needed => {
                Err(Error::DiskFull { path: self.inner.root.clone(), needed: Some(needed), free: Some(free) })
            }
            _ => Ok(()),
        }
    }

    /// Everything up to a staging folder that only has to be renamed.
    async fn fill(&self, stage: &Path, meter: &Arc<Meter>) -> Result<()> {
        let tree = stage.join(TREE);
        fs::create_dir_all(&tree).at("create", &tree)?;
        meter.phase(Phase::Downloading);
        let unpacked = self.fetch_all(&tree, meter).await?;
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled { subject: self.locked.subject() });
        }
        meter.phase(Phase::Finishing);
        let (packages, files) = self.records(unpacked);
        files::set_modes(&tree, &files)?;
        meter.phase(Phase::Checking);
        let home = stage.join("home");
        let flush = {
            let (tree, files) = (tree.clone(), files.clone());
            tokio::task::spawn_blocking(move || files::flush(&tree, &files))
        };
        // The disk and the engine work side by side.
        let (flushed, answer) = tokio::join!(flush, self.smoke(&tree, &home));
        flushed.map_err(|_| Error::internal("the thread that flushes ended"))??;
        let smoke = answer?;
        files::remove_tree(&home)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let facts = Facts {
            packages,
            files,
            smoke,
            now_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            pcoder_version: self.options.pcoder_version.clone(),
        };
        Ledger::write(stage, self.locked, &facts)?;
        write_whole(stage, Stamps::of(stage, &facts.files));
        Ok(())
    }

    async fn smoke(&self, tree: &Path, home: &Path) -> Result<Option<String>> {
        // Another platform's engine is only stored.
        let foreign = Ok(self.inner.platform) != crate::platform::Platform::detect(Path::new("/")).map_err(drop);
        if !self.options.smoke || foreign {
            return Ok(None);
        }
        fs::create_dir_all(home).at("create", home)?;
        let program = self.locked.build.entrypoint.below(tree);
        smoke(self.locked, &program, home, &self.options.environment, self.cancel).await
    }

    fn records(&self, unpacked: Vec<Unpacked>) -> (Vec<PackageRecord>, Vec<FileRecord>) {
        let build = self.locked.build;
        let mut packages = Vec::new();
        let mut files = Vec::new();
        for (package, unpacked) in build.packages.iter().zip(unpacked) {
            packages.push(PackageRecord {
                id: package.id(),
                integrity: package.integrity,
                sha256: unpacked.sha256,
                size: package.size,
            });
            files.extend(unpacked.files.into_iter().map(|mut file| {
                file.path = file.path.under(package.at.as_ref());
                file.executable |= file.path == build.entrypoint && self.locked.entry.smoke.is_some();
                file
            }));
        }
        (packages, files)
    }

    /// All packages, in the order of the lock.
    async fn fetch_all(&self, tree: &Path, meter: &Arc<Meter>) -> Result<Vec<Unpacked>> {
        let packages = &self.locked.build.packages;
        let from = match &self.options.source {
            Source::Registry(network) => {
                let agent = format!("pcoder/{}", self.options.pcoder_version);
                let (network, patience, cancel) = (network.clone(), self.options.patience.clone(), self.cancel.clone());
                // Reading the system's certificates is work for the disk.
                let http = tokio::task::spawn_blocking(move || Http::new(network, patience, cancel, &agent)).await;
                From::Network(http.map_err(|_| Error::internal("the thread that reads certificates ended"))??)
            }
            Source::File(path) => From::File(path.clone()),
            Source::Offline => return Err(self.offline()),
        };
        let slots = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let mut tasks = JoinSet::new();
        let stop = self.cancel.child_token();
        for (index, package) in packages.iter().enumerate() {
            let root = package.at.as_ref().map_or_else(|| tree.to_owned(), |at| at.below(tree));
            let part = (package.size >= PART_FROM).then(|| self.part(package));
            let (package, from, meter) = (package.clone(), from.clone(), meter.clone());
            let (slots, stop, single) = (slots.clone(), stop.clone(), packages.len() == 1);
            tasks.spawn(async move {
                let cancelled = || Error::Cancelled { subject: package.id() };
                let _slot = slots.acquire().await.map_err(|_| cancelled())?;
                if stop.is_cancelled() {
                    return Err(cancelled());
                }
                let job = Job { package: &package, root, part, meter: &meter };
                let unpacked = match &from {
                    From::Network(http) => job.download(&http.clone().with_cancel(stop.clone())).await,
                    From::File(path) => job.sideload(&brought(path, &package, single)?, &stop).await,
                };
                unpacked.map(|unpacked| (index, unpacked))
            });
        }
        // The first failure ends the others, and is the one to tell.
        let mut failure = None;
        let mut done = Vec::new();
        while let Some(result) = tasks.join_next().await {
            match result {
                Ok(Ok(one)) => done.push(one),
                Ok(Err(error)) => {
                    stop.cancel();
                    failure = failure.or(Some(error));
                }
                Err(_) => {
                    stop.cancel();
                    failure = failure.or(Some(Error::internal("a task that downloads ended")));
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => {
                done.sort_by_key(|(index, _)| *index);
                Ok(done.into_iter().map(|(_, unpacked)| unpacked).collect())
            }
        }
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

/// Where one package comes from.
#[derive(Clone)]
enum From {
    Network(Http),
    File(PathBuf),
}

/// The tarball that someone brought: the file itself, or in a folder under the name that the registry or `npm pack` gives it.
fn brought(path: &Path, package: &Package, single: bool) -> Result<PathBuf> {
    if !path.is_dir() {
        if single {
            return Ok(path.to_owned());
        }
        return Err(Error::Invalid {
            subject: format!("`{}`", path.display()),
            detail: "this engine is made of many packages, and this is one file".to_owned(),
            hint: "`--from FOLDER` with the tarballs of all of them".to_owned(),
        });
    }
    let registry = format!("{}-{}.tgz", package.base_name(), package.version);
    let packed = format!("{}-{}.tgz", package.name.trim_start_matches('@').replace('/', "-"), package.version);
    [&packed, &registry].iter().map(|name| path.join(name)).find(|path| path.is_file()).ok_or_else(|| Error::Invalid {
        subject: format!("`{}`", path.display()),
        detail: format!("it has neither `{packed}` nor `{registry}`"),
        hint: format!("fetch `<registry>/{}` into it", package.tarball()),
    })
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
