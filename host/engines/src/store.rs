//! The store's folders, and everything that needs no network: find, list, hold, remove, prune.
//!
//! ```text
//! ROOT/engines/NAME/VERSION-PLATFORM/{ledger.json, files.json, package/…}
//! ROOT/staging/NAME@VERSION@PLATFORM.XXXXXX/   being installed; becomes the folder above by one rename
//! ROOT/staging/NAME@VERSION@PLATFORM.HASH.part  compressed bytes so far
//! ROOT/trash/…                                  being deleted
//! LOCKS/NAME@VERSION@PLATFORM.lock              LOCKS is ROOT/locks unless told otherwise
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{At, Error, Result};
use crate::files;
use crate::findings;
use crate::install_lock::{Hold, InstallLock};
use crate::ledger::{Ledger, TREE};
use crate::lock_file::{Builds, EnginesLock, Locked};
use crate::platform::Platform;

/// The engine store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) locks: PathBuf,
    pub(crate) lock: EnginesLock,
    pub(crate) platform: Platform,
    /// The machine's own.
    pub(crate) own: Platform,
}

/// An engine that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledEngine {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The platform that it is for, or `any`.
    pub platform: String,
    /// The folder with its files.
    pub root: PathBuf,
    /// What is started: a program, or for an adapter a script for Node.
    pub entrypoint: PathBuf,
    /// Folders that go first on its `PATH`.
    pub path_entries: Vec<PathBuf>,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// When it was downloaded.
    pub downloaded_at_unix_ms: u64,
    /// What it answered when it was asked for its version.
    pub reported_version: Option<String>,
}

/// How an engine stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// It is there.
    Installed(InstalledEngine),
    /// It is not.
    Missing,
    /// Something is there, and not whole: installing replaces it.
    Damaged(String),
    /// There is no such engine for this platform.
    Unsupported(String),
    /// It is there, and not in this program's `engines.lock`: `prune` deletes it.
    Superseded,
}

/// A line of [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStatus {
    /// The engine.
    pub name: String,
    /// The version.
    pub version: String,
    /// It is the version that is meant when none is named.
    pub default: bool,
    /// How it stands.
    pub condition: Condition,
    /// Bytes to download.
    pub download_bytes: u64,
    /// Bytes when unpacked.
    pub unpacked_bytes: u64,
}

/// What [`Store::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Deleted, as `name version-platform`.
    pub removed: Vec<String>,
    /// In use, and left alone.
    pub in_use: Vec<String>,
    /// Bytes of the files that were deleted.
    pub freed_bytes: u64,
}

impl Store {
    /// A store in `root`, which is created when something is installed.
    pub fn new(root: PathBuf, lock: EnginesLock, platform: Platform) -> Self {
        let locks = root.join("locks");
        Self { inner: Arc::new(Inner { root, locks, lock, platform, own: platform }) }
    }

    /// The same store with its locks elsewhere, for a file system that has none.
    #[must_use]
    pub fn with_locks(self, locks: PathBuf) -> Self {
        let inner = &self.inner;
        Self {
            inner: Arc::new(Inner {
                root: inner.root.clone(),
                locks,
                lock: inner.lock.clone(),
                platform: inner.platform,
                own: inner.own,
            }),
        }
    }

    /// The same store for the engines of another platform: what a portable folder carries for other machines.
    #[must_use]
    pub fn for_platform(&self, platform: Platform) -> Self {
        let inner = &self.inner;
        let (root, locks, lock) = (inner.root.clone(), inner.locks.clone(), inner.lock.clone());
        Self { inner: Arc::new(Inner { root, locks, lock, platform, own: inner.own }) }
    }

    /// The lock file that it works by.
    pub fn lock(&self) -> &EnginesLock {
        &self.inner.lock
    }

    /// The command that installs an engine, in backticks as every hint has it.
    ///
    /// # Errors
    /// There is no such engine or version, or not for this platform.
    pub fn install_hint(&self, name: &str, version: Option<&str>) -> Result<String> {
        Ok(self.inner.lookup(name, version)?.install_hint())
    }

    /// The platform that it installs for.
    pub fn platform(&self) -> Platform {
        self.inner.platform
    }

