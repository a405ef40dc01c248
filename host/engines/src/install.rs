//! Installing an engine from its packages. How it is put in its place is in `place.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::download::{Job, PART_FROM};
use crate::error::{Error, Result};
use crate::http::{Http, Patience};
use crate::ledger::PackageRecord;
use crate::lock_file::Package;
use crate::meter::Meter;
use crate::network::NetworkConfig;
use crate::npmrc::Environment;
use crate::pipeline::Unpacked;
use crate::place::{Delivered, Place, Supply};
use crate::progress::{Phase, Progress};
use crate::store::{Condition, InstalledEngine, Store};
use crate::tree::lay_out;

/// Small packages that are fetched side by side. More gains nothing and takes memory.
const SIDE_BY_SIDE: usize = 4;

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
            let place = Place {
                inner: &inner,
                locked,
                cancel: &token,
                force: options.force,
                smoke: options.smoke,
                environment: &options.environment,
                pcoder_version: &options.pcoder_version,
            };
            Install { place, options: &options }.run(progress).await
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
    place: Place<'a>,
    options: &'a InstallOptions,
}

impl Install<'_> {
    async fn run(&self, progress: Arc<dyn Progress>) -> Result<InstalledEngine> {
        if !self.options.force
            && let Some(engine) = self.place.whole(&progress).await?
        {
            return Ok(engine);
        }
        if let Source::Offline = self.options.source {
            return Err(self.offline());
        }
        self.place.put(self, progress).await
    }

    fn offline(&self) -> Error {
        let locked = self.place.locked;
        let package = locked.build.packages.first();
        let why = match self.place.inner.inspect(locked) {
            Ok(Condition::Damaged(why)) => format!("it is damaged ({why})"),
            _ => "it is not installed".to_owned(),
        };
        Error::Offline {
            package: locked.subject(),
            detail: format!("{why}, and pcoder is told to stay offline"),
            tarball: package.map(Package::tarball).unwrap_or_default(),
        }
    }

    /// All packages, in the order of the lock.
    async fn fetch_all(&self, tree: &Path, meter: &Arc<Meter>) -> Result<Vec<Unpacked>> {
        let packages = &self.place.locked.build.packages;
        let from = match &self.options.source {
            Source::Registry(network) => {
                let agent = format!("pcoder/{}", self.options.pcoder_version);
                let (network, patience, cancel) =
                    (network.clone(), self.options.patience.clone(), self.place.cancel.clone());
                // Reading the system's certificates is work for the disk.
                let http = tokio::task::spawn_blocking(move || Http::new(network, patience, cancel, &agent)).await;
                From::Network(http.map_err(|_| Error::internal("the thread that reads certificates ended"))??)
            }
            Source::File(path) => From::File(path.clone()),
            Source::Offline => return Err(self.offline()),
        };
        let slots = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let mut tasks = JoinSet::new();
        let stop = self.place.cancel.child_token();
        for (index, package) in packages.iter().enumerate() {
            let root = package.at.as_ref().map_or_else(|| tree.to_owned(), |at| at.below(tree));
            let part = (package.size >= PART_FROM).then(|| self.place.part(package));
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
}

impl Supply for Install<'_> {
    const PHASE: Phase = Phase::Downloading;

    fn total(&self) -> u64 {
        self.place.locked.build.download_size()
    }

    fn room(&self) -> u64 {
        let packages = &self.place.locked.build.packages;
        let parts: u64 = match self.options.source {
            Source::Registry(_) => packages.iter().map(|p| p.size).filter(|size| *size >= PART_FROM).sum(),
            _ => 0,
        };
        let there: u64 =
            packages.iter().filter_map(|package| Some(fs::metadata(self.place.part(package)).ok()?.len())).sum();
        parts.saturating_sub(there)
    }

    async fn deliver(&self, tree: &Path, meter: &Arc<Meter>) -> Result<Delivered> {
        let unpacked = self.fetch_all(tree, meter).await?;
        let locked = self.place.locked;
        let mut packages = Vec::new();
        let mut files = Vec::new();
        for (package, unpacked) in locked.build.packages.iter().zip(unpacked) {
            packages.push(PackageRecord {
                id: package.id(),
                integrity: package.integrity,
                sha256: Some(unpacked.sha256),
                size: package.size,
            });
            files.push(unpacked.files);
        }
        Ok(Delivered { packages, files: lay_out(locked.build, locked.runs(), files), answer: None })
    }

    fn wrong(&self, detail: String) -> Error {
        Error::Integrity { package: self.place.locked.subject(), detail }
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
            hint: "give a folder with the tarballs of all of them: `--from FOLDER`".to_owned(),
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
