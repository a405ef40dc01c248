//! What is synced, and in how many runs.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use pcoder_sync::{Error, Reason, Side};

use crate::machine::{Node, Pair, Shell, name, read, set_mode, shells, tree, write};

/// Names that have gone wrong in somebody's script.
const NAMES: [&[u8]; 24] = [
    b"plain",
    b"with space",
    b" ",
    b"-rf",
    b"--help",
    b"new\nline",
    b"ends with newline\n",
    b"\n",
    b"tab\there",
    b"back\\slash",
    b"back\\nslash",
    b"\\",
    b"star*",
    b"[ab]",
    b"what?",
    b"$HOME",
    b"`id`",
    b"it's",
    b"quo\"te",
    b"\xff\xfe\x80",
    b"\x81\x82\x88",
    "\u{e4}\u{1f600}".as_bytes(),
    b"...",
    b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  x\n!0",
];

fn fill(pair: &Pair) {
    let host = pair.host();
    for (index, bytes) in NAMES.iter().enumerate() {
        write(host.join(name(bytes)), format!("content {index}"));
        write(host.join("in").join(name(bytes)).join(name(bytes)), format!("deeper {index}"));
        symlink(name(bytes), host.join(format!("link {index}"))).unwrap();
    }
    write(host.join("a".repeat(255)), "a long name");
    let deep: PathBuf = (0..12).map(|it| format!("{it}{}", "d".repeat(200))).collect();
    write(host.join(deep).join("file"), "a long path");
    write(host.join("empty"), "");
    std::fs::create_dir_all(host.join("empty folder/inside")).unwrap();
    symlink("/etc/passwd", host.join("absolute")).unwrap();
    symlink("../../..//./outside/", host.join("leads out")).unwrap();
    symlink("x".repeat(3000), host.join("long target")).unwrap();
    symlink("ends with newline\n", host.join("target with newline")).unwrap();
    symlink("empty folder", host.join("to a folder")).unwrap();
    write(host.join("program"), "#!/bin/sh\n");
    set_mode(host.join("program"), 0o755);
    write(host.join("secret"), "x");
    set_mode(host.join("secret"), 0o600);
    write(host.join("read only/file"), "x");
    set_mode(host.join("read only/file"), 0o444);
    set_mode(host.join("read only"), 0o555);
    set_mode(host.join("empty folder/inside"), 0o700);
    let old = std::fs::File::options().write(true).open(host.join("plain")).unwrap();
    old.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_007)).unwrap();
    std::fs::hard_link(host.join("plain"), host.join("second name")).unwrap();
}

#[test]
fn everything_arrives_as_it_was_and_comes_back() {
    for shell in shells() {
        let pair = Pair::new(shell);
        fill(&pair);
        let pushed = pair.push();
        assert!(pushed.skipped.is_empty() && pushed.conflicts.is_empty(), "{shell:?}: {pushed:?}");
        assert_eq!(pair.machine.counted(), 2, "{shell:?}: a first push describes and writes");
        pair.assert_same();
        assert_eq!(std::fs::metadata(pair.instance().join("plain")).unwrap().mtime(), 1_000_000_007);
        pair.assert_settled();

        // The same folder, from the instance to a host that has nothing.
        let back = Pair::new(shell);
        std::fs::rename(pair.instance(), back.instance()).unwrap();
        let pulled = back.pull();
        assert!(pulled.skipped.is_empty() && pulled.conflicts.is_empty(), "{shell:?}: {pulled:?}");
        assert_eq!(back.machine.counted(), 2, "{shell:?}");
        assert_eq!(tree(&back.host()), tree(&back.instance()));
        assert_eq!(tree(&back.host()), tree(&pair.host()));
        back.assert_settled();
    }
}

