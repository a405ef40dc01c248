//! What happens to files that change while they are synced: each run of a script is a moment at which something may.

use std::path::PathBuf;
use std::sync::Arc;

use pcoder_sync::{Error, Reason, Side};

use crate::machine::{Pair, Shell, read, shells, tree, write};

#[test]
fn what_vanishes_on_the_host_is_left_out_and_not_deleted_there() {
    let pair = Pair::new(Shell::System);
    let host = pair.host();
    write(host.join("stays"), "before");
    write(host.join("vanishes"), "before");
    pair.push();
    for it in ["stays", "vanishes", "new"] {
        write(host.join(it), "after");
    }
    // With this the instance is asked once more, when the host's folder was walked.
    write(host.join("d/.pcoderignore"), "!node_modules\n");
    let folder = host.clone();
    pair.machine.after(move |number, _| {
        if number == 1 {
            std::fs::remove_file(folder.join("vanishes")).unwrap();
            std::fs::remove_file(folder.join("new")).unwrap();
            std::fs::create_dir(folder.join("new")).unwrap();
        }
    });
    let pushed = pair.push();
    pair.machine.quiet();
    assert_eq!((pushed.files, pushed.skipped.len()), (2, 2), "{pushed:?}");
    assert!(pushed.skipped.iter().all(|it| it.side == Side::Host && it.reason == Reason::Changed));
    assert_eq!(read(pair.instance().join("stays")), "after");
    assert_eq!(read(pair.instance().join("vanishes")), "before");
    pair.push();
    pair.assert_same();
    pair.assert_settled();
}

#[test]
fn what_changes_while_it_is_read_is_recorded_as_it_was_sent() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a"), "one");
    let path = pair.host().join("a");
    pair.machine.after(move |number, _| {
        if number == 0 {
            write(&path, "two");
        }
    });
    pair.push();
    assert_eq!(read(pair.instance().join("a")), "two");
    pair.machine.quiet();
    pair.assert_settled();
    // And one that changes after it was sent is sent again.
    let path = pair.host().join("a");
    write(&path, "three");
    pair.machine.after(move |number, _| {
        if number == 1 {
            write(&path, "four");
        }
    });
    pair.push();
    assert_eq!(read(pair.instance().join("a")), "three");
    pair.machine.quiet();
    pair.push();
    assert_eq!(read(pair.instance().join("a")), "four");
}

#[test]
fn a_large_file_that_is_cut_off_while_it_is_read_is_left_out() {
    let pair = Pair::new(Shell::System);
    let path = pair.host().join("large");
    write(&path, vec![7; 20 << 20]);
    write(pair.host().join("small"), "x");
    let sync = pair.sync();
    let cut = path.clone();
    // The first bytes have been read when this is called.
    let sync = sync.on_progress(move |progress| {
        if (1..1 << 20).contains(&progress.done) {
            std::fs::File::options().write(true).open(&cut).unwrap().set_len(9 << 20).unwrap();
        }
    });
    let pushed = crate::machine::block_on(sync.push(&pair.machine)).unwrap();
    assert_eq!((pushed.files, pushed.skipped.len()), (1, 1), "{pushed:?}");
    assert!(!pair.instance().join("large").exists());
    pair.push();
    pair.assert_same();
}

#[test]
fn what_changes_on_the_instance_after_it_was_described_is_not_overwritten() {
    for shell in shells() {
        let scene = || {
            let pair = Pair::new(shell);
            let host = pair.host();
            for it in ["changes", "link", "other"] {
                write(host.join(it), "before");
            }
            std::fs::remove_file(host.join("link")).unwrap();
            std::os::unix::fs::symlink("before", host.join("link")).unwrap();
            pair.push();
            for it in ["changes", "new", "other"] {
                write(host.join(it), "host's");
            }
            std::fs::remove_file(host.join("link")).unwrap();
            std::os::unix::fs::symlink("host's", host.join("link")).unwrap();
            pair
        };
        for what in ["changes", "new", "link"] {
            let pair = scene();
            let folder = pair.instance();
            pair.machine.after(move |number, _| {
                if number == 0 && what == "link" {
                    std::fs::remove_file(folder.join("link")).unwrap();
                    std::os::unix::fs::symlink("instance's", folder.join("link")).unwrap();
                } else if number == 0 {
                    write(folder.join(what), "instance's");
                }
            });
            let pushed = pair.push();
            assert_eq!(pair.machine.counted(), 4, "{shell:?}: described, refused, described, written");
            pair.machine.quiet();
            assert_eq!(pushed.conflicts.len(), 1, "{shell:?}, {what}: {pushed:?}");
            assert_eq!(read(pair.instance().join("other")), "host's");
            if what == "link" {
                assert_eq!(std::fs::read_link(pair.instance().join("link")).unwrap(), PathBuf::from("instance's"));
            } else {
                assert_eq!(read(pair.instance().join(what)), "instance's");
            }
        }
    }
}

