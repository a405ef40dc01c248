//! Making a portable folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pcoder_engines::{Condition, EnginesLock, Phase, Progress, Store};
use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Capabilities;
use pcoder_state::Lock;
use tokio_util::sync::CancellationToken;

use super::files::{Writer, copy_tree, io_error, stopped, tree_size};
use super::manifest::{BundledEngine, BundledFile, Manifest};
use super::place::{Place, There};
use super::share::Share;
use super::{LICENCE_APACHE, LICENCE_MIT, LICENCES_OF_ENGINES, MANIFEST, WRAPPER, WRAPPER_WINDOWS};
use crate::errors::{from_engines, from_state};
use crate::grants::{Entry, PluginsLock};
use crate::layout::{PORTABLE_MARKER, PORTABLE_PROGRAMS, PORTABLE_STATE, absolute};
use crate::{Layout, Pcoder};

const OPERATION: &str = "bundle.export";
/// Room beside the files themselves: folders, lists, the file system's own.
const SPARE_ROOM: u64 = 32 << 20;
/// What an update makes anew in `state`, or what is worth nothing to anybody. Everything else there is its user's.
const NOT_KEPT: [&str; 8] = ["engines", "staging", "trash", "locks", "cache", "tmp", "components", "plugins.lock"];

/// Which engines go along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnginesWanted {
    /// Every default one that is installed.
    Installed,
    /// These, in their default versions.
    Named(Vec<String>),
    /// None.
    None,
}

/// What goes into a portable folder.
#[derive(Clone)]
pub struct BundleExport {
    /// The engines.
    pub engines: EnginesWanted,
    /// The user's profiles. They name secrets and hold none.
    pub profiles: bool,
    /// The user's settings.
    pub settings: bool,
    /// Put it in the place of a bundle that is there, and keep what was written there.
    pub update: bool,
    /// The list of what the program is made of, with licences.
    pub third_party: &'static str,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
    /// Ends it.
    pub cancel: CancellationToken,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct BundleExported {
    /// The folder.
    pub folder: PathBuf,
    /// What it is made of.
    pub manifest: Manifest,
    /// The bytes of everything that was put into it.
    pub bytes: u64,
    /// The plugins that were added, by name.
    pub plugins: Vec<String>,
    /// Those of them that were granted programs or folders of this machine, which another one does not have: they are
    /// to be granted again there.
    pub narrowed: Vec<String>,
    /// The default engines that are not installed here and so are not in it.
    pub without: Vec<String>,
    /// A bundle that was there was updated.
    pub updated: bool,
}

/// Everything that will be copied, known before anything is.
struct Plan {
    program: File,
    program_size: u64,
    engines: Vec<BundledEngine>,
    without: Vec<String>,
    plugins: PluginsLock,
    narrowed: Vec<String>,
    components: Vec<(String, u64)>,
    own: Vec<PathBuf>,
    /// Of an update: below the old `state`.
    kept: Vec<PathBuf>,
}

impl Pcoder {
    /// Makes a portable folder of this program, its engines and its plugins. It is made beside its place and moved
    /// there when it is whole: whatever fails, and whatever is killed, the place is as it was.
    ///
    /// Logins, the audit and plugins' own files stay where they are.
    ///
    /// # Errors
    /// `already-exists` where something else is; `not-found` for an engine that is not installed; `conflict` for a
    /// bundle that is in use; `io`, also where there is no room; `cancelled`.
    pub async fn export_bundle(&self, folder: &Path, what: &BundleExport) -> Result<BundleExported, Error> {
        let place = Place::look(&absolute(&self.surroundings().cwd, folder))?;
        let in_use = self.check_place(&place, what)?;
        let store = self.store()?;
        let plan = self.plan(&store, &place, what)?;
        let engines: u64 = plan.engines.iter().map(|engine| engine.bytes).sum();
        let components: u64 = plan.components.iter().map(|(_, size)| size).sum();
        let total = engines + components + plan.program_size;
        let user: u64 = plan.own.iter().chain(&plan.kept).map(|path| tree_size(path)).sum();
        check_room(place.folder(), total + user + SPARE_ROOM)?;

        let making = place.begin()?;
        what.progress.phase(Phase::Copying);
        let copied = self.copy_engines(&store, making.path(), &plan.engines, total, what).await?;
        let share = Share::new(Arc::clone(&what.progress), copied, total);
        let mut writer = Writer::new(making.path(), &what.cancel, &share);
        self.write_files(&mut writer, &store, &plan, what)?;
        self.write_plugins(&mut writer, making.path(), &plan)?;
        let (written, mut files) = writer.finish();
        let state = making.path().join(PORTABLE_STATE);
        fs::create_dir_all(&state).map_err(|error| io_error(&state, &error))?;
        for path in plan.own.iter().chain(&plan.kept) {
            copy_tree(path, &state.join(path.file_name().unwrap_or_default()), &what.cancel)?;
        }
        files.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        let manifest = self.write_manifest(making.path(), &store, plan.engines, files)?;
        if what.cancel.is_cancelled() {
            return Err(stopped());
        }
        drop(in_use);
        making.publish(&place)?;
        Ok(BundleExported {
            folder: place.folder().to_path_buf(),
            manifest,
            bytes: copied + written + user,
            plugins: plan.plugins.plugins.iter().map(|entry| entry.name.clone()).collect(),
            narrowed: plan.narrowed,
            without: plan.without,
            updated: place.there == There::Bundle,
        })
    }

