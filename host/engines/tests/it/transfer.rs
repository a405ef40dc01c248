//! Engines that go from store to store without a network.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pcoder_engines::{
    Condition, EnginesLock, Error, Exported, ImportOptions, InstalledEngine, Platform, Progress, Store,
};
use tokio_util::sync::CancellationToken;

use crate::child::importer;
use crate::toy::{Log, World, toy};

const BIG: usize = 6_000_000;

async fn export(world: &World, to: &Path) -> Result<Vec<Exported>, Error> {
    world.store().export(&[("toy", None)], to, Arc::new(Log::default()), CancellationToken::new()).await
}

async fn import(store: &Store, from: &Path) -> Result<Vec<InstalledEngine>, Error> {
    store.import(from, &ImportOptions::default(), Arc::new(Log::default()), CancellationToken::new()).await
}

/// An engine that is installed, and the file that it was exported into.
async fn exported(ballast: usize) -> (World, Exported) {
    let world = World::new(&[toy("1.0.0", ballast)]);
    world.install().await.unwrap();
    let file = export(&world, &world.folder.path().join("exports")).await.unwrap().remove(0);
    (world, file)
}

/// The same lock, on a machine whose registry has nothing.
fn elsewhere(world: &World) -> World {
    let mut other = World::new(&[]);
    other.lock.clone_from(&world.lock);
    other
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Changes a byte of an installed file, and the ledger beside it so that both agree again: what a checker that trusts
/// the folder cannot see.
fn forge(engine: &InstalledEngine) {
    let folder = engine.root.parent().unwrap();
    let noise = engine.root.join("data/noise");
    let mut bytes = std::fs::read(&noise).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&noise, &bytes).unwrap();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let mut files = read("files.json");
    let record = files.as_array_mut().unwrap().iter_mut().find(|file| file["path"] == "data/noise").unwrap();
    record["blake3"] = blake3::hash(&bytes).to_hex().to_string().into();
    let files = files.to_string();
    let mut ledger = read("ledger.json");
    ledger["files_blake3"] = blake3::hash(files.as_bytes()).to_hex().to_string().into();
    std::fs::write(folder.join("files.json"), files).unwrap();
    std::fs::write(folder.join("ledger.json"), ledger.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_engine_is_imported_without_a_network() {
    let (world, file) = exported(3_000_000).await;
    let platform = world.store().platform();
    assert_eq!(names(file.file.parent().unwrap()), [format!("toy-1.0.0-{platform}.pcoder-engine")]);
    assert_eq!((file.files, file.bytes), (3, 3_000_000 + 2 + crate::toy::PROGRAM.len() as u64));
    assert_eq!(std::fs::metadata(&file.file).unwrap().len(), file.file_bytes);
    assert_ne!(std::fs::metadata(&file.file).unwrap().permissions().mode() & 0o044, 0, "it is there to be handed on");

    let other = elsewhere(&world);
    let log = Arc::new(Log::default());
    let options = ImportOptions::default();
    let imported = other.store().import(&file.file, &options, log.clone(), CancellationToken::new()).await.unwrap();
    let [engine] = imported.try_into().unwrap();
    assert_eq!(other.store().find("toy", None).unwrap().unwrap(), engine);
    assert_eq!(engine.reported_version.as_deref(), Some("toy 1.0.0"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&engine.entrypoint), mode(&engine.root.join("data/noise"))), (0o755, 0o644));
    other.assert_whole();
    assert_eq!(other.registry.requests().len(), 0);
    let log = log.0.lock().unwrap().clone();
    let phases: Vec<_> = log.iter().filter(|line| !line.contains('/')).map(String::as_str).collect();
    assert_eq!(phases, ["importing", "finishing", "checking"]);
    assert!(log.contains(&format!("{0}/{0}", file.file_bytes)), "{log:?}");

    // Again, from the folder: nothing is done.
    let again = Arc::new(Log::default());
    let folder = file.file.parent().unwrap();
    let found = other.store().import(folder, &options, again.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!(found, [engine]);
    assert_eq!(again.0.lock().unwrap().clone(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_exports_are_one_file_byte_for_byte_and_name_no_place() {
    let (world, file) = exported(100_000).await;
    let first = std::fs::read(&file.file).unwrap();
    let other = elsewhere(&world);
    import(&other.store(), &file.file).await.unwrap();
    let second = export(&other, &other.folder.path().join("exports")).await.unwrap().remove(0);
    assert_eq!(std::fs::read(&second.file).unwrap(), first);
    export(&world, file.file.parent().unwrap()).await.unwrap();
    assert_eq!(std::fs::read(&file.file).unwrap(), first);

    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&first[..]));
    let mut paths = Vec::new();
    for entry in archive.entries().unwrap() {
        let header = entry.as_ref().unwrap().header().clone();
        let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap());
        assert_eq!((owner, header.username_bytes()), ((0, 0, 0), Some(&b""[..])));
        if header.entry_type() == tar::EntryType::Regular {
            paths.push(entry.unwrap().path().unwrap().display().to_string());
        }
    }
    assert_eq!(paths, ["package/bin/toy", "package/data/noise", "package/package.json"]);
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&first[..]), &mut plain).unwrap();
    let root = world.folder.path().to_str().unwrap().as_bytes();
    assert!(!plain.windows(root.len()).any(|window| window == root));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_installed_or_not_whole_is_not_exported() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    let to = world.folder.path().join("exports");
    assert_eq!(export(&world, &to).await.unwrap_err().code(), "not-installed");
    assert!(!to.exists());
    let unknown = world.store().export(&[("top", None)], &to, Arc::new(Log::default()), CancellationToken::new()).await;
    assert_eq!(unknown.unwrap_err().code(), "invalid");

    type Harm = fn(&InstalledEngine);
    let harm: [(&str, Harm); 4] = [
        ("was changed", |engine| {
            let noise = engine.root.join("data/noise");
            let mut bytes = std::fs::read(&noise).unwrap();
            bytes[7] ^= 1;
            std::fs::write(noise, bytes).unwrap();
        }),
        ("does not belong there", |engine| std::fs::write(engine.root.join("data/new"), "x").unwrap()),
        ("is not a file", |engine| {
            let package = engine.root.join("data/noise");
            std::fs::rename(&package, engine.root.parent().unwrap().join("aside")).unwrap();
            std::os::unix::fs::symlink("../../aside", package).unwrap();
        }),
        ("is not the list of files that engines.lock names", forge),
    ];
    for (says, harm) in harm {
        let engine = world.install().await.unwrap();
        harm(&engine);
        let error = export(&world, &to).await.unwrap_err();
        assert_eq!(error.code(), "integrity");
        // A link in the place of a file is seen by the quick look already.
        assert!(error.to_string().contains(says), "{error}");
        assert!(!to.exists() || names(&to).is_empty(), "{:?}", names(&to));
        assert!(matches!(&world.store().list().unwrap()[0].condition, Condition::Damaged(_)));
        let copied = elsewhere(&world);
        assert_eq!(copy(&world, &copied).await.unwrap_err().code(), "integrity");
        copied.assert_absent();
    }
    world.install().await.unwrap();
    world.assert_whole();
    export(&world, &to).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_ledger_is_found_by_verify_and_mended_by_installing() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    let engine = world.install().await.unwrap();
    world.assert_whole();
    forge(&engine);
    assert!(world.store().find("toy", None).unwrap().is_some(), "the quick look cannot see it");
    let error = world.store().verify("toy", None).unwrap_err();
    assert_eq!(error.code(), "integrity");
    assert!(error.to_string().contains("engines.lock"), "{error}");
    assert_eq!(world.store().find("toy", None).unwrap(), None);
    world.install().await.unwrap();
    world.assert_whole();
    // Installing sees it by itself.
    forge(&engine);
    world.install().await.unwrap();
    assert_eq!(world.registry.requests().len(), 3);
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_neither_removed_nor_replaced_while_it_is_exported() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    world.install().await.unwrap();
    struct Remover(Store, Mutex<Vec<&'static str>>);
    impl Progress for Remover {
        fn bytes(&self, _done: u64, _total: u64) {
            self.1.lock().unwrap().push(self.0.remove("toy", None).map_or_else(|error| error.code(), |_| "removed"));
        }
    }
    let remover = Arc::new(Remover(world.store(), Mutex::default()));
    let to = world.folder.path().join("exports");
    world.store().export(&[("toy", None)], &to, remover.clone(), CancellationToken::new()).await.unwrap();
    let answers = remover.1.lock().unwrap().clone();
    assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == "locked"), "{answers:?}");
    assert!(world.store().remove("toy", None).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_leaves_nothing() {
    struct Canceller(CancellationToken);
    impl Progress for Canceller {
        fn bytes(&self, _done: u64, _total: u64) {
            self.0.cancel();
        }
    }
    let (world, file) = exported(BIG).await;
    let canceller = || {
        let cancel = CancellationToken::new();
        (Arc::new(Canceller(cancel.clone())), cancel)
    };
    let to = world.folder.path().join("cancelled");
    let (progress, cancel) = canceller();
    let error = world.store().export(&[("toy", None)], &to, progress, cancel).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), ("cancelled", "exporting `toy 1.0.0` was cancelled"));
    assert_eq!(names(&to), Vec::<String>::new());
    let other = elsewhere(&world);
    let (progress, cancel) = canceller();
    let error = other.store().import(&file.file, &ImportOptions::default(), progress, cancel).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), ("cancelled", "importing `toy 1.0.0` was cancelled"));
    other.assert_absent();
    let (progress, cancel) = canceller();
    let error = world.store().copy_to("toy", None, &other.store(), progress, cancel).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), ("cancelled", "copying `toy 1.0.0` was cancelled"));
    other.assert_absent();
    assert!(world.store().remove("toy", None).unwrap(), "no lock is left");
}

