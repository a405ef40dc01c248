//! Pushes that are so large that two processes unpack them at once.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use pcoder_sync::Sync;

use crate::machine::{Machine, Pair, Shell, block_on, read, set_mode, shells, tree, write};

/// Files enough for two parts, of which the second begins somewhere deep.
pub(crate) fn many(folder: &Path, content: &[u8]) {
    for it in 0..600 {
        write(folder.join(format!("deep/er/module-{}/file-{it}", it / 500)), content);
    }
}

/// Has an instance believe that it has so many processors, and count how many archives it unpacks.
fn counts(pair: &mut Pair, processors: usize) -> PathBuf {
    let (tools, count) = (pair.folder.path().join("tools"), pair.folder.path().join("count"));
    write(&count, "");
    write(tools.join("nproc"), format!("#!/bin/sh\necho {processors}\n"));
    let tar = format!(
        "#!/bin/sh\nprintf x >>{}\nt=$(PATH=${{PATH#*:}}; command -v tar)\nexec \"$t\" \"$@\"\n",
        count.display()
    );
    write(tools.join("tar"), tar);
    for tool in ["nproc", "tar"] {
        set_mode(tools.join(tool), 0o755);
    }
    pair.machine.tools = Some(tools);
    count
}

#[test]
fn what_is_much_is_unpacked_by_two_where_there_are_processors_for_them() {
    for shell in shells() {
        for processors in [1, 2] {
            let mut pair = Pair::new(shell);
            let count = counts(&mut pair, processors);
            write(pair.host().join("little"), "x");
            pair.push();
            assert_eq!(read(&count).len(), 1, "{shell:?}");
            many(&pair.host(), b"x");
            symlink("/nowhere", pair.host().join("deep/er/module-0/link")).unwrap();
            set_mode(pair.host().join("deep/er/module-1"), 0o500);
            set_mode(pair.host().join("deep"), 0o700);
            pair.push();
            // busybox' head takes more than it is to.
            let both = processors == 2 && shell != Shell::Busybox;
            assert_eq!(read(&count).len() - 1, if both { 2 } else { 1 }, "{shell:?}");
            pair.assert_same();
            pair.assert_settled();
            assert!(!pair.instance().join(".pcoder-sync").exists());
        }
    }
}

#[test]
fn a_push_in_parts_that_is_torn_anywhere_changes_nothing() {
    let mut pair = Pair::new(Shell::System);
    counts(&mut pair, 2);
    write(pair.host().join("kept"), "before");
    pair.push();
    let before = tree(&pair.instance());
    write(pair.host().join("kept"), "after");
    many(&pair.host(), b"x");
    for percent in [0, 1, 20, 45, 50, 55, 80, 99] {
        pair.machine.arrives.store(percent, Ordering::SeqCst);
        pair.try_push().unwrap_err();
        assert_eq!(tree(&pair.instance()), before, "{percent} %");
    }
    pair.machine.arrives.store(100, Ordering::SeqCst);
    pair.push();
    pair.assert_same();
    pair.assert_settled();
}

/// The first one has lost its connection and still unpacks; the user runs the same again at once.
#[test]
fn a_push_waits_for_the_end_of_one_whose_connection_was_lost() {
    let mut pair = Pair::new(Shell::System);
    counts(&mut pair, 2);
    write(pair.host().join("kept"), "before");
    pair.push();
    many(&pair.host(), b"x");
    let (host, tools) = (pair.host(), pair.machine.tools.clone());
    let others = Pair::new(Shell::System);
    for round in 0..10 {
        let mut torn = Machine::new(Shell::System);
        torn.tools.clone_from(&tools);
        torn.arrives.store(60, Ordering::SeqCst);
        let sync = pair.sync();
        let lost = std::thread::spawn(move || block_on(sync.push(&torn)));
        while !pair.instance().join(".pcoder-sync/part").exists() {
            assert!(!lost.is_finished(), "it has begun to unpack");
            std::thread::yield_now();
        }
        // Another pcoder, which knows nothing of the first.
        let state = others.folder.path().join(round.to_string());
        block_on(Sync::new(&host, pair.instance().to_str().unwrap(), state).push(&pair.machine)).unwrap();
        lost.join().unwrap().unwrap_err();
        pair.assert_same();
        std::fs::remove_dir_all(pair.instance().join("deep")).unwrap();
    }
}
