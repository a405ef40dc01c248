//! Several at once, and those that die.

use std::sync::Arc;
use std::time::Duration;

use pcoder_engines::{Condition, EnginesLock, Store};
use tokio_util::sync::CancellationToken;

use crate::child::{installer, installer_by};
use crate::registry::Fault;
use crate::toy::{Log, World, toy};

const BIG: usize = 6_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_download_once() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.faults([Fault::Gate(1_000_000)]);
    let (first, second) = (Arc::new(Log::default()), Arc::new(Log::default()));
    let (store, options) = (world.store(), world.options());
    let install = |log: &Arc<Log>| store.install("toy", None, &options, log.clone(), CancellationToken::new());
    let gate = async {
        tokio::task::block_in_place(|| world.registry.wait_for_waiting(1));
        // Until one of them says that it waits for the other.
        loop {
            let waits = |log: &Log| log.0.lock().unwrap().iter().any(|line| line.starts_with("waiting for pcoder pid"));
            if waits(&first) || waits(&second) {
                break;
            }
            tokio::task::yield_now().await;
        }
        world.registry.open();
    };
    let (a, b, ()) = tokio::join!(install(&first), install(&second), gate);
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(world.registry.requests().len(), 1);
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_download_once() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.faults([Fault::Gate(1_000_000)]);
    let mut first = installer(&world);
    world.registry.wait_for_waiting(1);
    // The first has the lock now; the third waits for it and says so, whatever the second does meanwhile.
    let mut second = installer(&world);
    let log = Arc::new(Log::default());
    let (store, options) = (world.store(), world.options());
    let third = store.install("toy", None, &options, log.clone(), CancellationToken::new());
    let expected = format!("waiting for pcoder pid {} (installing toy 1.0.0", first.id());
    let gate = async {
        while !log.0.lock().unwrap().iter().any(|line| line.starts_with(&expected)) {
            tokio::task::yield_now().await;
        }
        world.registry.open();
    };
    let (third, ()) = tokio::join!(third, gate);
    third.unwrap();
    assert!(first.wait().unwrap().success());
    assert!(second.wait().unwrap().success());
    assert_eq!(world.registry.requests().len(), 1);
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_then_again() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    // A child takes some 60 ms for all of it.
    world.registry.always(Some(Fault::Slow(200_000)));
    let mut installed = 0;
    for round in 0..50_u64 {
        let mut child = installer(&world);
        // Spread over the whole installation, in no order: the moment of death, not a wait for something.
        std::thread::sleep(Duration::from_millis((round * 37) % 90));
        child.kill().unwrap();
        child.wait().unwrap();
        if world.store().find("toy", None).unwrap().is_some() {
            installed += 1;
            assert_eq!(world.store().verify("toy", None).unwrap().problems, []);
            world.store().remove("toy", None).unwrap();
        }
    }
    assert!(installed < 50, "none was killed in time");
    world.registry.always(None);
    world.install().await.unwrap();
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_download_is_gone_on_with() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.faults([Fault::Gate(5_000_000)]);
    let mut child = installer(&world);
    world.registry.wait_for_waiting(1);
    // The bytes are in the socket; until most of them are in the part file there is nothing to look at.
    let part = || std::fs::metadata(world.parts().first()?).ok().map(|data| data.len());
    while part().is_none_or(|length| length < 4_000_000) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.store().find("toy", None).unwrap(), None);
    let kept = part().unwrap();
    world.install().await.unwrap();
    world.assert_whole();
    let requests = world.registry.requests();
    assert_eq!(requests[1].header("range"), Some(format!("bytes={kept}-").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_part_file_is_found_out_and_deleted() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    let cancel = CancellationToken::new();
    cancelled_half_way(&world, &cancel).await;
    let part = world.parts().remove(0);
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    assert_eq!(world.install().await.unwrap_err().code(), "integrity");
    world.assert_absent();
    assert_eq!(world.parts(), Vec::<String>::new());
    world.install().await.unwrap();
    world.assert_whole();

    // One that is too long is not even begun with.
    let world = World::new(&[toy("1.0.0", BIG)]);
    cancelled_half_way(&world, &CancellationToken::new()).await;
    std::fs::write(world.parts().remove(0), vec![0; 2 * BIG]).unwrap();
    world.install().await.unwrap();
    world.assert_whole();
}

/// Cancels when a megabyte was sent.
async fn cancelled_half_way(world: &World, cancel: &CancellationToken) {
    world.registry.faults([Fault::Stall(1_000_000)]);
    let (store, options) = (world.store(), world.options());
    let install = store.install("toy", None, &options, Arc::new(Log::default()), cancel.clone());
    let stop = async {
        tokio::task::block_in_place(|| world.registry.wait_for_waiting(1));
        while world.parts().first().and_then(|part| std::fs::metadata(part).ok()).is_none_or(|part| part.len() == 0) {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (error, ()) = tokio::join!(install, stop);
    assert_eq!(error.unwrap_err().code(), "cancelled");
    world.assert_absent();
    assert_eq!(world.parts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_while_waiting_for_another() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.faults([Fault::Gate(1000)]);
    let mut child = installer(&world);
    world.registry.wait_for_waiting(1);
    let cancel = CancellationToken::new();
    let (store, options, log) = (world.store(), world.options(), Arc::new(Log::default()));
    let install = store.install("toy", None, &options, log.clone(), cancel.clone());
    let stop = async {
        while log.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (error, ()) = tokio::join!(install, stop);
    assert_eq!(error.unwrap_err().code(), "cancelled");
    world.registry.open();
    assert!(child.wait().unwrap().success());
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_cleans_up_and_gives_up_the_lock() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.faults([Fault::Stall(1_000_000)]);
    let (store, options) = (world.store(), world.options());
    let cancel = CancellationToken::new();
    {
        let install = store.install("toy", None, &options, Arc::new(Log::default()), cancel.clone());
        tokio::select! {
            biased;
            _ = install => panic!("it stalls"),
            () = async { tokio::task::block_in_place(|| world.registry.wait_for_waiting(1)) } => {}
        }
    }
    assert!(!cancel.is_cancelled(), "the caller's token is the caller's");
    // Waits for the lock of the one that is ending.
    world.install().await.unwrap();
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_runs_is_neither_removed_nor_replaced() {
    let world = World::with_versions(&[("1.0.0", &[toy("1.0.0", 1000)]), ("0.9.0", &[toy("0.9.0", 2000)])]);
    let (store, options) = (world.store(), world.options());
    for version in ["1.0.0", "0.9.0"] {
        let (log, cancel) = (Arc::new(Log::default()), CancellationToken::new());
        store.install("toy", Some(version), &options, log, cancel).await.unwrap();
    }
    let (old, hold) = store.hold("toy", Some("0.9.0")).unwrap();
    let (_, second) = store.hold("toy", Some("0.9.0")).unwrap();
    drop(second);
    assert_eq!(store.remove("toy", Some("0.9.0")).unwrap_err().code(), "locked");
    let pruned = store.prune(&[]).unwrap();
    assert_eq!((pruned.removed.len(), pruned.in_use.len()), (0, 1));
    assert!(old.entrypoint.exists());
    drop(hold);
    assert_eq!(store.prune(&[("toy", "0.9.0")]).unwrap().removed.len(), 0);
    let pruned = store.prune(&[]).unwrap();
    assert_eq!(pruned.removed.len(), 1);
    assert!(pruned.freed_bytes > 2000);
    assert!(!old.entrypoint.exists());
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dead_left_is_swept_and_what_lives_is_not() {
    let world = World::with_versions(&[("1.0.0", &[toy("1.0.0", BIG)]), ("0.9.0", &[toy("0.9.0", 2000)])]);
    let platform = world.store().platform();
    let staging = world.root().join("staging");
    for name in ["staging", "trash"] {
        for version in ["1.0.0", "0.9.0"] {
            let dead = world.root().join(name).join(format!("toy@{version}@{platform}.dead"));
            std::fs::create_dir_all(dead.join("package")).unwrap();
            std::fs::write(dead.join("package/x"), "x").unwrap();
        }
    }
    // Of bytes that no lock names any more, and of an engine that is gone.
    std::fs::write(staging.join(format!("toy@1.0.0@{platform}.0123.part")), "x").unwrap();
    std::fs::write(staging.join("gone@1.0.0@any.0123.part"), "x").unwrap();

    // Another version is being installed: what is its stays.
    world.registry.faults([Fault::Gate(1_000_000)]);
    let mut child = installer(&world);
    world.registry.wait_for_waiting(1);
    let (store, options) = (world.store(), world.options());
    let (log, cancel) = (Arc::new(Log::default()), CancellationToken::new());
    store.install("toy", Some("0.9.0"), &options, log, cancel).await.unwrap();
    assert!(world.litter().iter().all(|name| name.contains("toy@1.0.0@")), "{:?}", world.litter());
    assert_eq!(world.parts().len(), 1);
    world.registry.open();
    assert!(child.wait().unwrap().success());
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_no_lock_names_are_listed_and_pruned() {
    let old = World::with_versions(&[("0.1.0", &[toy("0.1.0", 1000)])]);
    old.install().await.unwrap();
    let new = World::new(&[toy("1.0.0", 1000)]);
    let store = Store::new(old.root(), EnginesLock::parse(&new.lock).unwrap(), old.store().platform());
    let superseded: Vec<_> =
        store.list().unwrap().into_iter().filter(|line| line.condition == Condition::Superseded).collect();
    assert_eq!(superseded.len(), 1);
    assert!(superseded[0].version.starts_with("0.1.0-linux"));
    assert_eq!(store.prune(&[]).unwrap().removed.len(), 1);
    assert_eq!(old.litter(), Vec::<String>::new());
    assert!(store.list().unwrap().iter().all(|line| line.condition == Condition::Missing));
}

/// A disk that is full in the middle: not of bytes, which are looked at before, but of file entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_leaves_nothing() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    std::fs::create_dir(world.root()).unwrap();
    // Enough for the folders and a file or two. Mounted where only the child sees it.
    let script = r#"mount -t tmpfs -o size=64m,nr_inodes=13 tmpfs "$0" || exit 77
        "$@"; [ -z "$(ls "$0/staging" "$0/engines" 2>/dev/null | grep @)" ] || exit 78"#;
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(world.root());
    let Ok(child) = installer_by(&world, unshare) else {
        return;
    };
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // Where a process may not have mounts of its own there is nothing to be seen.
    if output.status.code() == Some(77) || !said.contains("running 1 test") {
        return;
    }
    assert!(said.contains("error code: disk-full"), "{said}");
    assert_ne!(output.status.code(), Some(78), "litter");
}