/// Stands at the first byte until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn wait_for_arrival(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |(arrived, _)| !*arrived).unwrap());
    }
    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl Progress for Gate {
    fn bytes(&self, _done: u64, _total: u64) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, open)| !*open).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_imports_at_once_import_once() {
    let (world, file) = exported(BIG).await;
    let other = elsewhere(&world);
    let (gate, log) = (Arc::new(Gate::default()), Arc::new(Log::default()));
    let (first, second) = (other.store(), other.store());
    let options = ImportOptions::default();
    let one = first.import(&file.file, &options, gate.clone(), CancellationToken::new());
    let two = async {
        tokio::task::block_in_place(|| gate.wait_for_arrival());
        let waits = || log.0.lock().unwrap().iter().any(|line| line.starts_with("waiting for pcoder pid"));
        let open = async {
            while !waits() {
                tokio::task::yield_now().await;
            }
            gate.open();
        };
        let import = second.import(&file.file, &options, log.clone(), CancellationToken::new());
        tokio::join!(import, open).0
    };
    let (one, two) = tokio::join!(one, two);
    assert_eq!(one.unwrap(), two.unwrap());
    assert!(!log.0.lock().unwrap().iter().any(|line| line == "importing"));
    other.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_at_any_moment_is_done_again() {
    let (world, file) = exported(4 * BIG).await;
    let other = elsewhere(&world);
    let mut installed = 0;
    for round in 0..20_u64 {
        let mut child = importer(&other, &file.file);
        // Spread over the whole import, in no order: the moment of death, not a wait for something.
        std::thread::sleep(Duration::from_millis((round * 37) % 90));
        child.kill().unwrap();
        child.wait().unwrap();
        if other.store().find("toy", None).unwrap().is_some() {
            installed += 1;
            assert_eq!(other.store().verify("toy", None).unwrap().problems, []);
            other.store().remove("toy", None).unwrap();
        }
    }
    assert!(installed < 20, "none was killed in time");
    import(&other.store(), &file.file).await.unwrap();
    other.assert_whole();
    assert!(importer(&other, &file.file).wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dead_exports_left_is_swept_and_what_living_ones_write_is_not() {
    let (world, file) = exported(1000).await;
    let folder = file.file.parent().unwrap();
    let name = file.file.file_name().unwrap().to_str().unwrap();
    let (dead, alive) = (folder.join(format!(".{name}.dead.part")), folder.join(format!(".{name}.alive.part")));
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    for path in [&dead, &alive] {
        std::fs::write(path, "x").unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    let lock = std::fs::File::open(&alive).unwrap();
    lock.try_lock().unwrap();
    export(&world, folder).await.unwrap();
    assert!(!dead.exists() && alive.exists());
    drop(lock);
    export(&world, folder).await.unwrap();
    assert_eq!(names(folder), [name]);
}

fn other_platform(store: &Store) -> Platform {
    if store.platform() == Platform::LinuxX64 { Platform::LinuxArm64 } else { Platform::LinuxX64 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_another_platform_needs_that_platform_to_be_named() {
    let (world, file) = exported(1000).await;
    let folder = file.file.parent().unwrap();
    let foreign = other_platform(&world.store());
    let store = world.store().for_platform(foreign);
    let (options, cancel) = (world.options(), CancellationToken::new());
    store.install("toy", None, &options, Arc::new(Log::default()), cancel.clone()).await.unwrap();
    let away = world.folder.path().join("away");
    let exported = store.export(&[("toy", None)], &away, Arc::new(Log::default()), cancel.clone()).await.unwrap();

    let other = elsewhere(&world);
    let error = import(&other.store(), &exported[0].file).await.unwrap_err();
    assert_eq!(error.code(), "unsupported-platform");
    assert!(error.to_string().contains(&format!("for {foreign}, not for {}", world.store().platform())), "{error}");
    assert_eq!(import(&other.store(), &away).await.unwrap_err().code(), "unsupported-platform");
    other.assert_absent();

    // Both in a folder: each platform takes its own.
    std::fs::copy(&exported[0].file, folder.join(exported[0].file.file_name().unwrap())).unwrap();
    std::fs::write(folder.join("notes.txt"), "x").unwrap();
    let imported = import(&other.store(), folder).await.unwrap();
    assert_eq!(imported.len(), 1);
    assert_eq!(imported[0].platform, world.store().platform().name());
    let named = ImportOptions { platform: Some(foreign), ..ImportOptions::default() };
    let imported = other.store().import(folder, &named, Arc::new(Log::default()), cancel).await.unwrap();
    assert_eq!((imported.len(), imported[0].platform.as_str()), (1, foreign.name()));
    assert_eq!(imported[0].reported_version, None, "it was not started");
    assert_eq!(other.store().for_platform(foreign).verify("toy", None).unwrap().problems, []);
    other.assert_whole();
}

async fn copy(from: &World, to: &World) -> Result<InstalledEngine, Error> {
    let (log, cancel) = (Arc::new(Log::default()), CancellationToken::new());
    from.store().copy_to("toy", None, &to.store(), log, cancel).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_copied_into_another_store_once() {
    let world = World::new(&[toy("1.0.0", 3_000_000)]);
    let here = world.install().await.unwrap();
    let other = elsewhere(&world);
    let there = copy(&world, &other).await.unwrap();
    assert!(there.root.starts_with(other.root()));
    assert_eq!((there.size_bytes, &there.reported_version), (here.size_bytes, &here.reported_version));
    assert_eq!(std::fs::metadata(&there.entrypoint).unwrap().permissions().mode() & 0o777, 0o755);
    other.assert_whole();
    assert_eq!(other.registry.requests().len(), 0);

    let log = Arc::new(Log::default());
    let again = world.store().copy_to("toy", None, &other.store(), log.clone(), CancellationToken::new()).await;
    assert_eq!(again.unwrap(), there);
    assert_eq!(log.0.lock().unwrap().clone(), Vec::<String>::new());
    // Into itself it is there; and a store that has nothing has nothing to give.
    assert_eq!(copy(&world, &world).await.unwrap(), here);
    world.store().remove("toy", None).unwrap();
    assert_eq!(copy(&world, &other).await.unwrap(), there);
    assert_eq!(copy(&world, &elsewhere(&world)).await.unwrap_err().code(), "not-installed");
    let error = copy(&world, &world).await.unwrap_err();
    assert_eq!(error.code(), "not-installed");
    // A copy of the folder under another name with the same locks would wait for itself.
    let back = copy(&other, &world).await.unwrap();
    assert_eq!(back.root, here.root);
    world.assert_whole();
    let store = Store::new(world.folder.path().join("third"), EnginesLock::parse(&world.lock).unwrap(), {
        world.store().platform()
    });
    let store = store.with_locks(world.root().join("locks"));
    let (log, cancel) = (Arc::new(Log::default()), CancellationToken::new());
    assert_eq!(world.store().copy_to("toy", None, &store, log, cancel).await.unwrap_err().code(), "invalid");
}

/// Every string in the files beside an installed engine's tree.
fn strings(folder: &Path) -> Vec<String> {
    fn collect(value: &serde_json::Value, all: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) => all.push(text.clone()),
            serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, all)),
            serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                all.push(name.clone());
                collect(value, all);
            }),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for name in names(folder).iter().filter(|name| *name != "package") {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        collect(&serde_json::from_slice(&bytes).unwrap(), &mut all);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beside_an_engine_names_an_absolute_path() {
    let (world, file) = exported(1000).await;
    let (imported, copied) = (elsewhere(&world), elsewhere(&world));
    let folders: Vec<PathBuf> = [
        world.store().require("toy", None).unwrap(),
        import(&imported.store(), &file.file).await.unwrap().remove(0),
        copy(&world, &copied).await.unwrap(),
    ]
    .into_iter()
    .map(|engine| engine.root.parent().unwrap().to_owned())
    .collect();
    for folder in folders {
        assert_eq!(names(&folder), ["files.json", "ledger.json", "package", "stamps.json"]);
        let strings = strings(&folder);
        assert!(strings.iter().any(|text| text == "bin/toy"));
        let temp = std::env::temp_dir().display().to_string();
        for text in strings {
            let drive = text.as_bytes().get(1) == Some(&b':');
            assert!(!text.starts_with(['/', '\\', '~']) && !drive && !text.contains(&temp), "{text}");
        }
        // And it stays whole where it is moved to: as a copied folder is.
        let moved = elsewhere(&world);
        let target = moved.root().join("engines/toy").join(folder.file_name().unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::rename(&folder, &target).unwrap();
        moved.assert_whole();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_for_an_import_is_said_before_anything_is_written() {
    let (world, file) = exported(1000).await;
    let mut other = elsewhere(&world);
    let mut lock: serde_json::Value = serde_json::from_str(&other.lock).unwrap();
    let platform = world.store().platform();
    let place = format!("/engines/toy/versions/1.0.0/builds/platforms/{platform}/packages/0/unpacked");
    *lock.pointer_mut(&place).unwrap() = (1_u64 << 60).into();
    other.lock = lock.to_string();
    assert_eq!(import(&other.store(), &file.file).await.unwrap_err().code(), "disk-full");
    other.assert_absent();
}