#[test]
fn changes_and_deletions_travel_each_way() {
    for shell in shells() {
        let pair = Pair::new(shell);
        fill(&pair);
        pair.push();
        let (host, instance) = (pair.host(), pair.instance());
        // On the host: changed, with the same length; gone; new; another kind.
        write(host.join("-rf"), "CONTENT 3");
        std::fs::remove_dir_all(host.join("in").join("with space")).unwrap();
        std::fs::remove_file(host.join("link 0")).unwrap();
        symlink("elsewhere", host.join("link 0")).unwrap();
        std::fs::remove_file(host.join("empty")).unwrap();
        write(host.join("empty/now a folder"), "x");
        std::fs::remove_dir_all(host.join("in/plain")).unwrap();
        write(host.join("in/plain"), "now a file");
        set_mode(host.join("secret"), 0o640);
        let pushed = pair.push();
        assert!(pushed.skipped.is_empty() && pushed.conflicts.is_empty(), "{shell:?}: {pushed:?}");
        assert_eq!(pair.machine.counted(), 4);
        pair.assert_same();
        pair.assert_settled();
        // On the instance.
        write(instance.join("--help"), "changed there");
        std::fs::remove_dir_all(instance.join("in").join("what?")).unwrap();
        std::fs::remove_file(instance.join("star*")).unwrap();
        write(instance.join("star*/a"), "was a file");
        std::fs::remove_dir_all(instance.join("in/it's")).unwrap();
        symlink("/", instance.join("in/it's")).unwrap();
        set_mode(instance.join("program"), 0o644);
        std::fs::create_dir_all(instance.join("new/new/new")).unwrap();
        write(instance.join("read only/more"), "x");
        let pulled = pair.pull();
        assert!(pulled.skipped.is_empty() && pulled.conflicts.is_empty(), "{shell:?}: {pulled:?}");
        assert!(pulled.changed.contains(&PathBuf::from("--help")) && pulled.deleted.contains(&"in/what?".into()));
        assert!(pulled.created.contains(&"new/new/new".into()));
        pair.assert_same();
        pair.assert_settled();
    }
}

#[test]
fn only_the_content_says_that_something_changed() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a"), "one");
    write(pair.host().join("b"), "two");
    pair.push();
    let touch = |path: PathBuf, seconds| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    // Clocks that are years apart.
    touch(pair.host().join("a"), 4_000_000_000);
    touch(pair.instance().join("b"), 1);
    pair.assert_settled();
    // A change that leaves size and time as they were.
    let time = std::fs::metadata(pair.host().join("a")).unwrap().modified().unwrap();
    write(pair.host().join("a"), "ONE");
    std::fs::File::options().write(true).open(pair.host().join("a")).unwrap().set_modified(time).unwrap();
    assert_eq!(pair.push().files, 1);
    assert_eq!(read(pair.instance().join("a")), "ONE");
}

#[test]
fn what_both_changed_is_kept_twice() {
    for shell in shells() {
        let pair = Pair::new(shell);
        let (host, instance) = (pair.host(), pair.instance());
        for it in ["a", "d/b", "gone here", "gone there"] {
            write(host.join(it), "before");
        }
        pair.push();
        write(host.join("a"), "host's");
        write(instance.join("a"), "instance's");
        std::fs::remove_file(host.join("gone here")).unwrap();
        write(instance.join("gone here"), "changed there");
        std::fs::remove_file(instance.join("gone there")).unwrap();
        write(host.join("gone there"), "changed here");
        std::fs::remove_dir_all(host.join("d")).unwrap();
        write(host.join("d"), "a file now");
        write(instance.join("d/b"), "instance's too");

        let pushed = pair.push();
        let named: Vec<_> = pushed.conflicts.iter().map(|it| it.path.to_str().unwrap()).collect();
        assert!(named.contains(&"a") && named.contains(&"d") && named.contains(&"gone here"), "{named:?}");
        assert_eq!(read(instance.join("a")), "instance's");
        assert_eq!(read(instance.join("gone there")), "changed here");
        assert_eq!(read(host.join("a")), "host's");

        let pulled = pair.pull();
        assert_eq!(read(host.join("a")), "host's");
        assert_eq!(read(host.join("a.from-vm")), "instance's");
        assert_eq!(read(host.join("d")), "a file now");
        assert_eq!(read(host.join("d.from-vm/b")), "instance's too");
        assert_eq!(read(host.join("gone here")), "changed there");
        assert!(pulled.conflicts.iter().any(|it| it.kept_as == Some("a.from-vm".into())), "{pulled:?}");
        pair.push();
        pair.assert_same();
        assert_eq!(read(instance.join("a")), "host's");
        pair.assert_settled();

        // The next one of the same name.
        write(host.join("a"), "host's again");
        write(instance.join("a"), "instance's again");
        pair.pull();
        assert_eq!(read(host.join("a.from-vm")), "instance's");
        assert_eq!(read(host.join("a.from-vm-2")), "instance's again");
    }
}