    /// Whether a bundle may be put there. The locks of the one that is there are held from now on, so that nothing is
    /// started in it; where one is held by somebody else, the bundle is in use.
    fn check_place(&self, place: &Place, what: &BundleExport) -> Result<Vec<Lock>, Error> {
        if place.there != There::Bundle {
            return Ok(Vec::new());
        }
        let shown = place.folder().display().to_string();
        if !what.update {
            return Err(Error::new(code::ALREADY_EXISTS, OPERATION, "there is a bundle already")
                .subject(&shown)
                .hint("`pcoder bundle export DIR --update` replaces its programs and keeps what was written there"));
        }
        let same = |own: &Path| fs::canonicalize(own).ok() == fs::canonicalize(place.folder()).ok();
        if self.layout().portable_folder().is_some_and(same) {
            return Err(Error::new(
                code::INVALID,
                OPERATION,
                "this is the bundle that runs, and it cannot replace itself",
            )
            .subject(&shown)
            .hint("update it with another pcoder: `pcoder bundle export DIR --update`"));
        }
        let layout = Layout::of_portable(place.folder(), self.surroundings())?;
        let entries = match fs::read_dir(&layout.locks) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| io_error(&layout.locks, &error))?,
        };
        let mut locks = Vec::new();
        for path in entries.flatten().map(|it| it.path()).filter(|it| it.extension().is_some_and(|it| it == "lock")) {
            let lock = Lock::try_take(&path).map_err(|error| from_state(OPERATION, &error))?;
            locks.push(lock.ok_or_else(|| {
                Error::new(code::CONFLICT, OPERATION, "the bundle is in use")
                    .subject(&shown)
                    .hint("end what runs from it, and try again")
            })?);
        }
        Ok(locks)
    }

    fn plan(&self, store: &Store, place: &Place, what: &BundleExport) -> Result<Plan, Error> {
        let (program, program_size) = self.program()?;
        let (engines, without) = engines_of(store, &what.engines)?;
        let (plugins, narrowed) = portable_plugins(self.plugins_lock()?);
        let mut components = Vec::new();
        for entry in plugins.plugins.iter().filter(|entry| !entry.is_built_in()) {
            // Its bytes are compared with what was granted here, and again when they are copied.
            let size = self.component_of(entry)?.len() as u64;
            components.push((entry.sha256.clone(), size));
        }
        components.sort();
        components.dedup();
        let mut own = Vec::new();
        for (wanted, path) in [(what.profiles, self.layout().profiles()), (what.settings, self.layout().settings())] {
            if wanted && path.exists() {
                own.push(path);
            }
        }
        let mut kept = Vec::new();
        if place.there == There::Bundle {
            let state = place.folder().join(PORTABLE_STATE);
            let taken = |name: &std::ffi::OsStr| {
                NOT_KEPT.iter().any(|it| name == *it) || own.iter().any(|it| it.file_name() == Some(name))
            };
            match fs::read_dir(&state) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                entries => {
                    for entry in entries.map_err(|error| io_error(&state, &error))? {
                        let entry = entry.map_err(|error| io_error(&state, &error))?;
                        if !taken(&entry.file_name()) {
                            kept.push(entry.path());
                        }
                    }
                }
            }
        }
        Ok(Plan { program, program_size, engines, without, plugins, narrowed, components, own, kept })
    }

    /// This program's own file, open: whatever replaces it meanwhile, the bytes are of one version.
    fn program(&self) -> Result<(File, u64), Error> {
        let path = self.surroundings().executable.as_deref().ok_or_else(|| {
            Error::new(code::NOT_FOUND, OPERATION, "the system does not say where this program is")
                .hint("start it by its path")
        })?;
        let failed = |error: std::io::Error| {
            io_error(path, &error).hint("this program's own file cannot be read: start the one that is installed now")
        };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok((file, size))
    }

    async fn copy_engines(
        &self,
        store: &Store,
        root: &Path,
        engines: &[BundledEngine],
        total: u64,
        what: &BundleExport,
    ) -> Result<u64, Error> {
        if engines.is_empty() {
            return Ok(0);
        }
        // Nobody else knows the new folder, and its file system may have no locks.
        let locks = self
            .temporary_folder("pcoder-bundle-")
            .map_err(|error| Error::io(OPERATION, "a temporary folder", &error))?;
        let state = root.join(PORTABLE_STATE);
        let lock = EnginesLock::embedded().map_err(|error| from_engines(&error))?;
        let target = Store::new(state.clone(), lock, store.platform()).with_locks(locks.path().to_path_buf());
        let mut done = 0;
        for engine in engines {
            let share = Arc::new(Share::new(Arc::clone(&what.progress), done, total));
            store
                .copy_to(&engine.name, Some(&engine.version), &target, share, what.cancel.clone())
                .await
                .map_err(|error| from_engines(&error))?;
            done += engine.bytes;
        }
        for left in ["staging", "trash"] {
            drop(fs::remove_dir_all(state.join(left)));
        }
        Ok(done)
    }

    fn write_files(
        &self,
        writer: &mut Writer<'_>,
        store: &Store,
        plan: &Plan,
        what: &BundleExport,
    ) -> Result<(), Error> {
        let platform = store.platform();
        let ending = if platform.is_windows() { ".exe" } else { "" };
        writer.put(&format!("{PORTABLE_PROGRAMS}/{platform}/pcoder{ending}"), &plan.program, true)?;
        writer.put("pcoder", WRAPPER.as_bytes(), true)?;
        // Windows reads labels wrongly where lines end as elsewhere.
        writer.put("pcoder.cmd", WRAPPER_WINDOWS.replace('\n', "\r\n").as_bytes(), true)?;
        writer.put(PORTABLE_MARKER, "pcoder writes into this folder and nowhere else.\n".as_bytes(), false)?;
        writer.put("licences/LICENSE-MIT", LICENCE_MIT.as_bytes(), false)?;
        writer.put("licences/LICENSE-APACHE", LICENCE_APACHE.as_bytes(), false)?;
        writer.put("licences/THIRD-PARTY.txt", what.third_party.as_bytes(), false)?;
        writer.put("licences/ENGINES.txt", licences_of(store).as_bytes(), false)
    }

    fn write_plugins(&self, writer: &mut Writer<'_>, root: &Path, plan: &Plan) -> Result<(), Error> {
        for (sha256, _) in &plan.components {
            let path = self.layout().component(sha256);
            let file = File::open(&path).map_err(|error| io_error(&path, &error))?;
            let copied = writer.put_state(&format!("{PORTABLE_STATE}/components/{sha256}.wasm"), file)?;
            if copied != *sha256 {
                return Err(Error::new(code::INTEGRITY, OPERATION, "a plugin changed while it was copied")
                    .subject(path.display().to_string())
                    .hint("`pcoder plugin list` shows which one; add it again"));
            }
        }
        if plan.plugins == PluginsLock::default() {
            return Ok(());
        }
        let locks = self
            .temporary_folder("pcoder-bundle-")
            .map_err(|error| Error::io(OPERATION, "a temporary folder", &error))?;
        pcoder_state::File::<PluginsLock>::new(root.join(PORTABLE_STATE).join("plugins.lock"), locks.path())
            .update(|lock| {
                *lock = plan.plugins.clone();
                Ok(())
            })
            .map_err(|error| from_state(OPERATION, &error))
    }

    fn write_manifest(
        &self,
        root: &Path,
        store: &Store,
        engines: Vec<BundledEngine>,
        files: Vec<BundledFile>,
    ) -> Result<Manifest, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let manifest = Manifest::new(env!("CARGO_PKG_VERSION"), store.platform(), now, engines, files);
        // Not named by itself, so nobody needs its digest.
        let (cancel, nobody) = (CancellationToken::new(), pcoder_engines::Silent);
        Writer::new(root, &cancel, &nobody).put(MANIFEST, manifest.to_text()?.as_bytes(), false)?;
        Ok(manifest)
    }
}