#[test]
fn a_push_gives_up_on_files_that_never_rest() {
    let pair = Pair::new(Shell::System);
    for it in 0..5 {
        write(pair.host().join(format!("{it}")), "before");
    }
    pair.push();
    for it in 0..5 {
        write(pair.host().join(format!("{it}")), "after");
    }
    let folder = pair.instance();
    pair.machine.after(move |number, _| {
        if number % 2 == 0 {
            write(folder.join(format!("{}", number / 2)), format!("{number}"));
        }
    });
    assert!(matches!(pair.try_push(), Err(Error::Changing)));
}

#[test]
fn what_changes_on_the_instance_while_it_is_fetched_comes_with_the_next_pull() {
    for shell in shells() {
        let pair = Pair::new(shell);
        write(pair.host().join("a"), "x");
        pair.push();
        let instance = pair.instance();
        for it in ["changes", "grows", "vanishes", "becomes a folder", "becomes a link", "stays"] {
            write(instance.join(it), "first");
        }
        let folder = instance.clone();
        pair.machine.after(move |number, _| {
            if number == 0 {
                write(folder.join("changes"), "later");
                write(folder.join("grows"), "first and more");
                for it in ["vanishes", "becomes a folder", "becomes a link"] {
                    std::fs::remove_file(folder.join(it)).unwrap();
                }
                write(folder.join("becomes a folder/x"), "x");
                std::os::unix::fs::symlink("/etc/passwd", folder.join("becomes a link")).unwrap();
            }
        });
        let pulled = pair.pull();
        pair.machine.quiet();
        assert_eq!(pulled.created, [PathBuf::from("stays")], "{shell:?}: {pulled:?}");
        assert_eq!(pulled.skipped.len(), 5);
        pair.pull();
        pair.assert_same();
        pair.assert_settled();
    }
}

#[test]
fn what_changes_on_the_host_while_the_instance_sends_is_a_conflict() {
    let pair = Pair::new(Shell::System);
    let (host, instance) = (pair.host(), pair.instance());
    for it in ["changes", "deleted there", "d/x", "stays", "file to folder"] {
        write(host.join(it), "before");
    }
    pair.push();
    for it in ["changes", "stays", "appears"] {
        write(instance.join(it), "instance's");
    }
    std::fs::remove_file(instance.join("deleted there")).unwrap();
    std::fs::remove_dir_all(instance.join("d")).unwrap();
    std::fs::remove_file(instance.join("file to folder")).unwrap();
    write(instance.join("file to folder/x"), "instance's");
    let folder = host.clone();
    pair.machine.after(move |number, _| {
        if number == 1 {
            for it in ["changes", "deleted there", "d/new", "appears", "file to folder"] {
                write(folder.join(it), "host's");
            }
        }
    });
    let pulled = pair.pull();
    pair.machine.quiet();
    for it in ["changes", "deleted there", "d/new", "appears", "file to folder"] {
        assert_eq!(read(host.join(it)), "host's", "{it}");
    }
    assert_eq!(read(host.join("stays")), "instance's");
    assert_eq!(read(host.join("changes.from-vm")), "instance's");
    assert_eq!(read(host.join("appears.from-vm")), "instance's");
    assert!(!host.join("d/x").exists());
    assert!(pulled.conflicts.len() >= 4, "{pulled:?}");
    pair.pull();
    pair.push();
    pair.pull();
    pair.push();
    pair.assert_same();
    pair.assert_settled();
    let everything: Vec<String> = tree(&host).keys().map(|it| it.display().to_string()).collect();
    assert!(everything.iter().any(|it| it.ends_with("/x") && it.starts_with("file to folder")), "{everything:?}");
}

#[test]
fn progress_goes_from_nothing_to_everything() {
    let pair = Pair::new(Shell::System);
    for it in 0..10 {
        write(pair.host().join(format!("{it}")), vec![1; 1000]);
    }
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let list = Arc::clone(&seen);
    let sync = pair.sync().on_progress(move |it| list.lock().unwrap().push(it));
    crate::machine::block_on(sync.push(&pair.machine)).unwrap();
    let list = std::mem::take(&mut *seen.lock().unwrap());
    assert!(list.windows(2).all(|it| it[0].done <= it[1].done) && list.iter().all(|it| it.total == 10_000));
    assert_eq!(list.last().unwrap().done, 10_000);
    for it in 0..10 {
        write(pair.instance().join(format!("{it}")), vec![2; 2000]);
    }
    crate::machine::block_on(sync.pull(&pair.machine)).unwrap();
    let list = seen.lock().unwrap();
    assert_eq!((list.last().unwrap().done, list.last().unwrap().total), (20_000, 20_000));
}
