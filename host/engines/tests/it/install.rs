//! When all is well, and when the asker is wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pcoder_engines::{
    Condition, EnginesLock, Error, InstallOptions, NetworkConfig, Platform, ProblemKind, Source, Store,
};
use tokio_util::sync::CancellationToken;

use crate::toy::{Entry, Log, PROGRAM, Tarball, World, file, package, toy};

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_installed_found_verified_and_removed() {
    let world = World::new(&[toy("1.0.0", 3_000_000)]);
    let store = world.store();
    assert_eq!(store.find("toy", None).unwrap(), None);
    assert_eq!(store.require("toy", None).unwrap_err().code(), "not-installed");
    assert!(!world.root().exists(), "looking leaves nothing behind");
    let log = Arc::new(Log::default());
    let engine = store.install("toy", None, &world.options(), log.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!(engine.entrypoint, engine.root.join("bin/toy"));
    assert_eq!(engine.path_entries, [engine.root.join("data")]);
    assert_eq!(engine.reported_version.as_deref(), Some("toy 1.0.0"));
    assert_eq!(store.find("toy", Some("1.0.0")).unwrap().unwrap(), engine);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&engine.entrypoint), mode(&engine.root.join("data/noise"))), (0o755, 0o644));
    world.assert_whole();

    let log = log.0.lock().unwrap().clone();
    let phases: Vec<_> = log.iter().filter(|line| !line.contains('/')).map(String::as_str).collect();
    assert_eq!(phases, ["downloading", "finishing", "checking"]);
    let size = toy("1.0.0", 3_000_000).bytes.len();
    assert!(log.contains(&format!("{size}/{size}")), "{log:?}");

    world.install().await.unwrap();
    assert_eq!(world.registry.requests().len(), 1, "the second time nothing is fetched");

    assert!(store.remove("toy", None).unwrap());
    assert!(!store.remove("toy", None).unwrap());
    world.assert_absent();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_packages_is_laid_out_as_locked() {
    let at = |at: &str, tarball: Tarball| Tarball { at: Some(at.to_owned()), ..tarball };
    let program = Entry { mode: 0o755, ..file("package/toy", PROGRAM) };
    let packages = [
        at("bin", package("toy", "1.0.0", &[program])),
        at("node_modules/@s/a", package("@s/a", "2.0.0", &[file("package/package.json", b"{}")])),
        // Another folder name than `package`, a package inside another one's folder, a name longer than a ustar header holds.
        at("node_modules/@s/a/node_modules/b", package("b", "3.0.0", &[file("b/index.js", b"b")])),
    ];
    let world = World::new(&packages);
    world.registry.faults([crate::registry::Fault::Truncate(40)]);
    let engine = world.install().await.unwrap();
    let read = |path: &str| std::fs::read_to_string(engine.root.join(path)).unwrap();
    assert_eq!(read("node_modules/@s/a/node_modules/b/index.js"), "b");
    assert_eq!(read("node_modules/@s/a/package.json"), "{}");
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_by_pax_and_gnu() {
    let long = format!("package/{}/x.js", "very-long-folder-name/".repeat(8).trim_end_matches('/'));
    let record = format!(" path={long}\n");
    let length = record.len() + 3;
    let pax = format!("{length}{record}");
    let gnu = format!("{}\0", long.replace("x.js", "y.js"));
    let kind = |kind, data| Entry { kind, ..file("long", data) };
    let tarball = package(
        "toy",
        "1.0.0",
        &[
            Entry { mode: 0o755, ..file("package/bin/toy", PROGRAM) },
            kind(tar::EntryType::XHeader, pax.as_bytes()),
            file("package/short", b"x"),
            kind(tar::EntryType::GNULongName, gnu.as_bytes()),
            file("package/short", b"y"),
        ],
    );
    let world = World::new(&[tarball]);
    let engine = world.install().await.unwrap();
    let folder = engine.root.join("very-long-folder-name/".repeat(8));
    assert_eq!(std::fs::read_to_string(folder.join("x.js")).unwrap(), "x");
    assert_eq!(std::fs::read_to_string(folder.join("y.js")).unwrap(), "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_file_or_a_folder_with_the_same_check() {
    let tarball = toy("1.0.0", 500_000);
    let world = World::new(std::slice::from_ref(&tarball));
    let brought = world.folder.path().join("brought.tgz");
    let from = |path: &Path| InstallOptions::new(Source::File(path.to_owned()));

    let mut wrong = tarball.bytes.clone();
    wrong[400_000] ^= 1;
    std::fs::write(&brought, &wrong).unwrap();
    assert_eq!(world.install_with(&from(&brought)).await.unwrap_err().code(), "integrity");
    world.assert_absent();
    std::fs::write(&brought, &tarball.bytes[1..]).unwrap();
    assert_eq!(world.install_with(&from(&brought)).await.unwrap_err().code(), "integrity");
    assert_eq!(world.install_with(&from(Path::new("/nonexistent"))).await.unwrap_err().code(), "io");
    let empty = world.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = world.install_with(&from(&empty)).await.unwrap_err();
    assert!(error.to_string().contains("toys-toy-1.0.0.tgz"), "{error}");

    std::fs::write(&brought, &tarball.bytes).unwrap();
    world.install_with(&from(&brought)).await.unwrap();
    world.assert_whole();
    world.store().remove("toy", None).unwrap();
    std::fs::write(empty.join("toy-1.0.0.tgz"), &tarball.bytes).unwrap();
    world.install_with(&from(&empty)).await.unwrap();
    world.assert_whole();
    assert_eq!(world.registry.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_says_what_to_bring() {
    let world = World::new(&[toy("1.0.0", 10)]);
    let error = world.install_with(&InstallOptions::new(Source::Offline)).await.unwrap_err();
    assert_eq!(error.code(), "offline");
    assert!(error.hint().unwrap().contains("<registry>/@toys/toy/-/toy-1.0.0.tgz"));
    world.install().await.unwrap();
    world.install_with(&InstallOptions::new(Source::Offline)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist() {
    let world = World::new(&[toy("1.0.0", 10)]);
    let lock = EnginesLock::parse(&world.lock).unwrap();
    let store = Store::new(world.root(), lock, Platform::Win32X64);
    let error = store.find("toy", None).unwrap_err();
    assert_eq!(error.code(), "unsupported-platform");
    assert!(error.to_string().contains("toys are for Unix"));
    assert!(matches!(&store.list().unwrap()[0].condition, Condition::Unsupported(_)));
    assert_eq!(store.find("top", None).unwrap_err().code(), "invalid");
    assert_eq!(store.find("toy", Some("9")).unwrap_err().code(), "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_run_is_not_installed() {
    for (program, says) in [
        (&b"#!/bin/sh\necho toy 0.9\n"[..], "`toy 0.9`"),
        (b"#!/bin/sh\necho no >&2\nexit 3\n", "exit status: 3: no"),
        (b"#!/nonexistent/ld.so\n", "cannot be started"),
        (b"\x7fELF nonsense", "cannot be started"),
    ] {
        let program = Entry { mode: 0o755, ..file("package/bin/toy", program) };
        let world = World::new(&[package("toy", "1.0.0", &[program])]);
        let error = world.install().await.unwrap_err();
        assert_eq!(error.code(), "smoke");
        assert!(error.to_string().contains(says), "{error}");
        world.assert_absent();
        let mut options = world.options();
        options.smoke = false;
        world.install_with(&options).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smoke_test_sees_none_of_the_environment() {
    let program = b"#!/bin/sh\nenv > \"$HOME/../seen\"\necho toy 1.0.0 ${SECRET:-nothing}\n";
    let program = Entry { mode: 0o755, ..file("package/bin/toy", program) };
    let world = World::new(&[package("toy", "1.0.0", &[program])]);
    let mut options = world.options();
    options.environment = [("SECRET", "x"), ("PATH", "/usr/bin:/bin")].into_iter().collect();
    let engine = world.install_with(&options).await.unwrap();
    assert_eq!(engine.reported_version.as_deref(), Some("toy 1.0.0 nothing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_seen_and_mended() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    let engine = world.install().await.unwrap();
    let noise = engine.root.join("data/noise");
    let problems = || {
        let found = world.store().verify("toy", None).unwrap().problems;
        found.into_iter().map(|problem| (problem.path, problem.kind)).collect::<Vec<_>>()
    };
    // Same size, other bytes: only the deep check sees it.
    let mut bytes = std::fs::read(&noise).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&noise, &bytes).unwrap();
    std::fs::write(engine.root.join("data/new"), "x").unwrap();
    std::fs::set_permissions(&engine.entrypoint, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        problems(),
        [
            ("bin/toy".to_owned(), ProblemKind::Mode),
            ("data/new".to_owned(), ProblemKind::Extra),
            ("data/noise".to_owned(), ProblemKind::Content)
        ]
    );
    std::fs::remove_file(&noise).unwrap();
    std::fs::remove_file(engine.root.join("package.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", engine.root.join("package.json")).unwrap();
    let kinds: Vec<_> = problems().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [ProblemKind::Mode, ProblemKind::Extra, ProblemKind::Missing, ProblemKind::NotAFile]);
    assert_eq!(world.store().find("toy", None).unwrap(), None);
    assert!(matches!(&world.store().list().unwrap()[0].condition, Condition::Damaged(_)));
    world.install().await.unwrap();
    world.assert_whole();

    let ledger = engine.root.parent().unwrap().join("ledger.json");
    std::fs::write(&ledger, "{").unwrap();
    assert_eq!(world.store().find("toy", None).unwrap(), None);
    world.install().await.unwrap();
    std::fs::remove_file(&ledger).unwrap();
    assert_eq!(world.store().find("toy", None).unwrap(), None);
    world.install().await.unwrap();
    world.assert_whole();
}

/// Changes one byte and nothing else: neither the size nor, when `quietly`, the time.
fn change(file: &Path, quietly: bool) {
    let changed = std::fs::metadata(file).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[7] ^= 1;
    std::fs::write(file, &bytes).unwrap();
    let time = if quietly { changed } else { changed + Duration::from_secs(1) };
    std::fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn installing_notices_a_file_that_was_changed_and_kept_its_size() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    let engine = world.install().await.unwrap();
    change(&engine.root.join("data/noise"), false);
    let offline = InstallOptions::new(Source::Offline);
    let error = world.install_with(&offline).await.unwrap_err();
    assert!(error.to_string().contains("it is damaged (a check found 1 file"), "{error}");
    assert_eq!(world.registry.requests().len(), 1);
    world.install().await.unwrap();
    assert_eq!(world.registry.requests().len(), 2);
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verify_found_is_mended_by_installing() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    let engine = world.install().await.unwrap();
    let noise = engine.root.join("data/noise");
    change(&noise, true);
    world.install().await.unwrap();
    assert_eq!(world.registry.requests().len(), 1, "nothing tells without reading it");
    assert_eq!(world.store().verify("toy", None).unwrap().problems.len(), 1);
    // From now on whoever looks for it is told.
    let error = world.store().require("toy", None).unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref()), ("integrity", Some("`pcoder engine install toy` replaces it")));
    assert!(matches!(&world.store().list().unwrap()[0].condition, Condition::Damaged(_)));
    world.install().await.unwrap();
    assert_eq!(world.registry.requests().len(), 2);
    world.assert_whole();
    // The same for the list of files itself.
    std::fs::write(engine.root.parent().unwrap().join("files.json"), "[]").unwrap();
    assert_eq!(world.store().verify("toy", None).unwrap_err().code(), "integrity");
    assert_eq!(world.store().find("toy", None).unwrap(), None);
    world.install().await.unwrap();
    world.assert_whole();
    // And one that was put right by hand is right as soon as that was checked.
    change(&noise, true);
    assert_eq!(world.store().verify("toy", None).unwrap().problems.len(), 1);
    change(&noise, true);
    world.assert_whole();
    assert!(world.store().find("toy", None).unwrap().is_some());
    assert_eq!(world.registry.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_copied_is_read_once_and_not_downloaded_again() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    let engine = world.install().await.unwrap();
    for file in ["data/noise", "bin/toy", "package.json"] {
        let file = std::fs::File::options().write(true).open(engine.root.join(file)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    }
    let install = async || {
        let log = Arc::new(Log::default());
        let options = InstallOptions::new(Source::Offline);
        world.store().install("toy", None, &options, log.clone(), CancellationToken::new()).await.unwrap();
        log.0.lock().unwrap().clone()
    };
    assert_eq!(install().await, ["checking"]);
    assert_eq!(install().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn force_installs_what_is_there_again() {
    let world = World::new(&[toy("1.0.0", 100_000)]);
    let engine = world.install().await.unwrap();
    change(&engine.root.join("data/noise"), true);
    let mut options = world.options();
    options.force = true;
    world.install_with(&options).await.unwrap();
    assert_eq!(world.registry.requests().len(), 2);
    world.assert_whole();
    world.install_with(&options).await.unwrap();
    assert_eq!(world.registry.requests().len(), 3);
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hash_in_the_lock_is_another_engine() {
    let world = World::new(&[toy("1.0.0", 1000)]);
    world.install().await.unwrap();
    let newer = World::new(&[toy("1.0.0", 1001)]);
    let store = Store::new(world.root(), EnginesLock::parse(&newer.lock).unwrap(), world.store().platform());
    assert_eq!(store.find("toy", None).unwrap(), None);
    let options = newer.options();
    store.install("toy", None, &options, Arc::new(Log::default()), CancellationToken::new()).await.unwrap();
    assert_eq!(store.verify("toy", None).unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_is_said_before_anything_is_fetched() {
    let huge = Tarball { unpacked: 1 << 60, ..toy("1.0.0", 10) };
    let world = World::new(&[huge]);
    let error = world.install().await.unwrap_err();
    assert_eq!(error.code(), "disk-full");
    assert!(matches!(error, Error::DiskFull { needed: Some(_), free: Some(_), .. }));
    assert_eq!(world.registry.requests().len(), 0);
    world.assert_absent();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_names_itself() {
    let world = World::new(&[toy("1.0.0", 10)]);
    std::fs::write(world.root(), "a file where the store should be").unwrap();
    let error = world.install().await.unwrap_err();
    assert_eq!(error.code(), "io");
    assert!(error.to_string().contains("store"), "{error}");
}

#[test]
fn the_embedded_lock_holds_what_was_promised() {
    let lock = EnginesLock::embedded().unwrap();
    for platform in Platform::ALL {
        for (name, versions) in [("claude", ["0.3.316", "0.3.156"]), ("codex", ["0.166.0", "0.128.0"])] {
            for version in versions {
                let found = lock.lookup(name, Some(version), platform).unwrap();
                assert_eq!(found.build.packages.len(), 1);
            }
            assert_eq!(lock.lookup(name, None, platform).unwrap().version, versions[0]);
        }
        for adapter in ["claude-agent-acp", "codex-acp"] {
            let adapter = lock.lookup(adapter, None, platform).unwrap();
            assert_eq!(adapter.platform, "any");
            for (engine, version) in &adapter.entry.built_for {
                assert!(lock.engines[engine].versions.contains_key(version), "{engine} {version}");
            }
        }
        let node = lock.lookup("node", None, platform);
        assert_eq!(node.is_err(), platform.name().ends_with("-musl"));
        let exe = |name| lock.lookup(name, None, platform).is_ok_and(|f| f.build.entrypoint.as_str().ends_with(".exe"));
        assert!(["claude", "codex", "node"].iter().all(|name| exe(name) == platform.is_windows()));
        // The folder with rg.
        assert_eq!(lock.lookup("codex", None, platform).unwrap().build.path.len(), 1);
    }
    let text = include_str!("../../../../engines.lock");
    assert!(!text.contains("://"), "no registry is named");
    assert_eq!(lock.to_text().unwrap(), text, "written as the generator writes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_for_an_engine_takes_less_than_a_millisecond() {
    let world = World::new(&[toy("1.0.0", 1000)]);
    world.install().await.unwrap();
    let store = world.store();
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            store.find("toy", None).unwrap().unwrap();
            start.elapsed()
        })
        .min()
        .unwrap();
    assert!(best.as_micros() < 1000, "{best:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_the_error_says_how_to_name_one() {
    if option_env!("PCODER_NPM_REGISTRY").is_some() {
        return;
    }
    let world = World::new(&[toy("1.0.0", 10)]);
    let none = NetworkConfig::from_npm(
        &Default::default(),
        pcoder_engines::NpmPlaces { prefix: Some(world.folder.path()), ..Default::default() },
        None,
    );
    let error = world.install_with(&crate::toy::options(none.unwrap())).await.unwrap_err();
    assert!(error.hint().unwrap().contains("npm_config_registry="), "{error}");
    world.assert_absent();
}