/// The engines that go along, and the default ones that do not because they are not installed.
fn engines_of(store: &Store, wanted: &EnginesWanted) -> Result<(Vec<BundledEngine>, Vec<String>), Error> {
    let described = |name: &str| {
        let locked = store.lock().lookup(name, None, store.platform()).map_err(|error| from_engines(&error))?;
        let installed = store.require(name, None).map_err(|error| from_engines(&error))?;
        Ok::<_, Error>(BundledEngine {
            name: installed.name,
            version: installed.version,
            bytes: installed.size_bytes,
            tree: locked.build.tree.to_string(),
        })
    };
    let (mut engines, mut without) = (Vec::new(), Vec::new());
    match wanted {
        EnginesWanted::None => {}
        EnginesWanted::Named(names) => {
            for name in names {
                engines.push(described(name)?);
            }
        }
        EnginesWanted::Installed => {
            for engine in store.list().map_err(|error| from_engines(&error))?.into_iter().filter(|it| it.default) {
                match engine.condition {
                    Condition::Installed(_) => engines.push(described(&engine.name)?),
                    // One that was wanted and is broken is not left out silently: the store says what mends it.
                    Condition::Damaged(_) => drop(described(&engine.name)?),
                    _ => without.push(engine.name),
                }
            }
        }
    }
    engines.sort();
    engines.dedup();
    Ok((engines, without))
}