    /// The engine, if it is installed. A look at its ledger and its files' sizes, under a millisecond.
    ///
    /// # Errors
    /// There is no such engine or version, or not for this platform; the disk cannot be read.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Option<InstalledEngine>> {
        let locked = self.inner.lookup(name, version)?;
        match self.inner.inspect(locked)? {
            Condition::Installed(engine) => Ok(Some(engine)),
            _ => Ok(None),
        }
    }

    /// The engine, or an error that says how to install it.
    ///
    /// # Errors
    /// As [`find`](Self::find), `not-installed`, and `integrity` for one that is damaged.
    pub fn require(&self, name: &str, version: Option<&str>) -> Result<InstalledEngine> {
        let locked = self.inner.lookup(name, version)?;
        match self.inner.inspect(locked)? {
            Condition::Installed(engine) => Ok(engine),
            Condition::Damaged(why) => Err(locked.damaged(why)),
            _ => Err(locked.not_installed()),
        }
    }

    /// The engine, and a guard: while it lives, no process removes or replaces the engine.
    ///
    /// # Errors
    /// As [`require`](Self::require); it is being installed or removed right now.
    pub fn hold(&self, name: &str, version: Option<&str>) -> Result<(InstalledEngine, Hold)> {
        let locked = self.inner.lookup(name, version)?;
        // First the look: asking for an engine that is not there should leave nothing behind.
        self.require(name, version)?;
        let hold = Hold::take(&self.inner.locks, &locked.key(), &locked.subject())?;
        Ok((self.require(name, version)?, hold))
    }

    /// Every engine and version of the lock file, then what else is in the store.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn list(&self) -> Result<Vec<EngineStatus>> {
        let mut all = Vec::new();
        for (name, engine) in &self.inner.lock.engines {
            for version in engine.versions.keys() {
                let default = *version == engine.default;
                let (condition, download_bytes, unpacked_bytes) = match self.inner.lookup(name, Some(version)) {
                    Ok(locked) => {
                        (self.inner.inspect(locked)?, locked.build.download_size(), locked.build.unpacked_size())
                    }
                    Err(error) => (Condition::Unsupported(error.to_string()), 0, 0),
                };
                let (name, version) = (name.clone(), version.clone());
                all.push(EngineStatus { name, version, default, condition, download_bytes, unpacked_bytes });
            }
        }
        for found in self.inner.folders()? {
            if !self.inner.knows(&found) {
                all.push(EngineStatus {
                    name: found.name,
                    version: found.folder,
                    default: false,
                    condition: Condition::Superseded,
                    download_bytes: 0,
                    unpacked_bytes: tree_size(&found.path),
                });
            }
        }
        Ok(all)
    }

    /// Removes one version. True when there was one.
    ///
    /// # Errors
    /// There is no such engine; it runs or is being installed; the disk fails.
    pub fn remove(&self, name: &str, version: Option<&str>) -> Result<bool> {
        let locked = self.inner.lookup(name, version)?;
        let folder = self.inner.engine_folder(locked);
        if !exists(&folder)? {
            return Ok(false);
        }
        let _lock = InstallLock::take_now(&self.inner.locks, &locked.key(), &locked.subject(), "removing")?;
        files::trash(&folder, &self.inner.trash(), &locked.key())?;
        Ok(true)
    }

    /// Removes every version that is neither a default one nor in `keep` (names and versions), and is not in use;
    /// and what dead installations left.
    ///
    /// # Errors
    /// The disk fails.
    pub fn prune(&self, keep: &[(&str, &str)]) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for found in self.inner.folders()? {
            let wanted = self.inner.lock.engines.get(&found.name).is_some_and(|engine| {
                self.inner.knows(&found)
                    && (found.version == engine.default
                        || keep.iter().any(|(name, version)| *name == found.name && *version == found.version))
            });
            if wanted {
                continue;
            }
            let label = format!("{} {}", found.name, found.folder);
            let key = format!("{}@{}@{}", found.name, found.version, found.platform);
            match InstallLock::try_take(&self.inner.locks, &key, "removing")? {
                Some(_lock) => {
                    let bytes = tree_size(&found.path);
                    files::trash(&found.path, &self.inner.trash(), &key)?;
                    pruned.freed_bytes += bytes;
                    pruned.removed.push(label);
                }
                None => pruned.in_use.push(label),
            }
        }
        self.inner.sweep(None, true)?;
        Ok(pruned)
    }
}

/// A folder below `engines/`.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) platform: &'static str,
    pub(crate) folder: String,
    pub(crate) path: PathBuf,
}