#[test]
fn without_the_base_what_differs_is_a_conflict_and_nothing_is_deleted() {
    let pair = Pair::new(Shell::System);
    let (host, instance) = (pair.host(), pair.instance());
    for it in ["same", "other", "only here", "only there"] {
        write(host.join(it), "before");
    }
    pair.push();
    write(instance.join("other"), "changed there");
    std::fs::remove_file(instance.join("only here")).unwrap();
    std::fs::remove_file(host.join("only there")).unwrap();
    std::fs::remove_file(pair.state()).unwrap();
    let pushed = pair.push();
    assert!(pushed.without_base);
    assert_eq!(pushed.conflicts.len(), 1);
    pair.pull();
    assert_eq!(read(host.join("other")), "before");
    assert_eq!(read(host.join("other.from-vm")), "changed there");
    assert_eq!(read(host.join("only there")), "before");
    assert_eq!(read(instance.join("only here")), "before");
    pair.push();
    pair.assert_same();
    assert!(!pair.push().without_base);
}

#[test]
fn an_instance_that_was_made_anew_deletes_nothing() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a/b"), "x");
    pair.push();
    for make in [false, true] {
        std::fs::remove_dir_all(pair.instance()).unwrap();
        if make {
            std::fs::create_dir(pair.instance()).unwrap();
        }
        let pulled = pair.pull();
        assert!(pulled.deleted.is_empty() && pulled.without_base, "{pulled:?}");
        assert_eq!(pair.push().files, 1);
        pair.assert_same();
    }
}

#[test]
fn special_files_are_told_and_left_alone() {
    for shell in shells() {
        let pair = Pair::new(shell);
        write(pair.host().join("a"), "x");
        write(pair.host().join("was a file"), "x");
        pair.push();
        let fifo = |path: PathBuf| {
            drop(std::fs::remove_file(&path));
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        };
        fifo(pair.host().join("pipe"));
        fifo(pair.instance().join("pipe there"));
        fifo(pair.instance().join("was a file"));
        let _socket = std::os::unix::net::UnixListener::bind(pair.instance().join("socket")).unwrap();
        write(pair.host().join("pipe there"), "in the way");
        let pushed = pair.push();
        let told = |side, path: &str| {
            let path = std::path::Path::new(path);
            pushed.skipped.iter().any(|it| it.side == side && it.path == *path && it.reason == Reason::Special)
        };
        assert!(told(Side::Host, "pipe") && told(Side::Instance, "socket"), "{shell:?}: {pushed:?}");
        assert!(told(Side::Instance, "pipe there") && told(Side::Instance, "was a file"));
        pair.pull();
        assert_eq!(read(pair.host().join("was a file")), "x");
        assert_eq!(tree(&pair.instance())[&PathBuf::from("pipe there")], Node::Special);
    }
}

#[test]
fn an_instance_without_the_tools_is_told_which() {
    let pair = Pair::new(Shell::System);
    let tools = pair.folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    for tool in ["sh", "stat", "sed", "tr", "wc", "mv", "chmod", "rmdir", "mkdir", "readlink", "cat", "rm"] {
        symlink(PathBuf::from("/bin").join(tool), tools.join(tool)).unwrap();
    }
    // One that has a `find` which cannot do what is needed.
    write(tools.join("find"), "#!/bin/sh\nexit 1\n");
    set_mode(tools.join("find"), 0o755);
    let machine =
        crate::machine::Machine { tools: Some(tools), only_tools: true, ..crate::machine::Machine::new(Shell::System) };
    let pair = Pair { machine, ..pair };
    let Err(Error::Tools { tools }) = pair.try_push() else { panic!("tools are missing") };
    assert_eq!(tools, ["xargs", "sha256sum", "tar", "find"]);
}