/// The plugins as they go to other machines. Folders, and programs by their paths, are this machine's: somewhere else
/// the same path is something else, to which nobody agreed.
fn portable_plugins(lock: PluginsLock) -> (PluginsLock, Vec<String>) {
    let mut narrowed = Vec::new();
    let plugins = lock
        .plugins
        .into_iter()
        .map(|entry| {
            let mut granted: Capabilities = entry.granted.clone().into();
            let before = granted.exec.len() + granted.service.len();
            granted.exec.retain(|exec| !names_a_path(&exec.program));
            granted.service.retain(|service| !names_a_path(&service.program));
            if granted.exec.len() + granted.service.len() != before || !entry.roots.is_empty() {
                narrowed.push(entry.name.clone());
            }
            Entry { roots: Default::default(), granted: granted.into(), ..entry }
        })
        .collect();
    (PluginsLock { plugins }, narrowed)
}

fn names_a_path(program: &str) -> bool {
    program.contains(['/', '\\'])
}

fn licences_of(store: &Store) -> String {
    let mut text = LICENCES_OF_ENGINES.to_owned();
    for (name, engine) in &store.lock().engines {
        text += &format!("{name:<18} {:<10} {}\n", engine.default, engine.licence);
    }
    text
}

fn check_room(folder: &Path, needed: u64) -> Result<(), Error> {
    match pcoder_engines::free_space(folder) {
        Some(free) if free < needed => {
            let mb = |bytes: u64| bytes.div_ceil(1_000_000);
            let message = format!("there is not enough room: {} MB needed, {} MB free", mb(needed), mb(free));
            Err(Error::new(code::IO, OPERATION, message)
                .subject(folder.display().to_string())
                .hint("free some space there, or leave engines out with `--engine NAME` or `--no-engines`"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_this_machines_is_not_granted_on_another() {
        let text = "version = 1\n[[plugin]]\nname = \"provider-box\"\nkind = \"provider\"\nversion = \"1.0.0\"\n\
                    sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n\
                    source = \"box.wasm\"\nadded-unix-ms = 1\n[plugin.roots]\ndata = \"/srv/data\"\n\
                    [[plugin.granted.exec]]\nprogram = \"/usr/bin/git\"\nargs = [\"status\"]\nreason = \"x\"\n\
                    [[plugin.granted.net]]\nurl = \"https://api.example.com/\"\nmethods = [\"GET\"]\nreason = \"x\"\n";
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plugins.lock");
        fs::write(&path, text).expect("a file");
        let lock = pcoder_state::File::<PluginsLock>::new(&path, folder.path()).read().expect("read");
        let (portable, narrowed) = portable_plugins(lock);
        assert_eq!(narrowed, ["provider-box"]);
        let entry = portable.find("provider-box").expect("it is there");
        let granted: Capabilities = entry.granted.clone().into();
        assert!(entry.roots.is_empty() && granted.exec.is_empty());
        assert_eq!(granted.net.len(), 1, "what is the same everywhere stays");
    }
}