impl Inner {
    pub(crate) fn lookup(&self, name: &str, version: Option<&str>) -> Result<Locked<'_>> {
        let locked = self.lock.lookup(name, version, self.platform)?;
        Ok(Locked { foreign: (self.platform != self.own).then_some(self.platform), ..locked })
    }

    pub(crate) fn engines(&self) -> PathBuf {
        self.root.join("engines")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn engine_folder(&self, locked: Locked<'_>) -> PathBuf {
        self.engines().join(locked.name).join(locked.folder())
    }

    /// The quick check.
    pub(crate) fn inspect(&self, locked: Locked<'_>) -> Result<Condition> {
        let folder = self.engine_folder(locked);
        let ledger = match Ledger::read(&folder) {
            Ok(Some(ledger)) => ledger,
            Ok(None) if exists(&folder)? => {
                return Ok(Condition::Damaged("it has no ledger".to_owned()));
            }
            Ok(None) => return Ok(Condition::Missing),
            Err(error @ Error::Invalid { .. }) => return Ok(Condition::Damaged(error.to_string())),
            Err(error) => return Err(error),
        };
        if !ledger.matches(locked) {
            return Ok(Condition::Damaged("it is not what engines.lock says".to_owned()));
        }
        if let Some(reason) = ledger.quick_check(&folder).or_else(|| findings::damaged(&folder)) {
            return Ok(Condition::Damaged(reason));
        }
        let tree = folder.join(TREE);
        Ok(Condition::Installed(InstalledEngine {
            name: ledger.name,
            version: ledger.version,
            platform: ledger.platform,
            entrypoint: ledger.entrypoint.below(&tree),
            path_entries: ledger.path.iter().map(|path| path.below(&tree)).collect(),
            root: tree,
            size_bytes: ledger.size,
            downloaded_at_unix_ms: ledger.downloaded_at_unix_ms,
            reported_version: ledger.smoke,
        }))
    }

    /// The engine, when it is whole: at once where sizes and times say that nothing was changed since it was known to
    /// be, and otherwise after reading all of it, which `reading` is told before.
    pub(crate) fn whole(&self, locked: Locked<'_>, reading: impl FnOnce()) -> Result<Option<InstalledEngine>> {
        let Condition::Installed(engine) = self.inspect(locked)? else {
            return Ok(None);
        };
        let folder = self.engine_folder(locked);
        if let Ok(Some(ledger)) = Ledger::read(&folder)
            && findings::untouched(&folder, &ledger, locked)
        {
            return Ok(Some(engine));
        }
        reading();
        let report = match Hold::take(&self.locks, &locked.key(), &locked.subject()) {
            Ok(_hold) => self.compare(locked),
            // Somebody replaces it right now: what will be there is for who waits for them.
            Err(Error::Locked { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match report {
            Ok(report) if report.problems.is_empty() => Ok(Some(engine)),
            Ok(_) | Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every folder below `engines/` that has the form of an engine's.
    pub(crate) fn folders(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for name in children(&self.engines())? {
            let path = self.engines().join(&name);
            for folder in children(&path)? {
                if let Some((version, platform)) = split_folder(&folder) {
                    let (version, path) = (version.to_owned(), path.join(&folder));
                    found.push(Found { name: name.clone(), version, platform, folder, path });
                }
            }
        }
        Ok(found)
    }

    /// Is it one that this program's lock file names, for whatever platform? A stick serves several.
    fn knows(&self, found: &Found) -> bool {
        let entry = self.lock.engines.get(&found.name).and_then(|engine| engine.versions.get(&found.version));
        entry.is_some_and(|entry| match &entry.builds {
            Builds::Any(_) => found.platform == "any",
            Builds::Platforms(builds) => builds.keys().any(|platform| platform.name() == found.platform),
        })
    }
}

/// `0.1.0-linux-x64-musl` is `0.1.0` and `linux-x64-musl`.
fn split_folder(folder: &str) -> Option<(&str, &'static str)> {
    Platform::ALL
        .into_iter()
        .map(Platform::name)
        .chain(["any"])
        .filter_map(|platform| Some((folder.strip_suffix(platform)?.strip_suffix('-')?, platform)))
        .find(|(version, _)| !version.is_empty())
}

/// Names in a folder, sorted; none where there is no folder.
pub(crate) fn children(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("read", folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.at("read", folder)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// From the ledger where there is one.
fn tree_size(folder: &Path) -> u64 {
    if let Ok(Some(ledger)) = Ledger::read(folder) {
        return ledger.size;
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => tree_size(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_say_version_and_platform() {
        assert_eq!(split_folder("0.3.316-linux-x64"), Some(("0.3.316", "linux-x64")));
        assert_eq!(split_folder("0.3.316-linux-x64-musl"), Some(("0.3.316", "linux-x64-musl")));
        assert_eq!(split_folder("1.0.0-beta-any"), Some(("1.0.0-beta", "any")));
        for other in ["", "-any", "any", "1.0.0", "notes.txt"] {
            assert_eq!(split_folder(other), None, "{other}");
        }
    }
}
