//! Engines as a disk for virtual machines: one read-only file that every machine mounts, made once.
//!
//! It is made of installed engines of the machines' platform, whatever this one's is, and every byte is compared with
//! `engines.lock` on its way. Its name is a digest of what is on it, so that another set of engines is another disk and
//! the same one is not made twice.
//!
//! ```text
//! FOLDER/PLATFORM-DIGEST.squashfs        whole, or not there
//! FOLDER/PLATFORM-DIGEST.json            what it was when it was made, see `stamp`
//! FOLDER/.PLATFORM-DIGEST.XXXXXX.part    being written
//! LOCKS/engine-disk@PLATFORM-DIGEST.lock exclusive to make or remove it, shared until somebody who keeps it is known
//! ```
//!
//! A machine that is not running keeps a disk too, and nobody here knows machines. So nothing is deleted but by
//! [`Disks::prune`], whose caller says which ones are used.

mod image;
mod stamp;

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::image::Image;
use self::stamp::Stamp;
use crate::error::{At, Error, Result, free_space};
use crate::files;
use crate::install_lock::{Hold, InstallLock, Waited};
use crate::lock_file::EnginesLock;
use crate::progress::{Phase, Progress};
use crate::store::{Store, children};

/// What a disk looks like inside. Another one has other names.
const FORMAT: u32 = 1;
const HEAD: &str = "pcoder-engines-disk";
const DISK: &str = "squashfs";
const STAMP: &str = "json";
const PART: &str = ".part";
/// What making one is called.
const MAKING: &str = "making the disk with";
/// Room beside the files themselves.
const SPARE_ROOM: u64 = 16 * 1024 * 1024;
/// How often a disk may be removed by others between its making and its use.
const TRIES: u32 = 3;

/// The folder of disks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Disks {
    folder: PathBuf,
    locks: PathBuf,
}

/// A disk that is whole. While this lives, nobody removes it.
#[derive(Debug)]
pub struct EnginesDisk {
    /// The file's name in the folder.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// What is on it, by name.
    pub engines: Vec<DiskEngine>,
    /// Its length.
    pub bytes: u64,
    _hold: Hold,
}

/// An engine on a disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskEngine {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What [`Disks::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisksPruned {
    /// Deleted, by the file's name.
    pub removed: Vec<String>,
    /// In use, and left alone.
    pub in_use: Vec<String>,
    /// Bytes of the files that were deleted.
    pub freed_bytes: u64,
}

impl Disks {
    /// The disks in `folder`, which is created when one is made.
    pub fn new(folder: PathBuf, locks: PathBuf) -> Self {
        Self { folder, locks }
    }

    /// The disk with these engines (names and versions; none is the default one) of the store's platform, if it is there
    /// and whole as far as length and time say.
    ///
    /// # Errors
    /// There is no such engine or version, or not for this platform; the same engine in two versions; the disk cannot be
    /// read.
    pub fn find(&self, store: &Store, engines: &[(&str, Option<&str>)]) -> Result<Option<EnginesDisk>> {
        self.held(&Plan::of(store, engines)?)
    }