/// Nothing packs smaller than nothing, and zstd is faster than gzip.
#[test]
fn an_instance_gets_what_it_can_unpack() {
    let cases: [(&[&str], &[u8]); 4] = [
        (&[], b"t\0"),
        (&["gzip"], &[0x1f, 0x8b]),
        (&["zstd"], &[0x28, 0xb5, 0x2f, 0xfd]),
        (&["gzip", "zstd"], &[0x28, 0xb5, 0x2f, 0xfd]),
    ];
    for (packers, begins) in cases {
        let pair = pair_with(packers);
        fill(&pair);
        pair.push();
        pair.assert_same();
        let sent = pair.machine.last_input.lock().unwrap().clone();
        assert!(sent.starts_with(begins), "{packers:?}: {:?}", &sent[..8]);
        // Torn on its way, it changes nothing.
        write(pair.host().join("plain"), "changed here");
        pair.machine.arrives.store(66, Ordering::SeqCst);
        pair.try_push().unwrap_err();
        pair.machine.arrives.store(100, Ordering::SeqCst);
        assert_ne!(std::fs::read(pair.instance().join("plain")).unwrap(), b"changed here", "{packers:?}");
        pair.push();
        write(pair.instance().join("plain"), "changed there");
        pair.pull();
        pair.assert_same();
    }
}

/// One whose instance has the tools that are needed, and these.
fn pair_with(packers: &[&str]) -> Pair {
    let pair = Pair::new(Shell::System);
    let tools = pair.folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let needed = [
        "sh",
        "stat",
        "sed",
        "tr",
        "wc",
        "mv",
        "chmod",
        "rmdir",
        "mkdir",
        "readlink",
        "cat",
        "rm",
        "find",
        "xargs",
        "sha256sum",
        "tar",
        "head",
        "tail",
    ];
    for tool in needed.iter().chain(packers) {
        let path = ["/bin", "/usr/bin"].into_iter().map(|it| PathBuf::from(it).join(tool)).find(|it| it.exists());
        symlink(path.unwrap(), tools.join(tool)).unwrap();
    }
    let machine =
        crate::machine::Machine { tools: Some(tools), only_tools: true, ..crate::machine::Machine::new(Shell::System) };
    Pair { machine, ..pair }
}

#[test]
fn two_syncs_of_one_folder_do_not_go_on_at_once() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a"), "x");
    let (sync, seen) = (pair.sync(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let list = std::sync::Arc::clone(&seen);
    pair.machine.after(move |_, _| {
        let sync = sync.clone();
        let other = std::thread::spawn(move || {
            crate::machine::block_on(sync.push(&crate::machine::Machine::new(Shell::System)))
        });
        list.lock().unwrap().push(matches!(other.join().unwrap(), Err(Error::Busy { .. })));
    });
    pair.push();
    assert_eq!(*seen.lock().unwrap(), [true, true]);
}

#[test]
fn more_files_than_are_allowed_are_refused_on_either_side() {
    let pair = Pair::new(Shell::System);
    for it in 0..20 {
        write(pair.host().join(format!("{it}")), "x");
    }
    let push = |limit| crate::machine::block_on(pair.sync().max_files(limit).push(&pair.machine));
    assert!(matches!(push(19), Err(Error::TooMany { side: Side::Host, limit: 19, .. })));
    push(20).unwrap();
    for it in 0..30 {
        write(pair.instance().join(format!("new {it}")), "x");
    }
    assert!(matches!(push(20), Err(Error::TooMany { side: Side::Instance, found, limit: 20 }) if found >= 50));
}

#[test]
fn a_sync_can_be_a_task_of_its_own() {
    fn task<T: Send + 'static>(_: &(impl Future<Output = T> + Send)) {}
    let (sync, machine) = (Pair::new(Shell::System).sync(), crate::machine::Machine::new(Shell::System));
    task(&sync.push(&machine));
    task(&sync.pull(&machine));
}