    /// The same, and where it is not there or not whole it is made: of engines that are installed.
    ///
    /// Two at once, in one process or several, make it once. Killed at any moment it leaves either no disk or the whole
    /// one.
    ///
    /// # Errors
    /// As [`find`](Self::find); `not-installed`, and `integrity` for an engine that is not what it should be; the disk is
    /// full or fails; cancelled.
    pub async fn make(
        &self,
        store: &Store,
        engines: &[(&str, Option<&str>)],
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<EnginesDisk> {
        let plan = Plan::of(store, engines)?;
        let token = cancel.child_token();
        let _ends_it = token.clone().drop_guard();
        for _ in 0..TRIES {
            if let Some(disk) = self.held(&plan)? {
                return Ok(disk);
            }
            let (key, subject) = (plan.key(), plan.subject());
            let done = || Ok(self.is_whole(&plan).then_some(()));
            let wait = InstallLock::wait(&self.locks, &key, (MAKING, &subject), progress.as_ref(), &token, done);
            let lock = match wait.await {
                Ok(Waited::Done(())) => continue,
                Ok(Waited::Lock(lock)) => lock,
                Err(Error::Cancelled { .. }) => return Err(plan.stopped()),
                Err(error) => return Err(error),
            };
            let (disks, store, plan) = (self.clone(), store.clone(), plan.clone());
            let (progress, cancel) = (Arc::clone(&progress), token.clone());
            let task = tokio::task::spawn_blocking(move || {
                let lock = RefCell::new(lock);
                disks.put(&store, &plan, &Making { lock, progress: progress.as_ref(), cancel: &cancel })
            });
            task.await.map_err(|_| Error::internal("the thread that makes a disk ended"))??;
        }
        Err(Error::Locked {
            subject: plan.subject(),
            holder: "somebody who removes its disk again and again".to_owned(),
        })
    }

    /// Removes every disk that is not in `used` (by the file's name), is not in use, and holds something else than the
    /// default versions of `lock`; and what those left that died while they made one.
    ///
    /// # Errors
    /// The disk fails.
    pub fn prune(&self, lock: &EnginesLock, used: &[String]) -> Result<DisksPruned> {
        let mut pruned = DisksPruned::default();
        for name in children(&self.folder)? {
            let path = self.folder.join(&name);
            let part = name.strip_prefix('.').filter(|it| it.ends_with(PART)).and_then(|it| it.split('.').next());
            let disk = name.strip_suffix(DISK).and_then(|it| it.strip_suffix('.'));
            let Some(stem) = part.or(disk) else { continue };
            let keep = || {
                let stamp = Stamp::read(&self.stamp(stem));
                used.contains(&name) || stamp.is_some_and(|it| it.engines.iter().all(|it| it.is_default(lock)))
            };
            if part.is_none() && keep() {
                continue;
            }
            let Some(_lock) = InstallLock::try_take(&self.locks, &key(stem), "removing")? else {
                pruned.in_use.extend(disk.map(|_| name.clone()));
                continue;
            };
            pruned.freed_bytes += fs::symlink_metadata(&path).map_or(0, |it| it.len());
            remove(&path)?;
            if disk.is_some() {
                remove(&self.stamp(stem))?;
                pruned.removed.push(name);
            }
        }
        Ok(pruned)
    }

    fn file(&self, stem: &str) -> PathBuf {
        self.folder.join(format!("{stem}.{DISK}"))
    }

    fn stamp(&self, stem: &str) -> PathBuf {
        self.folder.join(format!("{stem}.{STAMP}"))
    }

    fn is_whole(&self, plan: &Plan) -> bool {
        Stamp::read(&self.stamp(&plan.stem)).is_some_and(|it| it.fits(&self.file(&plan.stem)))
    }

    fn held(&self, plan: &Plan) -> Result<Option<EnginesDisk>> {
        // First the look: asking for a disk that is not there should leave nothing behind.
        if !self.is_whole(plan) {
            return Ok(None);
        }
        let hold = match Hold::take(&self.locks, &plan.key(), &plan.subject()) {
            Ok(hold) => hold,
            Err(Error::Locked { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (file, stamp) = (self.file(&plan.stem), Stamp::read(&self.stamp(&plan.stem)));
        let Some(stamp) = stamp.filter(|it| it.fits(&file)) else { return Ok(None) };
        Ok(Some(EnginesDisk {
            name: format!("{}.{DISK}", plan.stem),
            file,
            engines: plan.engines.clone(),
            bytes: stamp.size,
            _hold: hold,
        }))
    }

    /// Makes it, or finds that the one that is there is whole after all.
    fn put(&self, store: &Store, plan: &Plan, making: &Making<'_>) -> Result<()> {
        let (file, stamp) = (self.file(&plan.stem), self.stamp(&plan.stem));
        // A folder that was copied has other times, and the same bytes.
        if let Some(known) = Stamp::read(&stamp) {
            if known.fits(&file) {
                return Ok(());
            }
            making.progress.phase(Phase::Checking);
            if let Some(now) = known.again(&file, making.cancel)? {
                return now.write(&stamp);
            }
        }
        if making.cancel.is_cancelled() {
            return Err(plan.stopped());
        }
        let image = Image::of(store, plan)?;
        fs::create_dir_all(&self.folder).at("create", &self.folder)?;
        let prefix = format!(".{}.", plan.stem);
        for name in children(&self.folder)?.iter().filter(|it| it.starts_with(&prefix) && it.ends_with(PART)) {
            // Whoever wrote it had this lock, and died.
            remove(&self.folder.join(name))?;
        }
        let needed = image.bytes().saturating_add(SPARE_ROOM);
        if let Some(free) = free_space(&self.folder).filter(|it| *it < needed) {
            return Err(Error::DiskFull { path: self.folder.clone(), needed: Some(needed), free: Some(free) });
        }
        // Deleted when it is dropped, unless it was renamed.
        let part = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(PART)
            .tempfile_in(&self.folder)
            .at("create", &self.folder)?;
        making.progress.phase(Phase::Writing);
        image.write(part.as_file(), part.path(), plan, making)?;
        making.progress.phase(Phase::Finishing);
        let path = part.path().to_owned();
        let made = Stamp::of(part.as_file(), plan.engines.clone()).at("read", &path)?;
        part.as_file().sync_all().at("flush", &path)?;
        // First the stamp, which fits no other file: a disk without one would be made again.
        made.write(&stamp)?;
        part.persist(&file).map_err(|error| error.error).at("move into place", &file)?;
        files::flush_folder(&self.folder)
    }
}

/// Somebody who makes a disk.
struct Making<'a> {
    lock: RefCell<InstallLock>,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
}

/// A disk that is wanted.
#[derive(Debug, Clone)]
struct Plan {
    engines: Vec<DiskEngine>,
    /// Its file's name without the ending.
    stem: String,
}

impl Plan {
    fn of(store: &Store, wanted: &[(&str, Option<&str>)]) -> Result<Self> {
        let locked = wanted.iter().map(|(name, version)| store.inner.lookup(name, *version));
        let mut locked = locked.collect::<Result<Vec<_>>>()?;
        locked.sort_by_key(|it| (it.name, it.version));
        locked.dedup_by_key(|it| (it.name, it.version));
        if let Some(twice) =
            locked.windows(2).find_map(|it| matches!(it, [a, b] if a.name == b.name).then(|| it[0].name))
        {
            return Err(Error::Invalid {
                subject: twice.to_owned(),
                detail: "it is wanted in two versions, and a disk has one of each engine".to_owned(),
                hint: "name one version".to_owned(),
            });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{HEAD} {FORMAT}\n").as_bytes());
        for it in &locked {
            let build = it.build;
            let path = build.path.iter().map(|it| format!(" {it}")).collect::<String>();
            let line =
                format!("{} {} {} {} {}{path}\n", it.name, it.version, it.platform, build.tree, build.entrypoint);
            hasher.update(line.as_bytes());
        }
        let digest = hasher.finalize().to_hex();
        let engine =
            |it: &crate::lock_file::Locked<'_>| DiskEngine { name: it.name.to_owned(), version: it.version.to_owned() };
        Ok(Self {
            engines: locked.iter().map(engine).collect(),
            stem: format!("{}-{}", store.platform(), digest.get(..32).unwrap_or(&digest)),
        })
    }

    fn key(&self) -> String {
        key(&self.stem)
    }

    /// For messages.
    fn subject(&self) -> String {
        let all: Vec<String> = self.engines.iter().map(|it| format!("{} {}", it.name, it.version)).collect();
        all.join(", ")
    }

    fn stopped(&self) -> Error {
        Error::Stopped { doing: MAKING, subject: self.subject() }
    }
}

impl DiskEngine {
    fn is_default(&self, lock: &EnginesLock) -> bool {
        lock.engines.get(&self.name).is_some_and(|it| it.default == self.version)
    }
}

/// The name of a disk's lock.
fn key(stem: &str) -> String {
    format!("engine-disk@{stem}")
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}
